"""Pairs of texts as ids, and batches of them: what an encoder reads and a decoder writes."""

from dataclasses import dataclass

import torch

from saccade.data.ragged import Ragged
from saccade.data.tokenizer import BOS, PAD
from saccade.errors import must_be
from saccade.shapes import Bool, Int, Tensor


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Pairs side by side, padded on the right.

    Attributes:
        source: the tag of its target where there are several, the text, `<eos>`; int64.
        source_mask: True at a real token.
        target: the text and `<eos>`; int64.
        target_mask: True at a real token.
        rows: which examples of the split these are.
    """

    source: Int[Tensor, "b n"]
    source_mask: Bool[Tensor, "b n"]
    target: Int[Tensor, "b t"]
    target_mask: Bool[Tensor, "b t"]
    rows: Int[Tensor, " b"]

    def __len__(self) -> int:
        return len(self.source)

    @property
    def inputs(self) -> Int[Tensor, "b t"]:
        """What a decoder reads to write `target` one token after the other: `<bos>` and all but the last."""
        begin = torch.full_like(self.target[:, :1], BOS)
        return torch.cat([begin, self.target[:, :-1]], dim=1).masked_fill(~self.target_mask, PAD)

    def to(self, device: torch.device | str) -> "PairBatch":
        """The same batch on another device."""
        return PairBatch(*(each.to(device) for each in vars(self).values()))


@dataclass(frozen=True, eq=False)
class PairSplit:
    """Pairs of different lengths, not padded.

    Attributes:
        sources: the ids of each source, with tag and `<eos>`.
        targets: the ids of each target, with `<eos>`; of several references, the first.
        sides: the language or column of each target, an index into the settings' `write`.
        texts: the sources as they were read; empty where they were not kept (in training).
        references: the targets as they were read, one or more for each source; empty likewise.

    Raises:
        ValueError: if there are not as many of one as of the other.
    """

    sources: Ragged
    targets: Ragged
    sides: Int[Tensor, " n"]
    texts: tuple[str, ...] = ()
    references: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        """Refuse sides without each other."""
        if not len(self.sources) == len(self.targets) == len(self.sides):
            raise ValueError(must_be("targets", f"{len(self.sources)}, one a source", len(self.targets)))

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def lengths(self) -> Int[Tensor, " n"]:
        """The longer side of each pair, for `batch_plans`."""
        return torch.maximum(self.sources.lengths, self.targets.lengths)

    def of_side(self, side: int) -> "PairSplit":
        """The pairs of one language or column, in their order."""
        kept = self.sides == side
        rows = kept.nonzero().flatten().tolist()
        texts, references = (tuple(part[i] for i in rows) if part else () for part in (self.texts, self.references))
        return PairSplit(self.sources.kept(kept), self.targets.kept(kept), self.sides[kept], texts, references)

    def batch(self, rows: Int[Tensor, " b"]) -> PairBatch:
        """Some pairs as a batch."""
        return PairBatch(*self.sources.padded(rows, PAD), *self.targets.padded(rows, PAD), rows)
