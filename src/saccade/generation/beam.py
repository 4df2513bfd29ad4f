"""Beam search: the best few continuations of each prompt go on side by side.

Of the extensions of all live hypotheses by one token the best are taken: those that end on `eos` and are among the
best `width` go into the pool of finished ones, the best `width` of the others live on. At its limit a row's live
hypotheses go into the pool as they are, cut. What is finished is ranked by its log-probability over a penalty of its
length (`Penalty`), without which short results win, as every token costs.

Source: the length penalty of Wu et al. (2016), "Google's Neural Machine Translation System", section 7, and the plain
power that fairseq and Hugging Face use. With `length_penalty=0` a beam of one is greedy decoding; with another it may
go on behind the first end, for a longer result of a better score.
Cost: one pass of the model a token, at the width of `width` rows a prompt, and its states copied where beams swap;
O(width v) for choosing.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, final

import torch
from torch.nn.functional import pad

from saccade.errors import must_be, unknown, whole_number
from saccade.generation.autoregressive import Autoregressive, Plan
from saccade.generation.hypotheses import PENALTIES, Hypotheses, Penalty, none_yet, penalty_of
from saccade.generation.live import Children, Live, append, extend, going_on, near_border, none_but_the_prompt, prompted
from saccade.generation.method import NEAR, Generated, Request, SpecialTokens, trimmed
from saccade.generation.ranking import log_probs_of, refuse_impossible
from saccade.generation.stream import Stream
from saccade.shapes import Bool, Float, Int, Tensor

STOPS = ("exact", "full")


class Searched(NamedTuple):
    """The state.

    Attributes:
        pool: what is finished, of all prompts.
        done: whose search is over.
        near_ties: of all prompts.
        passes: of all prompts.
        plan: of all prompts.
        special: the ids that mean something.
        rows: which prompts are still searched.
        live: their hypotheses.
        logits: the scores of what comes next for each of these.
        stream: the model's state, of the same rows.
        position: how many tokens the model has read.
    """

    pool: Hypotheses
    done: Bool[Tensor, " b"]
    near_ties: Int[Tensor, " b"]
    passes: Int[Tensor, " b"]
    plan: Plan
    special: SpecialTokens
    rows: Int[Tensor, " a"]
    live: Live
    logits: Float[Tensor, "m v"]
    stream: Any
    position: int

    @property
    def tokens(self) -> Int[Tensor, "b t"]:
        """The best live hypothesis of each prompt that is still searched, the best finished one of the others."""
        found, live = self.pool.tokens[:, 0], self.live.tokens[:, 0]
        width = max(found.shape[1], live.shape[1])
        shown = pad(found, (0, width - found.shape[1]))
        return shown.index_copy(0, self.rows, pad(live, (0, width - live.shape[1])))

    @property
    def lengths(self) -> Int[Tensor, " b"]:
        """How many tokens these have."""
        return self.pool.lengths[:, 0].index_copy(0, self.rows, self.live.lengths)


@final
@dataclass(frozen=True, kw_only=True)
class Beam(Autoregressive):
    """The best results that a search of this width finds.

    Attributes:
        width: hypotheses that go on side by side.
        length_penalty: the exponent of the penalty; 0 for none, greater for longer results.
        penalty: `power` or `gnmt`, see `penalty_of`. The length counts `eos` and not the prompt.
        results: how many of the best finished hypotheses to return, at most `width`. Where there are not so many, the
            last have no tokens and a score of `-inf`.
        stop: `exact` ends a row's search where no live hypothesis could come to a better score than the results that
            it has, at any length it may still get; so nothing is lost to searching on to the limit. With a length
            penalty above 0 and a far limit that is late. `full` ends it as soon as `width` hypotheses are finished,
            as fairseq does and `early_stopping=True` elsewhere, and may miss better ones.

    Further attributes are those of `Autoregressive`. A near-tie is one between the last that is taken and the first
    that is not, in any step or among the results.

    Raises:
        ValueError: a number out of its range, or an unknown option.
    """

    name: ClassVar[str] = "beam"
    width: int = 5
    length_penalty: float = 1.0
    penalty: Penalty = "power"
    results: int = 1
    stop: Literal["exact", "full"] = "exact"

    def __post_init__(self) -> None:
        Autoregressive.__post_init__(self)
        whole_number("width", self.width)
        whole_number("results", self.results)
        if self.results > self.width:
            raise ValueError(must_be("results", f"at most the width, {self.width}", self.results))
        if not -float("inf") < self.length_penalty < float("inf"):
            raise ValueError(must_be("length_penalty", "finite", self.length_penalty))
        for name, options in (("penalty", PENALTIES), ("stop", STOPS)):
            if getattr(self, name) not in options:
                raise ValueError(unknown(name, getattr(self, name), options))

    def start(self, model: Stream, request: Request) -> Searched:
        """The state behind the prompts: one live hypothesis each, of no tokens."""
        plan, rows, logits, stream, position = self.open(model, request)
        places = torch.arange(len(rows), device=rows.device).repeat_interleave(self.width)
        stream = model.reorder(stream, places) if len(rows) else None
        live = none_but_the_prompt(rows, self.width, logits)
        done = plan.limits == 0
        pool = none_yet(self.width, done, live.log_probs)
        passes = torch.full_like(plan.limits, len(rows) > 0)
        ties = torch.zeros_like(passes)
        return Searched(pool, done, ties, passes, plan, request.special, rows, live, logits[places], stream, position)

    def advance(self, model: Stream, state: Searched) -> Searched:
        """One more token of every live hypothesis."""
        plan, pool = state.plan.of(state.rows), state.pool.of(state.rows)
        children = extend(state.live, self._log_probs(state), state.special.eos)
        kept = going_on(children)
        near = near_border(children.log_probs, self.width) | near_border(kept.log_probs, self.width)
        in_prompt = plan.forced(state.position)[0]
        unanswered = ~in_prompt & (pool.scores[:, 0] == -torch.inf)
        refuse_impossible(children.log_probs[unanswered, 0], state.rows[unanswered])
        pool = pool.best_with(self._ending(state.live, children.first(self.width), ~in_prompt))
        kept = prompted(kept.first(self.width), state.live, plan, state.position)
        live = Live(append(state.live, kept), state.live.lengths + ~in_prompt, kept.log_probs)
        pool = pool.best_with(self._cut(live, live.lengths >= plan.limits))
        state = state._replace(
            pool=state.pool.with_those_of(state.rows, pool),
            done=state.done.index_copy(0, state.rows, self._over(pool, live, plan.limits)),
            near_ties=state.near_ties.index_add(0, state.rows, (near & ~in_prompt).long()),
        )
        return self._read(model, state, live, kept)

    def finish(self, state: Searched) -> Generated:
        """The best of what is finished."""
        count = self.results
        ties = state.near_ties + (state.pool.scores.diff(dim=1).neg()[:, :count] < NEAR).any(1)
        tokens, lengths, ended, log_probs, scores = (part[:, :count].flatten(0, 1) for part in state.pool)
        tokens = trimmed(tokens, lengths, state.special.pad)
        ties, passes = (part.repeat_interleave(count) for part in (ties, state.passes))
        return Generated(tokens, lengths, ended, log_probs, scores, ties, passes, results=count)

    def _log_probs(self, state: Searched) -> Float[Tensor, "a k v"]:
        """Of what may come next behind each live hypothesis."""
        special, vocabulary = state.special, state.logits.shape[1]
        too_short = (state.live.lengths < self.min_length).repeat_interleave(self.width)
        log_probs = log_probs_of(state.logits, special.forbidden(vocabulary), special.eos, too_short)
        return log_probs.unflatten(0, (-1, self.width))

    def _scores(self, log_probs: Float[Tensor, "a s"], lengths: Int[Tensor, " a"]) -> Float[Tensor, "a s"]:
        return log_probs.double() / penalty_of(lengths, self.penalty, self.length_penalty)[:, None]

    def _ending(self, live: Live, children: Children, counted: Bool[Tensor, " a"]) -> Hypotheses:
        """The children that have ended, of the prompts that count."""
        scores = self._scores(children.log_probs, live.lengths + 1)
        scores = scores.masked_fill(~(children.ended & counted[:, None]), -torch.inf)
        lengths = (live.lengths + 1)[:, None].expand_as(children.tokens)
        return Hypotheses(append(live, children), lengths, children.ended, children.log_probs, scores)

    def _cut(self, live: Live, at_limit: Bool[Tensor, " a"]) -> Hypotheses:
        """The live hypotheses of the prompts that are at their limit."""
        scores = self._scores(live.log_probs, live.lengths).masked_fill(~at_limit[:, None], -torch.inf)
        lengths = live.lengths[:, None].expand_as(scores)
        return Hypotheses(live.tokens, lengths, torch.zeros_like(lengths).bool(), live.log_probs, scores)

    def _over(self, pool: Hypotheses, live: Live, limits: Int[Tensor, " a"]) -> Bool[Tensor, " a"]:
        """Whose search has nothing left to find, or need not find it."""
        over = live.lengths >= limits
        if self.stop == "full":
            return over | (pool.scores[:, -1] > -torch.inf)
        # Log-probabilities only fall. What they are divided by is kindest at the limit, or, if it falls, right now.
        kindest = limits if self.length_penalty >= 0 else live.lengths + 1
        return over | (pool.scores[:, self.results - 1] >= self._scores(live.log_probs[:, :1], kindest)[:, 0])

    def _read(self, model: Stream, state: Searched, live: Live, children: Children) -> Searched:
        """The state after the model has read the last token of each live hypothesis; the others are dropped."""
        waiting = (~state.done[state.rows]).nonzero()[:, 0]
        state = state._replace(rows=state.rows[waiting], live=live.of(waiting))
        if not len(waiting):
            return state
        places = (waiting[:, None] * self.width + children.parents[waiting]).flatten()
        as_it_is = torch.arange(len(state.logits), device=places.device)
        stream = state.stream if torch.equal(places, as_it_is) else model.reorder(state.stream, places)
        logits, stream = model.advance(children.tokens[waiting].flatten(), stream)
        passes = state.passes.index_add(0, state.rows, torch.ones_like(state.rows))
        return state._replace(logits=logits, stream=stream, position=state.position + 1, passes=passes)
