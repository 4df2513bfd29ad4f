"""Decoding without states: everything read so far is read again for every token.

Cost: the whole model on `n` tokens for token `n`, so O(n) forward passes of growing length. It is what decoding with
states must equal, and it lets a causal model decode whose attention does not stream.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import cat

from saccade.shapes import Float, Int, Tensor


class Read(NamedTuple):
    """What each row has read: its tokens, and what they are conditioned on."""

    tokens: Int[Tensor, "b n"]
    source: tuple[Any, ...]


class Recomputed:
    """A plain causal model as a stream.

    Args:
        forward: gives logits `[b n v]` for tokens `[b n]`, each from the tokens up to its own. It is called as
            `forward(tokens)`, or as `forward(tokens, *source)` where the rows have a source: a tensor, or a tuple of
            tensors (`None` among them stays `None`), all with the rows first.
    """

    def __init__(self, forward: Callable[..., Float[Tensor, "b n v"]]) -> None:
        self._forward = forward

    def start(self, prompts: Int[Tensor, "b n"], source: Any = None) -> tuple[Float[Tensor, "b v"], Read]:
        """The logits behind the prompts; as a state, what was read."""
        if source is None:
            parts = ()
        else:
            parts = source if isinstance(source, tuple) else (source,)
        return self._next(Read(prompts, parts))

    def advance(self, tokens: Int[Tensor, " b"], state: Read) -> tuple[Float[Tensor, "b v"], Read]:
        """The logits behind one more token of every row."""
        return self._next(state._replace(tokens=cat([state.tokens, tokens[:, None]], dim=1)))

    def reorder(self, state: Read, rows: Int[Tensor, " b2"]) -> Read:
        """Other rows in place of these."""
        source = tuple(part if part is None else part[rows] for part in state.source)
        return Read(state.tokens[rows], source)

    def _next(self, state: Read) -> tuple[Float[Tensor, "b v"], Read]:
        return self._forward(state.tokens, *state.source)[:, -1], state
