"""How well tags are found: the share that is right and, where they are entities, which entities are whole.

Entities are compared by the library seqeval (Nakayama 2018) in its default mode, which counts as `conlleval`, the
script of the CoNLL shared tasks, does: an entity is right if its first word, its last word and its kind are, and an
`I-` that continues nothing begins one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from saccade.data.ragged import Ragged
from saccade.data.tokenizer import UNK
from saccade.shapes import Int, Tensor
from saccade.training import accuracy, half_width

MODE = "seqeval, default mode (as conlleval)"


@dataclass(frozen=True)
class Score:
    """How well a model tags some words.

    Attributes:
        accuracy: share of right tags.
        half_width: half of its 95 % confidence interval, words taken as independent.
        unknown_accuracy: the same of words without an id of their own, which are those never seen in training if
            `data.min_count` is 1; `None` where there is no such word.
        unknown_words: how many those are.
        majority_accuracy: that of guessing each word's commonest tag in training, and the commonest of all for
            a word that training has not.
        words: how many there were.
        sentences: how many there were.
    """

    accuracy: float
    half_width: float
    unknown_accuracy: float | None
    unknown_words: int
    majority_accuracy: float
    words: int
    sentences: int


@dataclass(frozen=True)
class EntityScore:
    """How well a model finds entities.

    Attributes:
        f1: the harmonic mean of precision and recall, which are micro averages over all entities.
        precision: the share of found entities that are right.
        recall: the share of entities that were found.
        entities: how many there were.
        entity_mode: how they are compared.
    """

    f1: float
    precision: float
    recall: float
    entities: int
    entity_mode: str = MODE


def score_words(predicted: Int[Tensor, " n"], words: Ragged, tags: Ragged, commonest: Int[Tensor, " v"]) -> Score:
    """How many words have the right tag.

    Args:
        predicted: a tag for each word, sentence after sentence.
        words: the ids of words of each sentence.
        tags: their right tags.
        commonest: each word's commonest tag in training.
    """
    right, ids = tags.values, words.values.long()
    unknown, share = ids == UNK, accuracy(predicted, right)
    return Score(
        share,
        half_width(share, len(right)),
        accuracy(predicted[unknown], right[unknown]) if unknown.any() else None,
        int(unknown.sum()),
        accuracy(commonest[ids], right),
        len(right),
        len(tags),
    )


def has_entities(tags: Sequence[str]) -> bool:
    """Whether tags are those of entities: `O`, `B-kind` and `I-kind`."""
    return any(tag[:2] == "B-" for tag in tags) and all(tag == "O" or tag[:2] in ("B-", "I-") for tag in tags)


def score_entities(predicted: list[list[str]], right: list[list[str]]) -> EntityScore:
    """How many entities are found whole.

    Args:
        predicted: a tag for each word of each sentence.
        right: the right ones.

    Raises:
        ModuleNotFoundError: `seqeval` is not installed.
    """
    try:
        from seqeval.metrics import f1_score, precision_score, recall_score
        from seqeval.metrics.sequence_labeling import get_entities
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "scores of entities need the library `seqeval`: pip install 'saccade[train]'"
        ) from error
    f1, precision, recall = (_share(measure, right, predicted) for measure in (f1_score, precision_score, recall_score))
    return EntityScore(f1, precision, recall, len(get_entities(right)))


def _share(measure: Callable[..., Any], right: list[list[str]], predicted: list[list[str]]) -> float:
    """One of seqeval's measures; 0 where it would be nothing out of nothing."""
    return float(measure(right, predicted, zero_division=0))
