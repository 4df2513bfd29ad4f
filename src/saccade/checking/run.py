"""`check`: give a target to every probe that its signature and claims call for."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from saccade.checking.calling import TargetFailure
from saccade.checking.compare import Finding
from saccade.checking.fit import DTYPES, fit, uses
from saccade.checking.modes import modes
from saccade.checking.probes import PROBES, Check
from saccade.checking.report import Report, Result
from saccade.checking.stream import cannot_stream
from saccade.checking.subject import Subject
from saccade.checking.target import read_target
from saccade.checking.terms import NotClaimed, read_terms
from saccade.claims import PROBES as TABLE
from saccade.claims import Claims, Probe
from saccade.errors import must_be, unknown

NOTHING = Finding(0.0, "")


def check(
    target: Callable[..., Any],
    *,
    on: str = "qkv",
    claims: Claims | None = None,
    causal: bool | None = None,
    width: int | None = None,
    dtype: torch.dtype | None = None,
    seed: int = 0,
    probes: Iterable[str] | None = None,
    skip: Iterable[str] = (),
) -> Report:
    """Look for leaks in any attention: of the future, of the padding, between examples, of NaN, of gradients.

    The target is only called, on copies of it and of its inputs. It may raise or return anything: then a probe
    fails and says so. Modules are checked in evaluation mode and, where that computes something else, in training
    mode with dropout switched off.

    Args:
        target: on `"qkv"`, a callable (or module) on `(q, k, v, key_mask=None, causal=False)` with q `[b h q d]`,
            k `[b g k d]`, v `[b g k e]`; on `"x"`, a module, a module class, a factory or a function on
            `(x, key_mask=None, causal=False)` with x `[b n c]`. `key_mask` is boolean `[b k]`, True = real token.
            A class or factory is called without arguments or with its width alone. If the target takes `q_start`,
            chunks of queries are checked (on `"x"` with the tokens so far as `context`); if it has `initial_state`
            and `step`, decoding is (`saccade.checking.stream` says how they are called).
        on: `"qkv"` or `"x"`.
        claims: what the target claims; what it does not claim is not checked. If not given, on `"qkv"`, the `claims` of
            the target or of its `spec`, as built mechanisms have them. Without claims, all is checked that the
            signature allows: no `key_mask` or no `causal` there means "not claimed", as does an order of keys
            that matters by design.
        causal: True for a target that is always causal, False for one whose causality is not to be checked.
        width: the model width (or, on `"qkv"`, the head dim); found by trial otherwise.
        dtype: `torch.float64` or `torch.float32`; otherwise float64 where the target takes it.
        seed: of the inputs, and of torch's global generator while a class or factory builds.
        probes: names of the probes to run; all by default.
        skip: names of probes to leave out, for what the target is not meant to keep (`"weights"`, if its outputs
            are no weighted means). Their status is "not claimed".

    Raises:
        ValueError: an unknown `on` or probe, another dtype or width, or a class or factory that cannot be built.
        TypeError: a target that cannot be called or copied.
    """
    if dtype not in (None, *DTYPES):
        raise ValueError(must_be("dtype", "torch.float64 or torch.float32", dtype))
    if width is not None and width < 1:
        raise ValueError(must_be("width", "at least 1", width))
    claims = _own_claims(target) if claims is None and on == "qkv" else claims
    chosen, left_out = list(PROBES if probes is None else probes), list(skip)
    for name in (*chosen, *left_out):
        if name not in PROBES:
            raise ValueError(unknown("probe", name, PROBES))
    read = read_target(target, on, width, seed)
    form = fit(read, width, dtype, claims is not None, seed)
    reason = cannot_stream(read.make(), form.shape.names)
    terms = read_terms(on, lambda option: uses(read, form, option, seed), reason, claims, causal)
    subjects = modes(read, form, terms, seed)
    skipped = {name: Result(name, "not claimed", None, "left out by skip") for name in left_out}
    rows = (row for row in TABLE if row.name in chosen)
    return Report(tuple(skipped.get(row.name) or _result(row, PROBES[row.name], subjects) for row in rows))


def _own_claims(target: object) -> Claims | None:
    """What the target says of itself."""
    found = getattr(target, "claims", None) or getattr(getattr(target, "spec", None), "claims", None)
    return found if isinstance(found, Claims) else None


def _result(row: Probe, probe: Check, subjects: Sequence[Subject]) -> Result:
    """Run one probe in every mode and keep its worst finding."""
    missing = subjects[0].terms.missing
    reasons = [missing[need] for need in row.needs if need in missing]
    if reasons:
        return Result(row.name, "not claimed", None, reasons[0])
    tolerance = row.tolerance_single if subjects[0].single else row.tolerance
    findings = []
    for subject in subjects:
        subject.restart()
        mode = " (in training mode)" if subject.training else ""
        try:
            found = max(probe(subject), key=lambda finding: finding.violation, default=NOTHING)
        except NotClaimed as reason:
            return Result(row.name, "not claimed", None, str(reason))
        except TargetFailure as failure:
            return Result(row.name, "failed", None, f"{failure}{mode}")
        findings.append(Finding(found.violation, f"{found.where}{mode}"))
    worst = max(findings, key=lambda finding: finding.violation)
    if worst.violation > tolerance:
        return Result(row.name, "failed", worst.violation, worst.where)
    return Result(row.name, "passed", worst.violation)
