"""One continuation of each prompt: the state and the step that `Greedy` and `Sampling` share.

A row that is done goes on being fed until enough are done to pay for copying the others' states together (`DONE`);
what it is fed then is not looked at.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad

from saccade.generation.autoregressive import Opening, Plan
from saccade.generation.method import Generated, SpecialTokens, trimmed
from saccade.generation.ranking import log_probs_of, refuse_impossible
from saccade.generation.stream import Stream
from saccade.shapes import Bool, Float, Int, Tensor

DONE = 0.25
"""The share of rows that are done at which the others are taken out of the batch."""

Choose = Callable[[Float[Tensor, "a v"], Int[Tensor, " a"], Int[Tensor, " a"]], "Choice"]
"""Which token comes next, given the log-probabilities of what is allowed, the rows, and their tokens so far."""


class Choice(NamedTuple):
    """The next token of each row, and whether another batch size might have made it another at fp32."""

    tokens: Int[Tensor, " a"]
    near: Bool[Tensor, " a"]


class Written(NamedTuple):
    """What has been written for each row; the fields are those of `Generated`."""

    tokens: Int[Tensor, "m t"]
    lengths: Int[Tensor, " m"]
    ended: Bool[Tensor, " m"]
    log_probs: Float[Tensor, " m"]
    near_ties: Int[Tensor, " m"]
    passes: Int[Tensor, " m"]


class Rows(NamedTuple):
    """The state: what is written, and the model's side of the rows that are still in its batch.

    Attributes:
        written: of all rows.
        plan: of all rows.
        special: the ids that mean something.
        min_length: the fewest tokens before `eos`.
        slots: which row stands at each place of the model's batch.
        logits: the scores of what comes next there.
        stream: the model's state.
        position: how many tokens the model has read.
    """

    written: Written
    plan: Plan
    special: SpecialTokens
    min_length: int
    slots: Int[Tensor, " a"]
    logits: Float[Tensor, "a v"]
    stream: Any
    position: int

    @property
    def tokens(self) -> Int[Tensor, "m t"]:
        """What is written, without the prompts."""
        return self.written.tokens

    @property
    def lengths(self) -> Int[Tensor, " m"]:
        """How many tokens that are."""
        return self.written.lengths

    @property
    def done(self) -> Bool[Tensor, " m"]:
        """Which rows have ended, or may not grow longer."""
        return self.written.ended | (self.written.lengths >= self.plan.limits)


def open_rows(opening: Opening, special: SpecialTokens, min_length: int) -> Rows:
    """The state before the first choice."""
    prompts, limits = opening.plan.prompts, opening.plan.limits
    zeros = torch.zeros_like(limits)
    sums = zeros.to(torch.promote_types(opening.logits.dtype, torch.float32))
    started = torch.full_like(zeros, len(opening.rows) > 0)
    written = Written(prompts[:, :0], zeros, zeros.bool(), sums, zeros, started)
    _, slots, logits, stream, position = opening
    return Rows(written, opening.plan, special, min_length, slots, logits, stream, position)


def advance_rows(model: Stream, state: Rows, choose: Choose) -> Rows:
    """Choose the next token of each row, write it down, and let the model read it."""
    slots = state.slots
    lengths, waiting = state.lengths[slots], ~state.done[slots]
    forbidden = state.special.forbidden(state.logits.shape[1])
    log_probs = log_probs_of(state.logits, forbidden, state.special.eos, lengths < state.min_length)
    chosen, near = choose(log_probs, slots, lengths)
    in_prompt, prompted = state.plan.of(slots).forced(state.position)
    picked = log_probs.gather(1, chosen[:, None])[:, 0]
    fresh = waiting & ~in_prompt
    refuse_impossible(picked[fresh], slots[fresh])
    written = _write(state.written, slots[fresh], chosen[fresh], picked[fresh], near[fresh], state.special.eos)
    state = state._replace(written=written)
    return _read(model, state, torch.where(in_prompt, prompted, chosen))


def finish_rows(state: Rows, results: int) -> Generated:
    """What is written, as the result."""
    tokens, lengths, ended, log_probs, near_ties, passes = state.written
    tokens = trimmed(tokens, lengths, state.special.pad)
    return Generated(tokens, lengths, ended, log_probs, log_probs, near_ties, passes, results=results)


def _write(
    written: Written,
    rows: Int[Tensor, " a"],
    chosen: Int[Tensor, " a"],
    log_probs: Float[Tensor, " a"],
    near: Bool[Tensor, " a"],
    eos: int | None,
) -> Written:
    """One more token at the end of some rows."""
    tokens = pad(written.tokens, (0, 1))
    tokens[rows, written.lengths[rows]] = chosen
    one = torch.ones_like(rows)
    return Written(
        tokens,
        written.lengths.index_add(0, rows, one),
        written.ended if eos is None else written.ended.index_put((rows,), chosen == eos),
        written.log_probs.index_add(0, rows, log_probs.to(written.log_probs.dtype)),
        written.near_ties.index_add(0, rows, near.long()),
        written.passes,
    )


def _read(model: Stream, state: Rows, tokens: Int[Tensor, " a"]) -> Rows:
    """The state after the model has read the next token of each row that is not done."""
    waiting = ~state.done[state.slots]
    left = int(waiting.sum())
    slots, stream = state.slots, state.stream
    if left == 0:
        return state
    if left <= (1 - DONE) * len(slots):
        places = waiting.nonzero()[:, 0]
        slots, tokens, stream = slots[places], tokens[places], model.reorder(stream, places)
    passes = state.written.passes + ~state.done
    logits, stream = model.advance(tokens, stream)
    written = state.written._replace(passes=passes)
    return state._replace(written=written, slots=slots, logits=logits, stream=stream, position=state.position + 1)
