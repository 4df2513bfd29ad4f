"""Tags for lines of text: a line is words with spaces between, its answer as many tags."""

from collections.abc import Sequence
from pathlib import Path

import torch

from saccade import config
from saccade.data.tagged import encode_untagged
from saccade.tasks.answers import Answer, Line, refuse_longer
from saccade.tasks.run_folder import recipe_path
from saccade.tasks.tagging import Recipe, load, predict
from saccade.training.process import process_state


def answers(folder: Path) -> Answer:
    """How the model of a run tags lines; an empty line has an empty answer.

    Lines of like length go through the model together, in batches of as many words as in training.

    Raises:
        FileNotFoundError: the folder holds no run, or no trained model yet.
        ValueError: a file of it is damaged, or the vocabulary is that of another run. When called: a line is longer
            than the model can read.
    """
    recipe = config.load(recipe_path(folder), Recipe)
    model, record = load(folder)
    model.to(process_state().device)
    limit, tags = model.network.max_length, record.vocabulary.tags

    def answer(lines: Sequence[Line]) -> list[str]:
        sentences = [line.text.split() for line in lines]
        if limit is not None:
            refuse_longer(lines, torch.tensor(list(map(len, sentences))), limit)
        if not any(sentences):
            return [""] * len(lines)
        split = encode_untagged(filter(None, sentences), record.vocabulary)
        names = iter([tags[i] for i in predict(model, split, recipe.batch_tokens).tolist()])
        return [" ".join(next(names) for _ in words) for words in sentences]

    return answer
