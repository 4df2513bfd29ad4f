"""Texts longer than the windows that a model was trained on.

What a model writes gets worse where it stands at positions that it never saw in training. So a window that is full is
left, and the model begins anew with its last tokens, as training windows begin anywhere. Where windows begin follows
from the position alone: a row comes out the same alone and in any batch, and prompts as if fed token by token.
Cost: each window reads `kept` tokens again, which is one more pass a token where half of it is kept. Memory: at most
that of one window, however long the text.
"""

from typing import Any, NamedTuple

from torch import cat

from saccade.errors import must_be
from saccade.generation.stream import Stream
from saccade.shapes import Float, Int, Tensor


class Window(NamedTuple):
    """What each row has read since its window began, and the model's state behind it."""

    tokens: Int[Tensor, "b n"]
    inner: Any


class Windowed:
    """A stream that reads no more than a window at once.

    Args:
        model: a stream without a source.
        length: the most tokens of a window.
        kept: how many of a full window the next one begins with; half of it if not given.

    Raises:
        ValueError: fewer than one token kept or as many as the window has, or a window of fewer than two.
    """

    def __init__(self, model: Stream, length: int, kept: int | None = None) -> None:
        kept = length // 2 if kept is None else kept
        if length < 2:
            raise ValueError(must_be("length", "at least 2", length))
        if not 1 <= kept < length:
            raise ValueError(must_be("kept", f"from 1 to {length - 1}", kept))
        self._model, self._length, self._kept = model, length, kept

    def start(self, prompts: Int[Tensor, "b n"], source: Any = None) -> tuple[Float[Tensor, "b v"], Window]:
        """The logits behind the prompts, read from where the last window begins.

        Raises:
            ValueError: there is a source.
        """
        if source is not None:
            raise ValueError(must_be("source", "None for a window of a text", type(source).__name__))
        return self._begun(prompts[:, self.forgotten(prompts.shape[1]) :])

    def forgotten(self, length: int) -> int:
        """How many of so many tokens stand before the window in which the last of them is read.

        A prompt may come without them: windows then begin in the same places, and nothing is other.
        """
        fresh = self._length - self._kept
        return max(0, -(-(length - self._length) // fresh)) * fresh

    def advance(self, tokens: Int[Tensor, " b"], state: Window) -> tuple[Float[Tensor, "b v"], Window]:
        """The logits behind one more token of every row."""
        if state.tokens.shape[1] == self._length:
            return self._begun(cat([state.tokens[:, -self._kept :], tokens[:, None]], dim=1))
        logits, inner = self._model.advance(tokens, state.inner)
        return logits, Window(cat([state.tokens, tokens[:, None]], dim=1), inner)

    def reorder(self, state: Window, rows: Int[Tensor, " b2"]) -> Window:
        """Other rows in place of these."""
        return Window(state.tokens[rows], self._model.reorder(state.inner, rows))

    def _begun(self, tokens: Int[Tensor, "b n"]) -> tuple[Float[Tensor, "b v"], Window]:
        logits, inner = self._model.start(tokens)
        return logits, Window(tokens, inner)
