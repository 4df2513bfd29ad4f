"""A target may raise, return anything, or not be what it should: a failed probe or a clear error, never a crash."""

import json
import sys

import module_subjects
import pytest
import subjects
import torch
from torch import nn

from saccade.checking import check

FAST = ["batch", "empty_rows"]


def failing(target, on="qkv", probes=FAST):
    report = check(target, on=on, probes=probes)
    assert {result.probe for result in report.failed} == set(probes), report.table()
    return report.failed[0]


def raising(q, k, v, key_mask=None, causal=False):
    raise RuntimeError("no kernel for this\nand a second line")


def test_a_target_that_raises_fails_with_its_reason():
    result = failing(raising)
    assert result.violation is None
    assert result.where == "n=13, not causal: RuntimeError: no kernel for this"


def test_a_target_that_exits_fails_with_its_reason():
    def exits(q, k, v, key_mask=None, causal=False):
        sys.exit(0)

    assert failing(exits).where == "n=13, not causal: it called sys.exit(0)"


def test_a_target_that_raises_backward_fails_with_its_reason():
    class Refuses(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise NotImplementedError("backward is not written")

    result = failing(lambda q, k, v: Refuses.apply(subjects.right(q, k, v)), probes=["gradients"])
    assert "backward: NotImplementedError: backward is not written" in result.where


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (lambda q: "text", "returned str, not a tensor"),
        (lambda q: None, "returned NoneType, not a tensor"),
        (lambda q: (), "returned tuple, not a tensor"),
        (lambda q: q.mT, "returned shape (3, 2, 8, 13), not [b h q e] = (3, 2, 13, 8)"),
        (lambda q: q > 0, "returned dtype torch.bool for inputs of torch.float64"),
    ],
)
def test_a_target_that_returns_something_else_fails_and_says_what(returned, words):
    assert words in failing(lambda q, k, v, key_mask=None, causal=False: returned(q)).where


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_target_that_returns_nan_or_inf_fails_and_its_json_is_valid(bad):
    report = check(lambda q, k, v, key_mask=None, causal=False: torch.full_like(q, bad), probes=["lengths", *FAST])
    rows = json.loads(report.to_json(), parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert [row["status"] for row in rows] == ["failed"] * 3
    assert [row["violation"] for row in rows] == [None] * 3
    assert all(str(bad) in row["where"] for row in rows)


def test_the_first_of_several_outputs_is_the_output():
    assert check(lambda q, k, v: (subjects.right(q, k, v), None), probes=["batch"]).passed


def test_a_short_table_of_positions_fails_lengths_alone():
    class Learned(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.table = nn.Embedding(512, width)
            self.block = module_subjects.Block(width)

        def forward(self, x, key_mask=None):
            return self.block(x + self.table(torch.arange(x.shape[1])), key_mask)

    (result,) = (failing(Learned, on="x", probes=["lengths"]),)
    assert result.where.startswith("n=1000, not causal: IndexError")
    assert check(Learned, on="x", probes=["padding", "batch"]).passed


def test_a_required_mask_gets_one_that_hides_nothing():
    def target(q, k, v, key_mask, causal):
        assert key_mask.dtype == torch.bool
        return subjects.right(q, k, v, key_mask, causal)

    assert check(target, probes=["batch"]).passed


def test_random_draws_in_training_that_cannot_be_switched_off_are_no_leak():
    class Noisy(nn.Module):
        def forward(self, q, k, v, key_mask=None, causal=False):
            out = subjects.right(q, k, v, key_mask, causal)
            return out * (1 + 0.1 * torch.rand_like(out)) if self.training else out

    assert check(Noisy, probes=["padding", "batch", "prefix_causality"]).passed


class NeedsHeads(nn.Module):
    def __init__(self, width, heads):
        super().__init__()


class CannotBuild(nn.Module):
    def __init__(self, width=64):
        raise RuntimeError("no weights here")


class Exits(nn.Module):
    def __init__(self, width=64):
        sys.exit(3)


class CannotCopy(nn.Module):
    def __deepcopy__(self, memory):
        raise RuntimeError("holds a lock")

    def forward(self, x):
        return x


@pytest.mark.parametrize(
    ("target", "options", "error", "words"),
    [
        (subjects.right, {"on": "kqv"}, ValueError, "on must be one of qkv, x, got 'kqv' (did you mean 'qkv'?)"),
        (subjects.right, {"probes": ["paddin"]}, ValueError, "did you mean 'padding'?"),
        (subjects.right, {"skip": ["weight"]}, ValueError, "did you mean 'weights'?"),
        (Exits, {"on": "x"}, ValueError, "Exits raised it called sys.exit(3)"),
        (subjects.right, {"dtype": torch.float16}, ValueError, "dtype must be torch.float64 or torch.float32"),
        (subjects.right, {"width": 0}, ValueError, "width must be at least 1, got 0"),
        (NeedsHeads, {"on": "x"}, ValueError, "got 'NeedsHeads(width, heads)'"),
        (CannotBuild, {"on": "x"}, ValueError, "CannotBuild raised RuntimeError: no weights here"),
        (CannotCopy(), {"on": "x"}, TypeError, "CannotCopy: RuntimeError: holds a lock"),
        (lambda h: 3, {"on": "x"}, TypeError, "a function whose first parameters are x"),
    ],
)
def test_a_target_or_option_that_cannot_be_is_refused(unchecked, target, options, error, words):
    with pytest.raises(error) as caught:
        check(target, **options)
    assert words in str(caught.value)


def test_what_cannot_be_called_is_refused(unchecked):
    with pytest.raises(TypeError, match="target must be callable, got 'int'"):
        check(3)
