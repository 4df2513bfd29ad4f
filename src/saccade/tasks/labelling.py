"""Labels for lines of text, from a trained classifier."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from saccade import config
from saccade.data import Split, SymbolVocabulary
from saccade.models.sizes import most_positions
from saccade.shapes import Int, Tensor
from saccade.tasks import classification, run_folder
from saccade.tasks.answers import Answer, Line, refuse_longer
from saccade.tasks.classification import Recipe
from saccade.tasks.labelled_record import LabelledRecord
from saccade.training.process import process_state


@dataclass(frozen=True)
class Labelling:
    """Answers each line with its most probable label and, behind a tab, how probable that is; none for an empty line.

    Attributes:
        model: gives logits over the classes.
        record: what tokens and classes stand for.
        length: the most bytes of a line that are read; with `None`, all of them.
        limit: the most tokens for which the model has positions; `None` where there is no such limit.
        batch_size: lines that are read side by side.
    """

    model: nn.Module
    record: LabelledRecord
    length: int | None
    limit: int | None
    batch_size: int

    def __call__(self, lines: Sequence[Line]) -> list[str]:
        """The label of each line.

        Raises:
            ValueError: a line holds what the model has no token for, or is too long for it.
        """
        answers = [""] * len(lines)
        full = [row for row, line in enumerate(lines) if line.text.strip()]
        if not full:
            return answers
        sequences = [self._tokens(lines[row]) for row in full]
        if self.limit is not None:
            lengths = torch.tensor([len(sequence) for sequence in sequences])
            refuse_longer([lines[row] for row in full], lengths, self.limit)
        order = sorted(range(len(full)), key=lambda place: len(sequences[place]))
        split = Split(tuple(sequences[place] for place in order), torch.zeros(len(full), dtype=torch.long))
        logits = classification.predict(self.model, split, self.record.vocabulary.pad_id, self.batch_size)
        best = logits.softmax(1).max(1)
        for place, share, label in zip(order, best.values.tolist(), best.indices.tolist(), strict=True):
            answers[full[place]] = f"{self.record.classes[label]}\t{share:.4f}"
        return answers

    def _tokens(self, line: Line) -> Int[Tensor, " n"]:
        try:
            return self.record.vocabulary.encode(line.text.encode()[: self.length])
        except ValueError as error:
            raise ValueError(f"{line.where}: {error}") from error


def labelling(folder: Path) -> Answer:
    """How the classifier of a run labels lines.

    Raises:
        FileNotFoundError: the folder holds no run, or no trained model yet.
        ValueError: a file of it is damaged.
    """
    recipe = config.load(run_folder.recipe_path(folder), Recipe)
    record = LabelledRecord.read(folder)
    model = classification.trained_model(folder, record).to(process_state().device)
    # As the data was read: texts are cut, expressions are not.
    length = None if isinstance(record.vocabulary, SymbolVocabulary) else recipe.data.length
    return Labelling(model, record, length, most_positions(recipe.model), recipe.training.batch_size)
