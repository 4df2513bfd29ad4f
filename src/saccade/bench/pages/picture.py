"""The weights of a mechanism on a real input, beside those of full attention on the same queries and keys.

A weight is drawn as its share of all that its query gives, signs aside.
"""

from typing import TYPE_CHECKING

import torch

from saccade.attention import Mechanism
from saccade.attention.weights import implied_weights
from saccade.bench.pages.passage import Passage
from saccade.bench.plots import DOTS, ink_colors, new_figure
from saccade.bench.shades import cells, ink, pooled, shares, strength
from saccade.seeded import seeded
from saccade.shapes import Float, Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE, CELLS = 3.2, 128
"""Inches of a square, and cells across it: four dots for each at 160 dots an inch."""

LEVELS = 16
"""How many shades are told apart."""

GAP, FRAME = 12, 0.2
"""Dots between the squares of a small picture, and the shade of the line around each."""


def weights_on(spec: Mechanism, passage: Passage, seed: int = 0) -> Float[Tensor, "h n n"]:
    """The weights of a mechanism on a passage. Parameters of its own are as they start out, drawn from the seed."""
    inputs = {name: passage.inputs[name] for name in spec.inputs}
    heads, dims = passage.inputs["q"].shape[1], (passage.inputs["q"].shape[3], passage.inputs["v"].shape[3])
    with seeded(seed), torch.no_grad():
        layer = spec.build(heads, dims[0], value_dim=dims[1], layer=1).eval()
        return shares(implied_weights(layer, inputs)[0])


def weights_figure(spec: Mechanism, passage: Passage) -> "Figure":
    """Two heads, one below the other: full attention on the left, the mechanism on the right; full attention alone
    has its two heads side by side.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    whole, heads = passage.weights, passage.heads
    if spec.name == "full":
        squares = [[(f"full, head {head}", whole[head]) for head in heads]]
    else:
        own = weights_on(spec, passage)
        squares = [[(f"full, head {head}", whole[head]), (_title(own[head], whole[head]), own[head])] for head in heads]
    figure = new_figure(2 * SIDE + 0.7, (SIDE + 0.5) * len(squares) + 0.3)
    axes = figure.subplots(len(squares), 2, squeeze=False)
    for row, drawn in zip(axes, squares, strict=True):
        for axis, (title, weights) in zip(row, drawn, strict=True):
            _draw(axis, title, weights)
    figure.suptitle(str(spec), fontsize=11, fontweight="bold", x=0.02, ha="left")
    return figure


def small_figure(spec: Mechanism, passage: Passage) -> "Figure":
    """The same two heads side by side and nothing else: two dots of the picture for each cell, and a frame.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    weights = passage.weights if spec.name == "full" else weights_on(spec, passage)
    squares = [_framed(shade(weights[head]).repeat_interleave(2, 0).repeat_interleave(2, 1)) for head in passage.heads]
    gap = torch.full((len(squares[0]), GAP), torch.nan)
    dots = torch.cat([squares[0], gap, squares[1]], 1)
    figure = new_figure(dots.shape[1] / DOTS, dots.shape[0] / DOTS)
    figure.figimage(dots.numpy(), cmap=ink_colors(), vmin=-1, vmax=1, origin="upper")
    return figure


def _framed(square: Float[Tensor, "n n"]) -> Float[Tensor, "m m"]:
    return torch.nn.functional.pad(square, (1, 1, 1, 1), value=FRAME)


def overlap(one: Float[Tensor, "q k"], other: Float[Tensor, "q k"]) -> float:
    """The share of the weight that both put on the same keys: the mean over queries of the sum of the smaller ones."""
    return torch.minimum(one, other).clamp(min=0).sum(-1).mean().item()


def _title(own: Float[Tensor, "n n"], whole: Float[Tensor, "n n"]) -> str:
    pairs = (own != 0).double().mean().item()
    return f"{pairs:.0%} of the pairs, overlap with full {overlap(own, whole):.0%}"


def _draw(axis: "Axes", title: str, weights: Float[Tensor, "n n"]) -> None:
    n = len(weights)
    axis.imshow(
        shade(weights).numpy(), cmap=ink_colors(), vmin=-1, vmax=1, extent=(0, n, n, 0), interpolation="nearest"
    )
    axis.set_title(title, fontsize=8.5, loc="left", pad=4)
    axis.set_xlabel("keys", fontsize=8, labelpad=-6)
    axis.set_ylabel("queries", fontsize=8, labelpad=-10)
    axis.set_xticks([0, n])
    axis.set_yticks([0, n])
    axis.tick_params(labelsize=7, length=2, colors="#666666")
    for spine in axis.spines.values():
        spine.set_color("#c8d0da")


def shade(weights: Float[Tensor, "n n"]) -> Float[Tensor, "m m"]:
    """The ink of each cell, in few levels; NaN where there is no weight at all."""
    side = cells(len(weights), CELLS)
    level = ink(strength(weights), side, side)
    return ((level * LEVELS).round() / LEVELS).masked_fill(pooled(weights.abs(), side, side) == 0, torch.nan)
