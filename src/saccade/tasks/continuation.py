"""How a trained language model goes on from lines of text.

A line is read behind `<bos>`, as the beginning of a document is, and the answer is what comes after it, up to `<eos>`
or as many tokens as the method may write. The model decodes with states, in windows as long as those of its training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from saccade import config
from saccade.data.ragged import Ragged
from saccade.data.tokenizer import BLANK, BOS, EOS, MASK, PAD, UNK, Tokenizer
from saccade.errors import must_be
from saccade.generation import Method, SpecialTokens, Windowed, generate
from saccade.models import LanguageModel
from saccade.shapes import Int, Tensor
from saccade.tasks import run_folder
from saccade.tasks.answers import Answer, GenerateOptions, Line, refuse_ratio, seeds_of, to_method
from saccade.tasks.language_model import Recipe
from saccade.tasks.windowed_text import load
from saccade.training.process import process_state

SPECIAL = SpecialTokens(pad=PAD, eos=EOS, never=(BOS, UNK, MASK, BLANK))


@dataclass(frozen=True)
class Continuation:
    """Answers lines with what may come after them.

    Attributes:
        model: in evaluation mode.
        tokenizer: what its tokens stand for.
        method: how to decode; one result a line.
        seed: of what is drawn.
        window: the most tokens that are read at once.
        batch_size: lines that are decoded side by side.
    """

    model: LanguageModel
    tokenizer: Tokenizer
    method: Method
    seed: int
    window: int
    batch_size: int

    def __call__(self, lines: Sequence[Line]) -> list[str]:
        """What comes after each line."""
        prompts = self.tokenizer.encode_all(line.text for line in lines)
        prompts = prompts.framed(torch.full((len(lines), 1), BOS), torch.empty(len(lines), 0, dtype=torch.long))
        model = Windowed(self.model, self.window)
        prompts = _remembered(prompts, model)
        seeds, answers = seeds_of(lines, self.seed), [""] * len(lines)
        for rows in prompts.lengths.argsort(stable=True).split(self.batch_size):
            for row, answer in zip(rows.tolist(), self._answer(model, prompts, rows, seeds[rows]), strict=True):
                answers[row] = answer
        return answers

    def _answer(self, model: Windowed, prompts: Ragged, rows: Int[Tensor, " b"], seeds: Int[Tensor, " b"]) -> list[str]:
        device = next(self.model.parameters()).device
        tokens, mask = (part.to(device) for part in prompts.padded(rows, PAD))
        found = generate(model, self.method, tokens, SPECIAL, prompt_lengths=mask.sum(1), seeds=seeds)
        ends = (found.lengths - found.ended.long()).tolist()
        return [self.tokenizer.decode(row[:end]) for row, end in zip(found.tokens.cpu(), ends, strict=True)]


def _remembered(prompts: Ragged, model: Windowed) -> Ragged:
    """What is still in the window where an answer begins: one long prompt shall not hold up the others."""
    lengths = prompts.lengths
    forgotten = torch.tensor([model.forgotten(length) for length in lengths.tolist()], dtype=torch.long)
    place = torch.arange(len(prompts.values)) - (prompts.ends - lengths).repeat_interleave(lengths)
    return Ragged(prompts.values[place >= forgotten.repeat_interleave(lengths)], (lengths - forgotten).cumsum(0))


def continuation(folder: Path, options: GenerateOptions) -> Answer:
    """How the model of a run goes on from lines.

    Raises:
        FileNotFoundError: the folder holds no run, or no trained model yet.
        ValueError: a damaged file, an unknown method, several results for a line, or a side, which there is none of.
    """
    if options.to is not None:
        raise ValueError(must_be("to", "left out for a language model, which goes on in the text it reads", options.to))
    recipe = config.load(run_folder.recipe_path(folder), Recipe)
    method = to_method(options.method or recipe.method)
    refuse_ratio(method)
    model, tokenizer = load(folder)
    model.to(process_state().device)
    window = max(2, recipe.windows.length)
    return Continuation(model, tokenizer, method, options.seed, window, recipe.training.batch_size)
