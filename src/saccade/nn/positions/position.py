"""What a position method is: a module with three hooks, of which each method fills the ones it needs.

| hook | called | with |
|---|---|---|
| `on_input` | once, by the model | the embedded tokens |
| `on_qk` | in each layer | queries and keys, before they meet and before keys enter a decoding state |
| `on_scores` | in each layer | the same, where a number is added to the score of each pair |
"""

from abc import ABC
from typing import ClassVar

from torch import nn

from saccade.shapes import Float, Tensor


class Position(nn.Module, ABC):
    """What a position method may do to a model; each method overrides the hooks it needs.

    Every method is built as `Method(width, max_length)`, with the model width and the longest input that has
    to work. Positions count from 0.

    Attributes:
        extra_dims: numbers that `on_qk` puts in front of each query and key.
    """

    extra_dims: ClassVar[int] = 0

    def on_input(self, x: Float[Tensor, "b n c"], start: int = 0) -> Float[Tensor, "b n c"]:
        """The embedded tokens with their positions.

        Args:
            x: embedded tokens.
            start: the position of the first one.
        """
        return x

    def on_qk(
        self,
        q: Float[Tensor, "b h q d"],
        k: Float[Tensor, "b g k d"],
        q_start: int = 0,
        k_start: int = 0,
        *,
        causal: bool,
    ) -> tuple[Float[Tensor, "b h q d2"], Float[Tensor, "b g k d2"]]:
        """Queries and keys with their positions.

        A key depends on its own position alone, so it can be kept in a decoding state.

        Args:
            q: queries.
            k: keys.
            q_start: the position of the first query.
            k_start: the position of the first key.
            causal: whether a query sees only keys up to its own position; a decoding step does.
        """
        return q, k

    def on_scores(
        self,
        q: Float[Tensor, "b h q d"],
        k: Float[Tensor, "b g k d"],
        q_start: int = 0,
        k_start: int = 0,
        *,
        causal: bool,
    ) -> Float[Tensor, "1 h q k"] | None:
        """What is added to the scaled score of each pair; `None` where `on_qk` has said it all.

        Arguments as of `on_qk`, whose results these queries and keys are.
        """
        return None

    @classmethod
    def in_attention(cls) -> bool:
        """Whether it has something to do in each layer."""
        return cls.on_qk is not Position.on_qk or cls.in_scores()

    @classmethod
    def in_scores(cls) -> bool:
        """Whether it adds to scores, so that the mechanism must make a softmax of them (its claim `exact`)."""
        return cls.on_scores is not Position.on_scores
