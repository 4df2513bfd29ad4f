"""What a model from sequence to sequence writes to some sources, in batches of like length, the order kept."""

from dataclasses import dataclass

import torch

from saccade.attention import to_mechanism
from saccade.data.batch_plans import by_tokens
from saccade.data.pair_encoding import ParallelVocabulary
from saccade.data.ragged import Ragged
from saccade.data.tokenizer import BLANK, BOS, EOS, MASK, PAD, UNK
from saccade.generation import Generated, Method, Recomputed, SpecialTokens, generate
from saccade.models import Seq2Seq, Source
from saccade.shapes import Int, Tensor
from saccade.training.evaluating import evaluating


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        texts: one for each source, in order.
        near_ties: sources for which some choice was so near that it might have been another in another batch, at fp32.
    """

    texts: tuple[str, ...]
    near_ties: int


def decode(
    model: Seq2Seq,
    vocabulary: ParallelVocabulary,
    sources: Ragged,
    method: Method,
    batch_tokens: int,
    seeds: Int[Tensor, " n"],
) -> Written:
    """The text that the model writes to each source. The model stays in the mode it was in.

    Args:
        model: the model.
        vocabulary: of the model.
        sources: token ids with tag and `<eos>`.
        method: how to decode, with one result.
        batch_tokens: tokens of the sources that are read at once, padding counted; a longer source comes alone.
        seeds: one for each source, for a method that draws.

    Raises:
        ValueError: a text longer than the model's table of positions.
    """
    texts, near_ties = [""] * len(sources), 0
    if not len(sources):
        return Written((), 0)
    with evaluating(model):
        for rows in by_tokens(sources.lengths, max(batch_tokens, int(sources.lengths.max())), shuffle=False):
            found = _generate(model, vocabulary, sources, rows, method, seeds)
            near_ties += int((found.near_ties > 0).sum())
            for row, tokens, length in zip(rows.tolist(), found.tokens.cpu(), found.lengths.tolist(), strict=True):
                texts[row] = vocabulary.target.decode(tokens[:length])
    return Written(tuple(texts), near_ties)


def special_tokens(vocabulary: ParallelVocabulary) -> SpecialTokens:
    """The ids that mean something: tags of targets are never written, where they are in the vocabulary at all."""
    tags = vocabulary.tags.flatten().tolist() if vocabulary.shared else []
    return SpecialTokens(PAD, EOS, never=(BOS, UNK, MASK, BLANK, *tags))


def stream_of(model: Seq2Seq) -> Seq2Seq | Recomputed:
    """The model as it is decoded: with states, where its decoder has them; else all is read again for each token."""
    if all(to_mechanism(each).claims.streaming for each in _mechanisms(model)):
        return model
    return Recomputed(lambda tokens, source, mask: model(source, tokens, mask))


def _mechanisms(model: Seq2Seq) -> tuple[str, ...]:
    chosen = model.settings.decoder_mechanism
    return (chosen,) if isinstance(chosen, str) else chosen


def _generate(
    model: Seq2Seq,
    vocabulary: ParallelVocabulary,
    sources: Ragged,
    rows: Int[Tensor, " b"],
    method: Method,
    seeds: Int[Tensor, " n"],
) -> Generated:
    device = model.embedding.weight.device
    tokens, mask = (part.to(device) for part in sources.padded(rows, PAD))
    return generate(
        stream_of(model),
        method,
        torch.full((len(rows), 1), BOS, device=device),
        special_tokens(vocabulary),
        source=Source(tokens, mask),
        source_lengths=mask.sum(1),
        seeds=seeds[rows],
    )
