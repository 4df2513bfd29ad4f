"""Sampling: the next token is drawn from the model's distribution, made sharper or cut short.

Source: top-k from Fan et al. (2018), "Hierarchical Neural Story Generation"; top-p, the nucleus, from Holtzman et al.
(2020), "The Curious Case of Neural Text Degeneration". Temperature comes first, then top-k, then top-p over what that
has left, as in other libraries.
Cost: one pass of the model a token; choosing takes O(v) a row, with top-k O(v + k log k), with top-p alone O(v log v).

A draw is one uniform number in [0, 1), looked up in the cumulative distribution in the order of the tokens' rank or
id. It is a hash of the row's seed and the row's length: what a row draws depends on no other row, on no other draw,
and on no machine. It is not what `torch.multinomial` would draw from the same generator.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, final

import torch
from torch.nn.functional import pad

from saccade.attention.seeds import hashed
from saccade.errors import must_be, whole_number
from saccade.generation.autoregressive import Autoregressive
from saccade.generation.greedy import most_probable
from saccade.generation.method import NEAR, Generated, Request
from saccade.generation.ranking import best
from saccade.generation.rows import Choice, Rows, advance_rows, finish_rows, open_rows
from saccade.generation.stream import Stream
from saccade.shapes import Float, Int, Tensor


def candidates(
    log_probs: Float[Tensor, "m v"],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> tuple[Float[Tensor, "m s"], Int[Tensor, "m s"]]:
    """The tokens that may be drawn and the probability of each, in float64; the others of the row have 0.

    Args:
        log_probs: of every token, in any order; they need not sum to one.
        temperature: what they are divided by, above 0.
        top_k: only the k most probable, exactly so many: of equals, the lower ids.
        top_p: only the smallest set of most probable tokens whose sum is at least p: of equals, the lower ids.
    """
    # Less the greatest first: a temperature near 0 would take all of them to -inf.
    scaled = log_probs.double()
    scaled = (scaled - scaled.max(-1, keepdim=True).values) / temperature
    if top_k is None and top_p == 1:
        return scaled.softmax(-1), torch.arange(scaled.shape[1], device=scaled.device).expand_as(scaled)
    ranked, tokens = best(scaled, scaled.shape[1] if top_k is None else top_k)
    probabilities = ranked.softmax(-1)
    before = pad(probabilities.cumsum(-1)[:, :-1], (1, 0))
    kept = probabilities.masked_fill(before >= top_p, 0)
    return kept / kept.sum(-1, keepdim=True), tokens


def uniform(seeds: Int[Tensor, " m"], steps: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
    """A number in [0, 1) for each row: 53 bits of a hash of its seed and its step, in float64."""
    return (hashed(seeds, steps) >> 9).double() * 2.0**-53


def look_up(probabilities: Float[Tensor, "m s"], numbers: Float[Tensor, " m"]) -> tuple[Int[Tensor, " m"], Tensor]:
    """Whose share of [0, 1) each number falls into, and how far it is from the nearest end of that share."""
    cumulative = probabilities.cumsum(-1)
    total = cumulative[:, -1]
    # Sums round: the number must stay below the last of them, or it would fall to nobody.
    target = torch.minimum(numbers * total, total.nextafter(torch.zeros_like(total)))[:, None]
    place = torch.searchsorted(cumulative, target, right=True).clamp(max=cumulative.shape[1] - 1)
    above = cumulative.gather(1, place) - target
    below = probabilities.gather(1, place) - above
    return place[:, 0], torch.minimum(above, below)[:, 0]


@final
@dataclass(frozen=True, kw_only=True)
class Sampling(Autoregressive):
    """Draw the next token, each time.

    Attributes:
        temperature: below 1 the probable becomes more so, above 1 less; 0 is greedy decoding.
        top_k: draw from the k most probable tokens only; from all with `None`.
        top_p: draw from the smallest set of most probable tokens that has this share of the whole.
        results: rows drawn for each prompt.

    Further attributes are those of `Autoregressive`. A choice counts as a near-tie where its number falls within
    1e-4 of another token's share.

    Raises:
        ValueError: a number out of its range.
    """

    name: ClassVar[str] = "sampling"
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    results: int = 1

    def __post_init__(self) -> None:
        Autoregressive.__post_init__(self)
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(must_be("temperature", "at least 0 and finite", self.temperature))
        if self.top_k is not None:
            whole_number("top_k", self.top_k)
        if not 0 < self.top_p <= 1:
            raise ValueError(must_be("top_p", "above 0 and at most 1", self.top_p))
        whole_number("results", self.results)

    def start(self, model: Stream, request: Request) -> Rows:
        """The state behind the prompts, with a seed for each row: result `j` of a seed is the same of however many."""
        opening = self.open(model, request)
        if request.seeds is None and self.temperature > 0:
            opening = opening._replace(plan=opening.plan._replace(seeds=_drawn_seeds(request)))
        opening = opening.repeated(model, self.results)
        seeds = hashed(
            opening.plan.seeds, torch.arange(len(opening.plan.seeds), device=opening.rows.device) % self.results
        )
        opening = opening._replace(plan=opening.plan._replace(seeds=seeds))
        return open_rows(opening, request.special, self.min_length)

    def advance(self, model: Stream, state: Rows) -> Rows:
        """One more token of every row."""
        choose = most_probable if self.temperature == 0 else partial(self._draw, state.plan.seeds)
        return advance_rows(model, state, choose)

    def finish(self, state: Rows) -> Generated:
        """The rows; their scores are their log-probabilities."""
        return finish_rows(state, self.results)

    def _draw(
        self,
        seeds: Int[Tensor, " m"],
        log_probs: Float[Tensor, "a v"],
        rows: Int[Tensor, " a"],
        lengths: Int[Tensor, " a"],
    ) -> Choice:
        probabilities, tokens = candidates(log_probs, self.temperature, self.top_k, self.top_p)
        place, distance = look_up(probabilities, uniform(seeds[rows], lengths))
        return Choice(tokens.gather(1, place[:, None])[:, 0], distance < NEAR)


def _drawn_seeds(request: Request) -> Int[Tensor, " b"]:
    """A seed for each prompt, from the generator of the request or torch's global one."""
    device = "cpu" if request.generator is None else request.generator.device
    seeds = torch.randint(2**62, (len(request.prompts),), generator=request.generator, device=device)
    return seeds.to(request.prompts.device)
