"""The list of probes: for each fixed name its function.

The order, what a target must promise for a probe to run, the sentence for people and the tolerances are in
`saccade.claims.PROBES`.
"""

from collections.abc import Callable, Iterator

from saccade.checking.compare import Finding
from saccade.checking.probes.batch import batch
from saccade.checking.probes.chunk import chunk
from saccade.checking.probes.empty_rows import empty_rows
from saccade.checking.probes.export import export
from saccade.checking.probes.gradients import gradients
from saccade.checking.probes.hidden_nan import hidden_nan
from saccade.checking.probes.lengths import lengths
from saccade.checking.probes.padding import padding
from saccade.checking.probes.permutation import permutation
from saccade.checking.probes.prefix_causality import prefix_causality
from saccade.checking.probes.step import step
from saccade.checking.probes.weights import weights
from saccade.checking.subject import Subject

Check = Callable[[Subject], Iterator[Finding]]

PROBES: dict[str, Check] = {
    "prefix_causality": prefix_causality,
    "padding": padding,
    "batch": batch,
    "chunk": chunk,
    "permutation": permutation,
    "step": step,
    "hidden_nan": hidden_nan,
    "empty_rows": empty_rows,
    "lengths": lengths,
    "gradients": gradients,
    "weights": weights,
    "export": export,
}
