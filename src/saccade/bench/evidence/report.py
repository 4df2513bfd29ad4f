"""The evidence in words and numbers: what a reader may conclude, and one JSON object for machines."""

import shlex
from typing import Any

from saccade.bench.evidence.candidates import label
from saccade.bench.evidence.gather import RunEvidence
from saccade.bench.evidence.kept_weight import Kept
from saccade.bench.evidence.spectra import GRID, SHARES, Spectra
from saccade.shapes import Tensor
from saccade.tasks.run_folder import RECIPE

ENOUGH = 0.9
"""The share of the weight from which a pattern counts as keeping what the model looks at."""

GAIN = 0.1
"""A pattern that keeps no more than this beyond its share of the pairs has found nothing."""

LOW = 4
"""Heads count as low rank where n / 4 singular values hold 90 % of the sum: Linformer's figure 1 has 128 of 512."""

LOW_RANK = "linear"
"""The mechanism to try where weights are low rank: its own are, by design."""


def facts(evidence: RunEvidence) -> str:
    """Which model read what."""
    layers, heads = evidence.spectra.rank.shape
    short, long = min(evidence.lengths), max(evidence.lengths)
    tokens = f"{long:,}" if short == long else f"{short:,} to {long:,}"
    attends = ", ".join(dict.fromkeys(map(str, evidence.mechanisms)))
    model = f"{_count(layers, 'layer')} of {_count(heads, 'head')} of {attends}"
    extra = f"; {_count(evidence.extra_tokens, 'extra token')} left out" if evidence.extra_tokens else ""
    read = f"{_count(len(evidence.lengths), 'example')} of the {evidence.split} split, {tokens} tokens each"
    return f"{evidence.run}: {model} ({percent(evidence.visited)} of the pairs{extra})\nread {read}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def conclusion(evidence: RunEvidence) -> str:
    """What the numbers say, in two sentences that claim no more than they do."""
    found = promising(evidence)
    on_patterns = "No pattern that was weighed visits fewer pairs than the model does."
    return f"{_on_pattern(found) if found else on_patterns} {_on_rank(evidence.spectra)}"


def advice(evidence: RunEvidence) -> str:
    """How to find out what the weights cannot tell: the comparison to run, with what the evidence speaks for."""
    found, heads = promising(evidence), evidence.spectra.rank.numel()
    chosen = [label(found.mechanism)] if found and found.mean - found.pairs > GAIN else []
    chosen += [LOW_RANK] if 2 * _low_rank_heads(evidence.spectra) > heads else []
    options = f" --mechanisms {shlex.quote(', '.join(chosen))}" if chosen else ""
    command = f"saccade compare --recipe {shlex.quote(str(evidence.run / RECIPE))}{options}"
    return f"Weight kept is not accuracy kept: a model trained with less looks elsewhere. To know:\n  {command}"


def promising(evidence: RunEvidence) -> Kept | None:
    """The cheapest pattern that keeps enough; else the one that keeps most beyond its share of the pairs.

    Only patterns that visit fewer pairs than the model itself are asked; `None` if there is none.
    """
    fewer = [each for each in evidence.kept if each.pairs < evidence.visited]
    enough = [each for each in fewer if each.mean >= ENOUGH and each.mean - each.pairs > GAIN]
    if enough:
        return min(enough, key=lambda each: each.pairs)
    return max(fewer, key=lambda each: each.mean - each.pairs, default=None)


def _on_pattern(kept: Kept) -> str:
    weakest, best = kept.kept.min().item(), kept.best.mean().item()
    sentence = (
        f"{label(kept.mechanism)} would keep {kept.mean:.0%} of the weight at {percent(kept.pairs)} of the pairs "
        f"({weakest:.0%} in its weakest head; as many of the heaviest keys: {best:.0%})."
    )
    if kept.mean - kept.pairs > GAIN:
        few = f"No pattern that was weighed keeps {ENOUGH:.0%} of the weight; the best for its pairs, "
        return sentence if kept.mean >= ENOUGH else few + sentence
    return f"The weight is spread out, and no pattern keeps much more than its share of the pairs: {sentence}"


def _on_rank(spectra: Spectra) -> str:
    needed, low = spectra.needed(ENOUGH), _low_rank_heads(spectra)
    rank, n = needed.mean().item(), spectra.length
    how = "low rank" if low == needed.numel() else "not low rank" if low == 0 else "low rank in part"
    return (
        f"The weights are {how}: {rank:.0f} of {n:.0f} singular values hold {ENOUGH:.0%} of their sum on average; "
        f"a quarter of them or fewer do in {low} of {needed.numel()} heads."
    )


def _low_rank_heads(spectra: Spectra) -> int:
    return int((spectra.needed(ENOUGH) <= spectra.length / LOW).sum())


def percent(share: float) -> str:
    """A share as a percentage, with a decimal where it is small."""
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def to_dict(evidence: RunEvidence) -> dict[str, Any]:
    """All but the mean weights themselves, which have n x n numbers a head; shares from 0 to 1, heads by layer."""
    spectra, means = evidence.spectra, evidence.means
    needed = {
        f"needed_for_{100 * share:.0f}_percent_of_{kind}": _numbers(spectra.needed(share, kind))
        for kind in ("sum", "squares")
        for share in SHARES
    }
    in_first_quarter = _numbers(spectra.curve[..., GRID // LOW])
    distances = list(range(1 - means.longest, means.longest))
    return {
        "run": str(evidence.run),
        "mechanisms": [str(each) for each in evidence.mechanisms],
        "extra_tokens": evidence.extra_tokens,
        "split": evidence.split,
        "lengths": list(evidence.lengths),
        "patterns": [_kept_dict(each) for each in evidence.kept],
        "singular_values": {
            "n": spectra.length,
            **needed,
            "numerical_rank": _numbers(spectra.rank),
            "sum_in_first_quarter": in_first_quarter,
        },
        "half_of_weight_within": _numbers(means.half_within),
        "by_distance": {"query_minus_key": distances, "mean_weight": _numbers(means.mean_by_distance)},
        "conclusion": conclusion(evidence),
    }


def _kept_dict(kept: Kept) -> dict[str, Any]:
    shares = {"pairs": kept.pairs, "kept": kept.mean, "heaviest": kept.best.mean().item()}
    by_layer = {"kept_by_layer": _numbers(kept.kept.mean(1))}
    by_head = {"kept_by_head": _numbers(kept.kept), "heaviest_by_head": _numbers(kept.best)}
    return {"pattern": label(kept.mechanism), **shares, **by_layer, **by_head}


def _numbers(values: Tensor) -> list[Any]:
    """Nested lists of six significant digits: more would be noise."""
    if values.ndim > 1:
        return [_numbers(each) for each in values]
    return [float(f"{value:.6g}") for value in values.tolist()]
