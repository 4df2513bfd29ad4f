"""What a model gives so that its tokens can be decoded one after another.

A stream has no padding: all rows of a batch begin at position 0 and have read equally many tokens, so that a state's
position is one number. Prompts of different lengths are the decoder's matter, not the model's: it starts with the
shortest and feeds the others their own tokens. A state is a value: `advance` and `reorder` leave the old one as it
was, so that beams may branch from it.
"""

from typing import Any, Protocol, runtime_checkable

from saccade.shapes import Float, Int, Tensor


@runtime_checkable
class Stream(Protocol):
    """A model that reads a row token by token and scores what may come next, such as a `LanguageModel`.

    Scores are logits: any numbers whose softmax is the distribution, so log-probabilities are right too. No NaN; a
    token that cannot follow has `-inf`.
    """

    def start(
        self,
        prompts: Int[Tensor, "b n"],
        source: Any = None,
    ) -> tuple[Float[Tensor, "b v"], Any]:
        """Read what each row begins with.

        Args:
            prompts: the first tokens of every row, at least one (`bos` where there is no other) and no padding.
            source: what the rows are conditioned on, in the model's own form, such as the tokens and the key mask of
                a sentence to translate; it is read once, and what is needed of it goes into the state.

        Returns:
            The logits of the token at position `n`, and the state behind the prompts.
        """
        ...

    def advance(self, tokens: Int[Tensor, " b"], state: Any) -> tuple[Float[Tensor, "b v"], Any]:
        """Read one more token of every row: the logits of the token after it, and the state behind it."""
        ...

    def reorder(self, state: Any, rows: Int[Tensor, " b2"]) -> Any:
        """The states of other rows in place of these: `rows` says which, in any order, repeated or left out."""
        ...
