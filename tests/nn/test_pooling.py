import math

import pytest
import torch

from saccade.nn.pooling import POOLINGS, FirstPooling, MeanPooling, QueryPooling

KEY_MASK = torch.tensor([[True, True, True, True], [False, True, False, True], [False] * 4])


def test_real_tokens_only_are_read():
    x = torch.arange(24.0).view(3, 4, 2)
    assert MeanPooling(2)(x, KEY_MASK).tolist() == [[3, 4], [12, 13], [0, 0]]
    assert FirstPooling(2)(x, KEY_MASK).tolist() == [[0, 1], [10, 11], [0, 0]]


def test_a_query_weighs_tokens_by_their_products_with_it():
    x, pooling = torch.randn(3, 4, 5).double(), QueryPooling(5).double()
    torch.testing.assert_close(pooling(x, KEY_MASK), MeanPooling(5)(x, KEY_MASK), rtol=0, atol=1e-12)
    with torch.no_grad():
        pooling.query.normal_()
    found = pooling(x, KEY_MASK)
    for row in range(2):
        weights = [
            math.exp(torch.dot(token, pooling.query).item() / math.sqrt(5)) if real else 0.0
            for token, real in zip(x[row], KEY_MASK[row], strict=True)
        ]
        expected = sum(weight / sum(weights) * token for weight, token in zip(weights, x[row], strict=True))
        torch.testing.assert_close(found[row], expected, rtol=0, atol=1e-12)
    assert (found[2] == 0).all()


@pytest.mark.parametrize("name", POOLINGS)
def test_nothing_behind_the_mask_reaches_a_result_or_a_gradient(name):
    x = torch.randn(3, 4, 5).masked_fill(~KEY_MASK[..., None], float("nan")).requires_grad_()
    pooling = POOLINGS[name](5)
    found = pooling(x, KEY_MASK)
    found.square().sum().backward()
    assert found.isfinite().all()
    assert (x.grad[~KEY_MASK] == 0).all()
    assert x.grad[0].any()
    for weight in pooling.parameters():
        assert weight.grad.isfinite().all()
        assert weight.grad.any()
