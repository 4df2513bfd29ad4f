"""The modes a target is probed in: evaluation, and training where that computes something else."""

import torch

from saccade.checking.calling import Format, TargetFailure
from saccade.checking.draws import right_padding
from saccade.checking.subject import Subject
from saccade.checking.target import Target
from saccade.checking.terms import Terms

TRIAL_LENGTHS = (13, 250)


def modes(target: Target, form: Format, terms: Terms, seed: int) -> list[Subject]:
    """One subject a mode; a function has only one, and so has a module that is the same in both."""
    accepted: dict[int, bool] = {}
    evaluation = Subject(target, form, terms, False, seed, accepted)
    if not target.is_module:
        return [evaluation]
    training = Subject(target, form, terms, True, seed, accepted)
    return [evaluation] if _alike(evaluation, training) else [evaluation, training]


def _alike(one: Subject, other: Subject) -> bool:
    """Whether both give the same outputs and the same gradients, to the last bit."""
    try:
        for causal in one.terms.causal:
            for n in TRIAL_LENGTHS:
                inputs = one.draw(n)
                for mask in (None, right_padding(2, n)) if one.masked else (None,):
                    out = one(inputs, mask, causal)
                    if not _same(out, other(inputs, mask, causal)):
                        return False
                    pairs = zip(*(s.gradients(inputs, out, mask, causal) for s in (one, other)), strict=True)
                    if not all(_same(*pair) for pair in pairs):
                        return False
    except TargetFailure:
        return False
    return True


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.nan_to_num(0.0), other.nan_to_num(0.0))
