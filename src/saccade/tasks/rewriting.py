"""What a trained model from sequence to sequence makes of lines of text: a translation, or how a word is spoken.

Lines of a chunk are read in batches of like length. A line without text gets none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from saccade import config
from saccade.data.pair_encoding import ParallelVocabulary
from saccade.errors import must_be, unknown
from saccade.generation import Method
from saccade.generation.autoregressive import Autoregressive
from saccade.models import Seq2Seq
from saccade.models.sizes import most_positions
from saccade.tasks import run_folder
from saccade.tasks.answers import Answer, GenerateOptions, Line, refuse_longer, seeds_of, to_method
from saccade.tasks.pair_decoding import decode
from saccade.tasks.seq2seq import Recipe, load


@dataclass(frozen=True)
class Rewriting:
    """Answers lines with what the model makes of them.

    Attributes:
        model: in evaluation mode.
        vocabulary: what its tokens stand for.
        side: the language or column that is written, an index into the vocabulary's `write`.
        method: how to decode; one result a line.
        seed: of what is drawn.
        batch_tokens: tokens that are read at once, padding counted.
    """

    model: Seq2Seq
    vocabulary: ParallelVocabulary
    side: int
    method: Method
    seed: int
    batch_tokens: int

    def __call__(self, lines: Sequence[Line]) -> list[str]:
        """What each line becomes.

        Raises:
            ValueError: a line is too long for the model.
        """
        asked = [line for line in lines if line.text.strip()]
        sides = torch.full((len(asked),), self.side)
        sources = self.vocabulary.encode_sources((line.text for line in asked), sides)
        if (limit := most_positions(self.model.settings)) is not None:
            refuse_longer(asked, sources.lengths, longest_source(limit, self.method))
        seeds = seeds_of(asked, self.seed)
        found = decode(self.model, self.vocabulary, sources, self.method, self.batch_tokens, seeds)
        answers = dict(zip((line.number for line in asked), found.texts, strict=True))
        return [answers.get(line.number, "") for line in lines]


def longest_source(positions: int, method: Method) -> int:
    """The most tokens that a source may have, so that it and what is written to it have a position for each token."""
    if not isinstance(method, Autoregressive):
        return positions
    left = positions - method.max_length
    return min(positions, math.floor(left / method.max_ratio)) if method.max_ratio else positions * (left >= 0)


def rewriting(folder: Path, options: GenerateOptions) -> Answer:
    """What the model of a run makes of lines.

    Raises:
        FileNotFoundError: the folder holds no run, or no trained model yet.
        ValueError: a damaged file, an unknown method, several results for a line, or a language that the model does
            not write.
    """
    recipe = config.load(run_folder.recipe_path(folder), Recipe)
    method, side = to_method(options.method or recipe.method), _side(recipe.data.write, options.to)
    model, vocabulary = load(folder)
    return Rewriting(model, vocabulary, side, method, options.seed, recipe.batch_tokens)


def _side(write: tuple[str, ...], to: str | None) -> int:
    """Which side is to be written."""
    if to is None and len(write) > 1:
        raise ValueError(must_be("to", f"one of {', '.join(write)}: the model writes several", to))
    if to is not None and to not in write:
        raise ValueError(unknown("to", to, write))
    return 0 if to is None else write.index(to)
