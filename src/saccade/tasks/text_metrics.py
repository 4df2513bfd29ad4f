"""Scores of texts that a model wrote, against one or several references each.

| name | what it is | a library's |
|---|---|---|
| `bleu` | corpus BLEU (Papineni et al. 2002), from 0 to 100 | sacrebleu (Post 2018) |
| `sentence_bleu` | the mean of the BLEU of each text, as Botha et al. (2018) report for split sentences | sacrebleu |
| `chrf` | character n-grams, chrF2 (Popovic 2015), from 0 to 100 | sacrebleu |
| `ter` | edits with shifts a word of the references (Snover et al. 2006), from 0, times 100 | sacrebleu |
| `per` | phoneme error: a share of the phonemes of the nearest references, stress left out | rapidfuzz |
| `word_error` | the share of texts that equal none of their references, stress left out | |

Scores of sacrebleu come with its signature, which says all that they depend on: two scores with equal signatures may
be compared.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, cast

from rapidfuzz.distance import Levenshtein
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.metrics.base import Metric as LibraryMetric

References = Sequence[Sequence[str]]
"""The references of each text, one or more."""

Metric = Callable[[Sequence[str], References], dict[str, object]]
"""The scores of texts, by name; there is at least one text, and as many as there are lists of references."""

STRESS = re.compile(r"(?<=[A-Z])[0-2](?= |$)")
"""The mark behind a vowel of ARPAbet: 0, 1 or 2."""


def bleu(texts: Sequence[str], references: References) -> dict[str, object]:
    """Corpus BLEU, with its signature."""
    return _of_library("bleu", BLEU(), texts, references)


def chrf(texts: Sequence[str], references: References) -> dict[str, object]:
    """Corpus chrF2, with its signature."""
    return _of_library("chrf", CHRF(), texts, references)


def ter(texts: Sequence[str], references: References) -> dict[str, object]:
    """Corpus TER, with its signature; lower is better."""
    return _of_library("ter", TER(), texts, references)


def sentence_bleu(texts: Sequence[str], references: References) -> dict[str, object]:
    """The mean BLEU of a text, with its signature. N-grams longer than a text are not asked for."""
    metric = BLEU(effective_order=True)
    scores = [metric.sentence_score(text, list(some)).score for text, some in zip(texts, references, strict=True)]
    mean = sum(scores) / len(scores)
    return {"sentence_bleu": mean, "sentence_bleu_signature": metric.get_signature().format()}


def per(texts: Sequence[str], references: References) -> dict[str, object]:
    """Edits to the nearest reference over the phonemes of that reference, both summed over all texts.

    Nearest is what takes the fewest edits; of equally near ones, the first.
    """
    nearest = [_nearest(text, some) for text, some in zip(texts, references, strict=True)]
    return {"per": sum(edits for edits, _ in nearest) / sum(length for _, length in nearest)}


def word_error(texts: Sequence[str], references: References) -> dict[str, object]:
    """The share of texts that equal none of their references."""
    wrong = [phonemes(text) not in map(phonemes, some) for text, some in zip(texts, references, strict=True)]
    return {"word_error": sum(wrong) / len(wrong)}


METRICS: dict[str, Metric] = {
    "bleu": bleu,
    "sentence_bleu": sentence_bleu,
    "chrf": chrf,
    "ter": ter,
    "per": per,
    "word_error": word_error,
}
"""THE LIST of metrics, by name."""


def phonemes(text: str) -> list[str]:
    """The phonemes of a pronunciation such as `K AH0 Z`, without stress."""
    return STRESS.sub("", text).split()


def _nearest(text: str, references: Sequence[str]) -> tuple[int, int]:
    """How many edits the nearest reference is away, and its length."""
    written = phonemes(text)
    distances = [(Levenshtein.distance(written, phonemes(one)), len(phonemes(one))) for one in references]
    return min(distances, key=lambda found: found[0])


def _of_library(name: str, metric: LibraryMetric, texts: Sequence[str], references: References) -> dict[str, object]:
    """A score of sacrebleu, which takes the first references of all texts, then the second ones, None where none is."""
    most = max(map(len, references))
    streams = [[some[i] if i < len(some) else None for some in references] for i in range(most)]
    # The library says `str`, and in its guide that a reference may be missing.
    score = metric.corpus_score(texts, cast(Any, streams)).score
    return {name: score, f"{name}_signature": metric.get_signature().format()}
