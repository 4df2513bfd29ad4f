"""One step of a beam search, without the model: the live hypotheses of each prompt, and their best extensions."""

from typing import NamedTuple

import torch
from torch.nn.functional import pad

from saccade.generation.autoregressive import Plan
from saccade.generation.hypotheses import wide
from saccade.generation.method import NEAR
from saccade.generation.ranking import best
from saccade.shapes import Bool, Float, Int, Tensor


class Live(NamedTuple):
    """The hypotheses that go on, of the prompts that are still searched: the best first, all equally long."""

    tokens: Int[Tensor, "a k t"]
    lengths: Int[Tensor, " a"]
    log_probs: Float[Tensor, "a k"]

    def of(self, rows: Int[Tensor, " a2"]) -> "Live":
        """Those of other prompts."""
        return Live(*(part[rows] for part in self))


class Children(NamedTuple):
    """Extensions by one token, the best first: of which hypothesis, by which token, what they come to, whether done."""

    parents: Int[Tensor, "a s"]
    tokens: Int[Tensor, "a s"]
    log_probs: Float[Tensor, "a s"]
    ended: Bool[Tensor, "a s"]

    def first(self, count: int) -> "Children":
        """The best of them."""
        return Children(*(part[:, :count] for part in self))


def none_but_the_prompt(rows: Int[Tensor, " a"], width: int, like: Float[Tensor, "m v"]) -> Live:
    """One hypothesis of no tokens for each prompt, and room for others, at `-inf`."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    log_probs = torch.full((len(rows), width), -torch.inf, dtype=dtype, device=like.device)
    log_probs[:, 0] = 0
    return Live(rows.new_zeros(len(rows), width, 0), torch.zeros_like(rows), log_probs)


def extend(live: Live, log_probs: Float[Tensor, "a k v"], eos: int | None) -> Children:
    """The best extensions of the live hypotheses of each prompt by one token.

    So many that among them are one more than the width that go on: at most one of each hypothesis ends.
    """
    width, vocabulary = log_probs.shape[1:]
    values, places = best((live.log_probs[..., None] + log_probs).flatten(1), 2 * width + 1)
    tokens = places % vocabulary
    ended = torch.zeros_like(tokens, dtype=torch.bool) if eos is None else tokens == eos
    return Children(places // vocabulary, tokens, values, ended)


def going_on(children: Children) -> Children:
    """The children that have not ended first, in their order; the others behind them, at `-inf`."""
    order = children.ended.long().argsort(dim=1, stable=True)
    kept = Children(*(part.gather(1, order) for part in children))
    return kept._replace(log_probs=kept.log_probs.masked_fill(kept.ended, -torch.inf))


def prompted(children: Children, live: Live, plan: Plan, position: int) -> Children:
    """The same, but where a prompt goes on, its next token behind every hypothesis."""
    in_prompt, token = plan.forced(position)
    own = torch.arange(live.log_probs.shape[1], device=token.device).expand_as(live.log_probs)
    forced = Children(own, token[:, None].expand_as(own), live.log_probs, torch.zeros_like(own, dtype=torch.bool))
    return Children(*(torch.where(in_prompt[:, None], a, b) for a, b in zip(forced, children, strict=True)))


def append(live: Live, children: Children) -> Int[Tensor, "a s t2"]:
    """The tokens of the children."""
    tokens = pad(live.tokens.gather(1, wide(children.parents, live.tokens)), (0, 1))
    end = live.lengths[:, None, None].expand(*children.tokens.shape, 1)
    return tokens.scatter(2, end, children.tokens[..., None])


def near_border(values: Float[Tensor, "a s"], count: int) -> Bool[Tensor, " a"]:
    """Whether the last of the `count` best, and the first that is not, are nearly equal."""
    if values.shape[1] <= count:
        return values.new_zeros(len(values)).bool()
    return values[:, count - 1] - values[:, count] < NEAR
