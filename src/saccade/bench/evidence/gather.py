"""What the attention weights of a trained model say about the choice of a cheaper attention.

Three questions, each with a file of its own: where do the heads look (`mean_weights`), how much of that would each
pattern keep (`kept_weight`), and are the weights low rank (`spectra`)? The weights are those of any mechanism, recorded
while the model reads examples one at a time, so that there is no padding among them. Extra tokens of the model are cut
off: what is asked is where the tokens of the sequence look among themselves.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from saccade.attention import Mechanism
from saccade.attention.patterns import Pattern
from saccade.attention.record import Record
from saccade.bench.evidence.candidates import candidates
from saccade.bench.evidence.kept_weight import Kept, KeptWeight
from saccade.bench.evidence.mean_weights import MeanWeights
from saccade.bench.evidence.spectra import Spectra
from saccade.bench.show import LONGEST
from saccade.errors import must_be
from saccade.nn import Encoder
from saccade.shapes import Float, Int, Tensor
from saccade.tasks import TASKS, recipe_of
from saccade.training.process import process_state

EXAMPLES, LENGTH = 16, 1024
MOST_PAIRS = 0.5
"""Patterns of the list that visit more of the pairs save too little to be shown. Those asked for by name are shown."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What was found in the weights of a model.

    Attributes:
        lengths: tokens of each example.
        means: the mean weights.
        kept: what patterns would keep, most first.
        spectra: the singular values.
    """

    lengths: tuple[int, ...]
    means: MeanWeights
    kept: list[Kept]
    spectra: Spectra


@dataclass(frozen=True, eq=False)
class RunEvidence(Evidence):
    """What was found in the weights of a run's model.

    Attributes:
        run: the folder.
        split: where the examples are from.
        mechanisms: what the model attends with, one a layer.
        extra_tokens: how many global tokens stand in front of the sequence, besides what is seen here.
    """

    run: Path
    split: str
    mechanisms: tuple[Mechanism, ...]
    extra_tokens: int = 0

    @property
    def visited(self) -> float:
        """The share of pairs of the sequence that the model visits; all, where its mechanism never forms a pair."""
        n = max(self.lengths)
        pairs = [spec.cost(n, n, heads=1, head_dim=1).pairs or n * n for spec in self.mechanisms]
        return sum(pairs) / (len(pairs) * n * n)


def look_into(
    run: Path,
    mechanisms: Sequence[str | Mechanism | Pattern] = (),
    *,
    split: str = "test",
    examples: int = EXAMPLES,
    length: int = LENGTH,
    on_example: Callable[[int], object] = lambda done: None,
) -> RunEvidence:
    """Read examples with the model of a run, and see what its weights say.

    Args:
        run: the folder of a run that is finished.
        mechanisms: patterns to weigh instead of those of the list.
        split: `train`, `validation` or `test`.
        examples: how many to read, taken evenly from the split.
        length: tokens at which longer examples are cut.
        on_example: is told how many examples are done, after each.

    Raises:
        FileNotFoundError: the folder holds no run, or no trained model yet.
        ValueError: an unknown split or mechanism, no examples, or a length that is too small or too large.
    """
    if examples < 1:
        raise ValueError(must_be("examples", "at least 1", examples))
    if not 1 <= length <= LONGEST:
        raise ValueError(must_be("length", f"from 1 to {LONGEST:,}", length))
    specs = candidates(mechanisms)
    task = recipe_of(run).task
    if (load := TASKS[task].load) is None:
        raise ValueError(must_be("run", "one of the task classification", f"{run}, of {task}"))
    model, data = load(run, split)
    model.to(process_state().device)
    sequences = [each[:length] for each in evenly(data.sequences, examples)]
    found = weigh(record_weights(model, sequences), specs, [len(each) for each in sequences], on_example)
    kept = [each for each in found.kept if mechanisms or each.pairs <= MOST_PAIRS]
    encoders = [module for module in model.modules() if isinstance(module, Encoder)]
    own = tuple(spec for encoder in encoders for spec in encoder.mechanisms)
    extra = max(encoder.extra_tokens for encoder in encoders)
    return RunEvidence(found.lengths, found.means, kept, found.spectra, run, split, own, extra)


def evenly(sequences: Sequence[Tensor], count: int) -> list[Tensor]:
    """At most `count` of the sequences, from everywhere among them, as neighbours may be alike."""
    count = min(count, len(sequences))
    return [sequences[i * len(sequences) // count] for i in range(count)]


def record_weights(model: nn.Module, sequences: Iterable[Int[Tensor, " _"]]) -> Iterator[Float[Tensor, "layers h _ _"]]:
    """The weights with which a model reads each sequence, on the CPU, without those of tokens put in front of it.

    Args:
        model: it takes tokens `[1 n]` and `record=`.
        sequences: token ids.
    """
    device = next(model.parameters()).device
    for sequence in sequences:
        n = len(sequence)
        record = Record("weights")
        with torch.inference_mode():
            model(sequence[None].long().to(device), record=record)
            yield torch.stack([weights[0, :, -n:, -n:].float().cpu() for weights in record["weights"]])


def weigh(
    weights: Iterable[Float[Tensor, "layers h _ _"]],
    mechanisms: Sequence[Mechanism],
    lengths: Sequence[int],
    on_example: Callable[[int], object] = lambda done: None,
) -> Evidence:
    """What weights say, whatever model they are from.

    Args:
        weights: of each example, by layer and head; all its tokens are real.
        mechanisms: patterns to weigh, of `candidates`.
        lengths: tokens of each example.
        on_example: is told how many examples are done, after each.
    """
    means, kept, spectra = MeanWeights(max(lengths)), KeptWeight(mechanisms), Spectra()
    for done, example in enumerate(weights, 1):
        for part in (means, kept, spectra):
            part.add(example)
        on_example(done)
    return Evidence(tuple(lengths), means, kept.results, spectra)
