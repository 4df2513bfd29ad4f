import pytest
import torch
from torch import nn

from saccade.training.evaluating import evaluating


@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_asked_without_dropout_and_gradients_and_then_as_it_was(training: bool) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).train(training)
    x = torch.ones(2, 3)
    with evaluating(model) as device:
        assert device == torch.device("cpu")
        assert torch.equal(model(x), model[0](x))
        assert not model(x).requires_grad
    assert [each.training for each in model.modules()] == [training] * 3


def test_a_model_is_as_it_was_after_an_error() -> None:
    model = nn.Linear(3, 3)
    with pytest.raises(RuntimeError), evaluating(model):
        model(torch.ones(2))
    assert model.training
