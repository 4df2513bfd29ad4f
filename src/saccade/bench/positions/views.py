"""What a position method does, read off its hooks: nothing here knows any method.

Tokens are zeros, and queries and keys all ones, so that only positions are left. Cost: O(n c) a method, O(n h) scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from saccade.errors import must_be, unknown
from saccade.nn import POSITIONS, Position
from saccade.seeded import seeded
from saccade.shapes import Float, Tensor

WIDTH, HEADS = 64, 8
LENGTH, LONGEST = 128, 4096


@dataclass(frozen=True, eq=False)
class PositionView:
    """One method at so many positions.

    Attributes:
        name: its name in the list.
        does: what it does, in a few words.
        numbers: what it says of each position, a row for each number or head.
        rows: what the rows are.
        scores: of a query in the middle with each key, a line for each head that differs.
        measure: what the scores are.
        learned: whether the numbers are those that training starts from.
    """

    name: str
    does: str
    numbers: Float[Tensor, "f n"]
    rows: str
    scores: Float[Tensor, "h n"]
    measure: str
    learned: bool

    @property
    def middle(self) -> int:
        """The position of the query."""
        return self.numbers.shape[1] // 2

    @property
    def levels(self) -> Float[Tensor, "f n"]:
        """The numbers from -1 to 1, the largest of either sign being 1."""
        return self.numbers / self.numbers.abs().amax().clamp(min=torch.finfo(self.numbers.dtype).tiny)


@dataclass(frozen=True)
class Views:
    """All methods that were asked for.

    Attributes:
        shown: those that do something.
        left_out: the names of the others, with the reason.
        seed: what parameters were drawn from.
    """

    shown: list[PositionView] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    seed: int = 0

    @property
    def notes(self) -> list[str]:
        """What a reader has to know of the pictures."""
        learned = [view.name for view in self.shown if view.learned]
        notes = ["Above: dark is above zero, orange below. Below: the score of the query in the middle with each key."]
        if learned:
            names = " and ".join([", ".join(learned[:-1]), learned[-1]] if learned[1:] else learned)
            notes.append(f"Before training (seed {self.seed}): {names}.")
        return [*notes, *(f"Left out: {name}, {reason}." for name, reason in self.left_out.items())]


def look_at_positions(names: Sequence[str] = (), length: int = LENGTH, seed: int = 0) -> Views:
    """The methods of these names; all but `none` if none are given.

    Args:
        names: of `POSITIONS`.
        length: how many positions.
        seed: of parameters as they start out.

    Raises:
        ValueError: an unknown name, or a length that is too small or too large to draw.
    """
    if not 2 <= length <= LONGEST:
        raise ValueError(must_be("length", f"from 2 to {LONGEST:,}", length))
    views = Views(seed=seed)
    for name in names or [name for name in POSITIONS if name != "none"]:
        if name not in POSITIONS:
            raise ValueError(unknown("position", name, POSITIONS))
        try:
            with seeded(seed), torch.no_grad():
                view = _view(name, POSITIONS[name](WIDTH, length).double(), length)
        except ModuleNotFoundError as error:
            views.left_out[name] = str(error)
            continue
        if view is None:
            views.left_out[name] = "which does nothing"
        else:
            views.shown.append(view)
    return views


def _view(name: str, position: Position, length: int) -> PositionView | None:
    learned = any(True for _ in position.parameters())
    added = position.on_input(torch.zeros(1, length, WIDTH, dtype=torch.float64))[0]
    if bool(added.any()):
        unit = added / torch.linalg.vector_norm(added, dim=-1, keepdim=True).clamp(min=1e-12)
        likeness = (unit @ unit[length // 2])[None]
        does, measure = "added to the input", "cosine of the vectors"
        return PositionView(name, does, added.T, "channels", likeness, measure, learned)
    if not position.in_attention():
        return None
    ones = torch.ones(1, HEADS, length, WIDTH, dtype=torch.float64)
    q, k = position.on_qk(ones, ones, causal=False)
    bias = position.on_scores(q[:, :, length // 2, None], k, length // 2, causal=False)
    if bias is None:
        scores = (q[0, :1, length // 2] @ k[0, 0].T) / WIDTH
        return PositionView(name, "turns q and k", q[0, 0].T, "channels", scores, "q · k of equal vectors", learned)
    lines = bias[0, :, 0]
    return PositionView(name, "factor on each weight", lines.exp(), "heads", lines, "added to the score", learned)
