"""The best continuations found so far: what a beam search keeps besides those that it is still writing."""

from typing import Literal, NamedTuple

import torch
from torch.nn.functional import pad

from saccade.shapes import Bool, Float, Int, Tensor

Penalty = Literal["power", "gnmt"]
PENALTIES = ("power", "gnmt")


def penalty_of(lengths: Int[Tensor, "..."], kind: Penalty, exponent: float) -> Float[Tensor, "..."]:
    """What the log-probability of so many tokens is divided by, in float64; no tokens count as one.

    `power` is `length ^ exponent`; `gnmt` is `((5 + length) / 6) ^ exponent` (Wu et al. 2016, equation 14).
    """
    lengths = lengths.clamp(min=1).double()
    return (lengths if kind == "power" else (5 + lengths) / 6) ** exponent


class Hypotheses(NamedTuple):
    """Some continuations of each prompt, the best first; where there are fewer, the last have a score of `-inf`.

    The fields are those of `Generated`, of which each row here has `k`.
    """

    tokens: Int[Tensor, "b k t"]
    lengths: Int[Tensor, "b k"]
    ended: Bool[Tensor, "b k"]
    log_probs: Float[Tensor, "b k"]
    scores: Float[Tensor, "b k"]

    def of(self, rows: Int[Tensor, " b2"]) -> "Hypotheses":
        """Those of other prompts."""
        return Hypotheses(*(part[rows] for part in self))

    def with_those_of(self, rows: Int[Tensor, " b2"], others: "Hypotheses") -> "Hypotheses":
        """The same, but with others for some prompts; tokens grow as wide as theirs."""
        wider = self._replace(tokens=pad(self.tokens, (0, others.tokens.shape[2] - self.tokens.shape[2])))
        return Hypotheses(*(own.index_copy(0, rows, part) for own, part in zip(wider, others, strict=True)))

    def best_with(self, others: "Hypotheses") -> "Hypotheses":
        """The best of these and others of the same prompts, as many as there are here. Of equals, these."""
        count = self.scores.shape[1]
        wider = self._replace(tokens=pad(self.tokens, (0, others.tokens.shape[2] - self.tokens.shape[2])))
        both = Hypotheses(*(torch.cat(pair, dim=1) for pair in zip(wider, others, strict=True)))
        order = both.scores.argsort(dim=1, descending=True, stable=True)[:, :count]
        return Hypotheses(
            both.tokens.gather(1, wide(order, both.tokens)), *(part.gather(1, order) for part in both[1:])
        )


def none_yet(width: int, complete: Bool[Tensor, " b"], like: Float[Tensor, "..."]) -> Hypotheses:
    """Room for `width` hypotheses of each prompt; where no token may come at all, the first is the empty one."""
    zeros = torch.zeros(len(complete), width, dtype=torch.long, device=complete.device)
    log_probs = torch.full_like(zeros, -torch.inf, dtype=like.dtype)
    log_probs[complete, 0] = 0
    return Hypotheses(zeros[..., None][..., :0], zeros, zeros.bool(), log_probs, log_probs.double())


def wide(index: Int[Tensor, "b s"], tokens: Int[Tensor, "b k t"]) -> Int[Tensor, "b s t"]:
    """An index of hypotheses, for each of their tokens."""
    return index[..., None].expand(-1, -1, tokens.shape[2])
