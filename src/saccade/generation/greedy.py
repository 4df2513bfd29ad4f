"""Greedy decoding: always the most probable next token.

Cost: one pass of the model a token, at the width of one row a prompt.
"""

from dataclasses import dataclass
from typing import ClassVar, final

from saccade.generation.autoregressive import Autoregressive
from saccade.generation.method import NEAR, Generated, Request
from saccade.generation.ranking import best
from saccade.generation.rows import Choice, Rows, advance_rows, finish_rows, open_rows
from saccade.generation.stream import Stream
from saccade.shapes import Float, Int, Tensor


def most_probable(
    log_probs: Float[Tensor, "a v"],
    rows: Int[Tensor, " a"],
    lengths: Int[Tensor, " a"],
) -> Choice:
    """The most probable token of each row, the lowest of equals; whatever row it is and however long."""
    values, tokens = best(log_probs, 2)
    near = (values[:, 0] - values[:, -1] < NEAR) if values.shape[1] > 1 else rows.new_zeros(len(rows)).bool()
    return Choice(tokens[:, 0], near)


@final
@dataclass(frozen=True, kw_only=True)
class Greedy(Autoregressive):
    """The most probable next token, each time. The attributes are those of `Autoregressive`."""

    name: ClassVar[str] = "greedy"

    def start(self, model: Stream, request: Request) -> Rows:
        """The state behind the prompts."""
        return open_rows(self.open(model, request), request.special, self.min_length)

    def advance(self, model: Stream, state: Rows) -> Rows:
        """One more token of every row."""
        return advance_rows(model, state, most_probable)

    def finish(self, state: Rows) -> Generated:
        """The rows; their scores are their log-probabilities."""
        return finish_rows(state, results=1)
