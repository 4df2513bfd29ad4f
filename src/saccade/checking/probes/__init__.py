"""The list of probes: for each fixed name its function, and the promises without which it is not run.

The order, the sentence for people and the tolerances are in `saccade.claims.PROBES`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from saccade.checking.compare import Finding
from saccade.checking.probes.batch import batch
from saccade.checking.probes.empty_rows import empty_rows
from saccade.checking.probes.gradients import gradients
from saccade.checking.probes.hidden_nan import hidden_nan
from saccade.checking.probes.lengths import lengths
from saccade.checking.probes.padding import padding
from saccade.checking.probes.prefix_causality import prefix_causality
from saccade.checking.subject import Subject


@dataclass(frozen=True)
class Entry:
    """One probe of the list.

    Attributes:
        probe: yields one finding a comparison.
        needs: of `"key_mask"`, `"causal"` and `"any_length"`, what the target must promise for it to run.
    """

    probe: Callable[[Subject], Iterator[Finding]]
    needs: tuple[str, ...] = ()


PROBES: dict[str, Entry] = {
    "prefix_causality": Entry(prefix_causality, needs=("causal",)),
    "padding": Entry(padding, needs=("key_mask",)),
    "batch": Entry(batch),
    "hidden_nan": Entry(hidden_nan, needs=("key_mask",)),
    "empty_rows": Entry(empty_rows, needs=("key_mask",)),
    "lengths": Entry(lengths, needs=("any_length",)),
    "gradients": Entry(gradients),
}
