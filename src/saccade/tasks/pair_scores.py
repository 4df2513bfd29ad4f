"""How well a model from sequence to sequence does: what it thinks of the right targets, and what it writes itself."""

import math
import time
from dataclasses import dataclass

import torch
from torch import nn

from saccade.attention.seeds import hashed
from saccade.data.batch_plans import by_tokens
from saccade.data.pair_encoding import ParallelVocabulary
from saccade.data.pair_examples import PairSplit
from saccade.models import Seq2Seq
from saccade.nn import cross_entropy
from saccade.shapes import Int, Tensor
from saccade.tasks.answers import to_method
from saccade.tasks.pair_decoding import decode
from saccade.tasks.text_metrics import METRICS
from saccade.training.evaluating import evaluating


@dataclass(frozen=True)
class Scoring:
    """How texts are written and scored.

    Attributes:
        method: how to decode, such as `beam(width=5)`.
        metrics: names in `METRICS`; of none, nothing is decoded.
        batch_tokens: tokens that are read at once, padding counted.
        seed: of what is drawn.
    """

    method: str
    metrics: tuple[str, ...]
    batch_tokens: int
    seed: int


@dataclass(frozen=True)
class Surprise:
    """What the right targets cost under a model, without label smoothing.

    Attributes:
        nats: of all tokens.
        tokens: how many there are, `<eos>` counted.
    """

    nats: float
    tokens: int

    @property
    def nats_per_token(self) -> float:
        """The mean cross-entropy."""
        return self.nats / self.tokens


def surprise(model: nn.Module, split: PairSplit, batch_tokens: int) -> Surprise:
    """How surprising the targets are, each token behind those before it. The model stays in the mode it was in."""
    total, count = 0.0, 0
    with evaluating(model) as device:
        for rows in by_tokens(split.lengths, max(batch_tokens, int(split.lengths.max())), shuffle=False):
            batch = split.batch(rows).to(device)
            logits = model(batch.source, batch.inputs, batch.source_mask, batch.target_mask)
            found = cross_entropy(logits.float(), batch.target, batch.target_mask)
            total, count = total + found.sum.item(), count + int(found.count)
    return Surprise(total, count)


def scores(model: Seq2Seq, vocabulary: ParallelVocabulary, split: PairSplit, scoring: Scoring) -> dict[str, object]:
    """All scores of a model.

    Where it writes several languages, each has its own, with the language behind their names, and what the targets
    cost is also said of all together.

    Args:
        model: the model.
        vocabulary: of the model.
        split: with its texts.
        scoring: how it is done.
    """
    seeds = hashed(scoring.seed, torch.arange(1, len(split) + 1))
    parts = [split.of_side(side) for side in range(len(vocabulary.write))]
    costs = [surprise(model, part, scoring.batch_tokens) for part in parts]
    found = [
        _costs(cost, part) | _written(model, vocabulary, part, scoring, seeds[split.sides == side])
        for side, (cost, part) in enumerate(zip(costs, parts, strict=True))
    ]
    if len(found) == 1:
        return found[0]
    together = Surprise(sum(each.nats for each in costs), sum(each.tokens for each in costs))
    named = zip(vocabulary.write, found, strict=True)
    return _costs(together, split) | {f"{name}_{write}": value for write, some in named for name, value in some.items()}


def _costs(found: Surprise, split: PairSplit) -> dict[str, object]:
    mean = found.nats_per_token
    perplexity = math.exp(min(mean, 700))
    return {"nats_per_token": mean, "perplexity": perplexity, "tokens": found.tokens, "examples": len(split)}


def _written(
    model: Seq2Seq,
    vocabulary: ParallelVocabulary,
    split: PairSplit,
    scoring: Scoring,
    seeds: Int[Tensor, " n"],
) -> dict[str, object]:
    """The scores of what the model writes, where there are any to take."""
    if not scoring.metrics:
        return {}
    started, method = time.perf_counter(), to_method(scoring.method)
    found = decode(model, vocabulary, split.sources, method, scoring.batch_tokens, seeds)
    seconds = time.perf_counter() - started
    measured = {
        key: value for each in scoring.metrics for key, value in METRICS[each](found.texts, split.references).items()
    }
    return measured | {"method": scoring.method, "near_ties": found.near_ties, "seconds": seconds}
