"""From pairs of texts to ids: what begins and ends a sequence, which pairs are trained on, which texts are kept."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from saccade.data.pair_examples import PairSplit
from saccade.data.pairs import Pair
from saccade.data.ragged import Ragged
from saccade.data.tally import Tally
from saccade.data.tokenizer import EOS, Tokenizer
from saccade.errors import must_be, unknown
from saccade.shapes import Int, Tensor

AT_ONCE = 2000


@dataclass(frozen=True)
class ParallelVocabulary:
    """What the numbers mean; all that a run has to keep of its data.

    Attributes:
        source: the tokenizer of what is read.
        target: the tokenizer of what is written; the same object where there is one vocabulary.
        write: the languages or columns that are written. Where there are several, `source` has a tag for each.
    """

    source: Tokenizer
    target: Tokenizer
    write: tuple[str, ...]

    @property
    def shared(self) -> bool:
        """Whether both sides have one vocabulary, so that embeddings may be tied."""
        return self.source is self.target

    @property
    def tags(self) -> Int[Tensor, "sides p"]:
        """What stands before the source of each side: one tag, or nothing where there is one side."""
        names = tags_of(self.write)
        return torch.tensor([[self.source.tag(name)] for name in names]) if names else torch.zeros(1, 0).long()

    def encode_sources(self, texts: Iterable[str], sides: Int[Tensor, " n"]) -> Ragged:
        """Sources as a model reads them, with tag and `<eos>`; `sides` as in `PairSplit`."""
        return _closed(self.source.encode_all(texts), self.tags[sides])

    def encode_targets(self, texts: Iterable[str]) -> Ragged:
        """Targets as a model writes them, with `<eos>`."""
        found = self.target.encode_all(texts)
        return _closed(found, torch.zeros(len(found), 0).long())

    def save(self, folder: Path) -> None:
        """Write it into a folder, as `tokenizer.json` and, if targets have their own, `target_tokenizer.json`."""
        self.source.save(folder / "tokenizer.json")
        if not self.shared:
            self.target.save(folder / "target_tokenizer.json")

    @classmethod
    def read(cls, folder: Path, write: tuple[str, ...]) -> "ParallelVocabulary":
        """The vocabulary in a folder.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is no tokenizer's, or has no tags for what is to be written.
        """
        source = Tokenizer.read(folder / "tokenizer.json")
        own = folder / "target_tokenizer.json"
        found = cls(source, Tokenizer.read(own) if own.exists() else source, write)
        _ = found.tags
        return found


@dataclass(frozen=True)
class Limits:
    """Which pairs are trained on.

    Attributes:
        source: the most tokens of a source, with tag and `<eos>`.
        target: the most tokens of a target, with `<eos>`.
        fail: whether another pair is an error; else it is counted and left out.
    """

    source: int
    target: int
    fail: bool


def tags_of(write: tuple[str, ...]) -> tuple[str, ...]:
    """The tag for each side, where there is more than one."""
    return tuple(f"<2{side}>" for side in write) if len(write) > 1 else ()


def encode_training(pairs: Iterable[Pair], vocabulary: ParallelVocabulary, limits: Limits, tally: Tally) -> PairSplit:
    """The pairs that fit, as ids; texts are held a few at a time.

    Raises:
        ValueError: if one does not fit where that is refused, with its place.
    """
    left = iter(pairs)
    pieces = [_fitting(chunk, vocabulary, limits, tally) for chunk in iter(lambda: list(islice(left, AT_ONCE)), [])]
    sides = torch.cat([torch.zeros(0).long(), *(piece.sides for piece in pieces)])
    sources, targets = ([getattr(piece, side) for piece in pieces] for side in ("sources", "targets"))
    return PairSplit(Ragged.joined(sources), Ragged.joined(targets), sides)


def encode_pairs(pairs: Iterable[Pair], vocabulary: ParallelVocabulary, group: bool = False) -> PairSplit:
    """Pairs to evaluate, in their order, with their texts.

    Args:
        pairs: such as those of `read_pairs`.
        vocabulary: of the model.
        group: whether pairs of the same source (and side) are one example with several references.

    Raises:
        ValueError: if a side is empty or is none that the model writes, with the place.
    """
    examples: dict[tuple[object, ...], tuple[Pair, list[str]]] = {}
    for i, pair in enumerate(pairs):
        if empty := _empty(pair):
            raise ValueError(f"{pair.where}: {must_be(empty, 'a text that is not empty', '')}")
        key = (pair.source, pair.side) if group else (i,)
        examples.setdefault(key, (pair, []))[1].append(pair.target)
    chosen = [pair for pair, _ in examples.values()]
    sides = _sides(chosen, vocabulary)
    texts = tuple(pair.source for pair in chosen)
    targets = vocabulary.encode_targets(pair.target for pair in chosen)
    references = tuple(tuple(found) for _, found in examples.values())
    return PairSplit(vocabulary.encode_sources(texts, sides), targets, sides, texts, references)


def _fitting(chunk: list[Pair], vocabulary: ParallelVocabulary, limits: Limits, tally: Tally) -> PairSplit:
    """Those pairs of a chunk that have both sides and are not too long."""
    pairs = list(_not_empty(chunk, limits, tally))
    sides = _sides(pairs, vocabulary)
    sources = vocabulary.encode_sources((pair.source for pair in pairs), sides)
    targets = vocabulary.encode_targets(pair.target for pair in pairs)
    fits = torch.ones(len(pairs), dtype=torch.bool)
    for name, side, most in (("source", sources, limits.source), ("target", targets, limits.target)):
        for i in (fits & (side.lengths > most)).nonzero().flatten().tolist():
            if limits.fail:
                got = must_be(name, f"at most max_{name} = {most} tokens", int(side.lengths[i]))
                raise ValueError(f"{pairs[i].where}: {got}")
            tally.note(f"train: {name}s over max_{name} = {most} tokens, skipped", pairs[i].where)
        fits &= side.lengths <= most
    return PairSplit(sources.kept(fits), targets.kept(fits), sides[fits])


def _not_empty(pairs: Iterable[Pair], limits: Limits, tally: Tally) -> Iterator[Pair]:
    for pair in pairs:
        if not (empty := _empty(pair)):
            yield pair
        elif limits.fail:
            raise ValueError(f"{pair.where}: {must_be(empty, 'a text that is not empty', '')}")
        else:
            tally.note(f"train: empty {empty}s, skipped", pair.where)


def _empty(pair: Pair) -> str:
    """Which side has nothing in it; none is the empty text."""
    return "source" if not pair.source.strip() else "" if pair.target.strip() else "target"


def _sides(pairs: list[Pair], vocabulary: ParallelVocabulary) -> Int[Tensor, " n"]:
    for pair in pairs:
        if pair.side not in vocabulary.write:
            raise ValueError(f"{pair.where}: {unknown('write', pair.side, vocabulary.write)}")
    return torch.tensor([vocabulary.write.index(pair.side) for pair in pairs], dtype=torch.int64)


def _closed(rows: Ragged, first: Int[Tensor, "rows p"]) -> Ragged:
    """The rows with what begins each, and `<eos>` behind."""
    return rows.framed(first, torch.full((len(rows), 1), EOS))
