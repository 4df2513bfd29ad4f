"""What a trained masked language model puts where lines say `<mask>`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from saccade import config
from saccade.data.ragged import Ragged
from saccade.data.tokenizer import MASK, PAD, SPECIALS, Tokenizer
from saccade.models import LanguageModel
from saccade.models.sizes import most_positions
from saccade.shapes import Int, Tensor
from saccade.tasks import run_folder
from saccade.tasks.answers import Answer, Line, refuse_longer
from saccade.tasks.masked_language_model import Recipe
from saccade.tasks.windowed_text import load
from saccade.training.process import process_state

BLANK_TO_FILL = SPECIALS[MASK]


@dataclass(frozen=True)
class Filling:
    """Answers lines with the most probable token, which is no special one, in place of each `<mask>`.

    All of them are filled at once, each as if the others stayed hidden.

    Attributes:
        model: in evaluation mode.
        tokenizer: what its tokens stand for.
        batch_size: lines that are read side by side.
    """

    model: LanguageModel
    tokenizer: Tokenizer
    batch_size: int

    def __call__(self, lines: Sequence[Line]) -> list[str]:
        """Each line, filled; a line without `<mask>` as it is.

        Raises:
            ValueError: a line is too long for the model.
        """
        answers = [line.text for line in lines]
        asked = [row for row, line in enumerate(lines) if BLANK_TO_FILL in line.text]
        texts = Ragged.of(self._tokens(lines[row].text) for row in asked)
        if (limit := most_positions(self.model.settings)) is not None:
            refuse_longer([lines[row] for row in asked], texts.lengths, limit)
        for rows in texts.lengths.argsort(stable=True).split(self.batch_size) if asked else ():
            for row, found in zip(rows.tolist(), self._found(texts, rows), strict=True):
                answers[asked[row]] = _between(lines[asked[row]].text.split(BLANK_TO_FILL), found)
        return answers

    def _tokens(self, text: str) -> list[int]:
        """The tokens of a text, with a mask between its pieces."""
        first, *rest = (self.tokenizer.encode(piece).tolist() for piece in text.split(BLANK_TO_FILL))
        return first + [token for piece in rest for token in (MASK, *piece)]

    def _found(self, texts: Ragged, rows: Int[Tensor, " b"]) -> list[list[str]]:
        """What belongs in the open places of each row."""
        tokens, real = texts.padded(rows, PAD)
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            words = self.model(tokens.to(device), real.to(device))[..., len(SPECIALS) :]
        best = len(SPECIALS) + words.argmax(-1).cpu()
        return [
            [self.tokenizer.decode(best[row, at]) for at in (tokens[row] == MASK).nonzero()] for row in range(len(rows))
        ]


def _between(pieces: Sequence[str], found: Sequence[str]) -> str:
    """The text of some pieces, with what was found between them."""
    return pieces[0] + "".join(word + piece for word, piece in zip(found, pieces[1:], strict=True))


def filling(folder: Path) -> Answer:
    """How the masked language model of a run fills lines.

    Raises:
        FileNotFoundError: the folder holds no run, or no trained model yet.
        ValueError: a file of it is damaged.
    """
    recipe = config.load(run_folder.recipe_path(folder), Recipe)
    model, tokenizer = load(folder)
    return Filling(model.to(process_state().device), tokenizer, recipe.training.batch_size)
