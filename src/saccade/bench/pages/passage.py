"""A real input for the pictures: what a small trained model asks for and offers when it reads a passage.

A classifier with full attention learns to tell from which package of Python's standard library a passage of source
code comes. Then it reads one that it was not trained on, and the queries, keys and values of its last layer are kept.
All is drawn from fixed seeds; another release of Python has other passages. Cost: a minute or two of training.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from saccade.attention.weights import implied_weights
from saccade.data import DataSettings
from saccade.models import ClassifierSettings, SequenceClassifier
from saccade.shapes import Float, Int, Tensor
from saccade.tasks.classification import Recipe, prepare
from saccade.training import TrainingSettings

LENGTH, HEADS = 256, 8
RECIPE = Recipe(
    data=DataSettings(source="stdlib", length=LENGTH),
    model=ClassifierSettings(mechanism="full", width=128, heads=HEADS, layers=2, hidden=256),
    training=TrainingSettings(steps=400, learning_rate=2e-3),
)


@dataclass(frozen=True, eq=False)
class Passage:
    """What the last layer of a trained model works on when it reads a passage.

    Attributes:
        inputs: queries, keys and values by name, `[1 h n d]` each.
        weights: of full attention between them.
    """

    inputs: Mapping[str, Float[Tensor, "1 h n d"]]
    weights: Float[Tensor, "h n n"]

    @property
    def heads(self) -> tuple[int, int]:
        """Of each half of the heads, the one whose weights are the most concentrated: there is most to see."""
        entropy = -torch.xlogy(self.weights, self.weights).sum(-1).mean(-1)
        half = len(entropy) // 2
        return int(entropy[:half].argmin()), half + int(entropy[half:].argmin())


def trained_passage(recipe: Recipe = RECIPE, say: Callable[[str], object] = print) -> Passage:
    """Train the model of a recipe, and read the first test passage of full length with it.

    Args:
        recipe: what to train.
        say: is told how far it is.
    """

    def on_step(step: int, loss: float, _: float) -> None:
        if step % 50 == 0:
            say(f"step {step} of {recipe.training.steps}: loss {loss:.2f}")

    prepared = prepare(recipe)
    prepared.fit(quiet=True, on_step=on_step)
    tokens = next(each for each in prepared.data.test.sequences if len(each) == recipe.data.length)
    return read(prepared.model, tokens)


def read(model: SequenceClassifier, tokens: Int[Tensor, " n"]) -> Passage:
    """What the last layer of a model with full attention works on."""
    seen: dict[str, Any] = {}
    layer = model.get_submodule(f"encoder.layers.{model.settings.layers - 1}.attention.layer")
    hook = layer.register_forward_pre_hook(lambda _, args, inputs: seen.update(inputs), with_kwargs=True)
    with torch.no_grad():
        model.cpu().eval()(tokens[None].long())
        hook.remove()
        inputs = {name: seen[name] for name in ("q", "k", "v")}
        return Passage(inputs, implied_weights(layer, inputs)[0])  # pyright: ignore[reportArgumentType]
