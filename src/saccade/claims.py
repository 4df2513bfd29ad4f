"""What a mechanism may claim, and the probes that anything may be checked with, each with its tolerance: one table.

A claim is a property of a spec *instance* (`big_bird` can be causal, its `Random` blocks then draw among
earlier ones). `saccade check` reads the probes; the contract tests also hold each mechanism to its other claims.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Claims:
    """What one mechanism instance promises. `False` means "not claimed", never "untested".

    Attributes:
        causal: with `causal=True`, no output depends on a later token or on the length.
        causal_only: there is no other form: `causal=False` is refused.
        cross: queries and keys may come from different sequences of different lengths, or queries in chunks, each
            placed by `q_start`. Otherwise they are one sequence, and `key_mask` speaks of both.
        any_length: every length from 1 works, with no divisibility rule.
        any_mask: `key_mask` may have holes and left padding, not only right padding.
        normalised: the weights of a query that sees anything are non-negative and sum to one.
        unordered: without causal, the order of keys never matters.
        exact: equals a dense softmax under a boolean mask. Its layer takes `bias=`, which is added to
            the scores.
        streaming: `step` one token at a time equals the causal whole; the layer has `initial_state`, `prefill`
            and `step`.
        shared_qk: queries are keys as well: the layer reads q and v, and takes anything for k.
        exportable: `torch.export` takes its module with a batch and a length that are not fixed, for inference, and
            what comes out gives the same. `docs/export.md` has an example.
        state_size: how the decoding state grows with the n tokens behind it; empty without `streaming`.
    """

    causal: bool = False
    causal_only: bool = False
    cross: bool = False
    any_length: bool = False
    any_mask: bool = False
    normalised: bool = False
    unordered: bool = False
    exact: bool = False
    streaming: bool = False
    shared_qk: bool = False
    exportable: bool = False
    state_size: Literal["", "O(1)", "O(window)", "O(n)"] = ""


@dataclass(frozen=True)
class Probe:
    """One check: its fixed name, what it shows, and how large a difference it forgives.

    Attributes:
        name: the name in the table and in `--json`.
        shows: one sentence for people, which `saccade check --list` prints.
        needs: what the target must promise for it to run: claims, or (`key_mask`, `q_start`) an argument it takes.
        tolerance: largest accepted difference relative to the output's own scale, in float64.
        tolerance_single: the same for a target that computes in float32.
    """

    name: str
    shows: str
    needs: tuple[str, ...]
    tolerance: float
    tolerance_single: float


PROBES: tuple[Probe, ...] = (
    Probe("prefix_causality", "no output depends on later tokens or on the length", ("causal",), 1e-9, 1e-4),
    Probe("padding", "what stands behind the key mask, and how much of it, never matters", ("key_mask",), 1e-9, 1e-4),
    Probe("batch", "an output depends on its example alone: no company, no call before", (), 1e-9, 1e-4),
    Probe("chunk", "queries in chunks, placed by q_start, get what the whole call gives", ("q_start",), 1e-9, 1e-4),
    Probe("permutation", "without causal, the order of keys never matters", ("unordered",), 1e-9, 1e-4),
    Probe("step", "one token at a time, from a state, equals the causal whole", ("streaming",), 1e-9, 1e-4),
    Probe("hidden_nan", "NaN and inf behind the key mask reach no output and no gradient", ("key_mask",), 1e-9, 1e-4),
    Probe("empty_rows", "a query that may see nothing gets zeros and zero gradient", ("key_mask",), 1e-9, 1e-4),
    Probe("lengths", "lengths 1, 2, 63, 250 and 1000 work, in any order", ("any_length",), 1e-9, 1e-4),
    Probe("gradients", "gradients equal finite differences, for every input", (), 1e-4, 1e-2),
    Probe("weights", "outputs are means of visible values: weights >= 0 that sum to one", ("normalised",), 1e-9, 1e-4),
    Probe("export", "what torch.export makes of it gives the same at any length", ("exportable",), 1e-9, 1e-4),
)
