"""What is right passes everything: no false alarms."""

import functools

import pytest
import subjects
import torch
from torch import nn

from saccade.checking import check
from saccade.claims import PROBES, Claims

ALL = [probe.name for probe in PROBES]


def statuses(report):
    return {result.probe: result.status for result in report.results}


@pytest.mark.parametrize("target", [subjects.right, subjects.right_linear])
def test_right_attention_passes_every_probe(target):
    report = check(target)
    assert statuses(report) == dict.fromkeys(ALL, "passed"), report.table()
    assert report.passed


@pytest.mark.parametrize("target", [subjects.right_in_float32, subjects.float32_only])
def test_the_rounding_of_float32_is_no_leak(target):
    probes = ["prefix_causality", "padding", "gradients"]
    report = check(target, probes=probes)
    assert statuses(report) == dict.fromkeys(probes, "passed"), report.table()


def test_a_dtype_that_is_asked_for_is_not_exchanged():
    (result,) = check(subjects.float32_only, dtype=torch.float64, probes=["batch"]).results
    assert result.status == "failed"
    assert "expected scalar type Float" in result.where


@pytest.mark.parametrize("target", [subjects.Block(), subjects.Block, lambda: subjects.Block(28)])
def test_a_right_block_on_x_passes_every_probe_in_both_modes(target):
    probes = ALL if isinstance(target, nn.Module) else ["padding", "empty_rows"]
    report = check(target, on="x", probes=probes)
    assert statuses(report) == dict.fromkeys(probes, "passed"), report.table()


def test_a_function_of_x_is_the_forward_pass():
    block = subjects.Block(16).double().eval()
    report = check(lambda x, key_mask=None, causal=False: block(x, key_mask, causal), on="x", probes=["padding"])
    assert statuses(report) == {"padding": "passed"}, report.table()


def test_relu_kinks_are_no_wrong_gradients():
    report = check(lambda: nn.TransformerEncoderLayer(32, 4, batch_first=True), on="x", probes=["gradients"])
    assert report.passed, report.table()


def test_the_target_itself_is_left_as_it_was():
    block = subjects.Block()
    before = {name: value.clone() for name, value in block.state_dict().items()}
    check(block, on="x", probes=["batch"])
    assert block.training
    assert block.drop.p == 0.2
    assert all(
        torch.equal(before[name], value) and value.dtype == torch.float32 for name, value in block.state_dict().items()
    )


def test_the_global_generator_is_left_as_it_was():
    before = torch.get_rng_state()
    check(subjects.drawn_each_call, probes=["batch", "empty_rows", "gradients"])
    assert torch.equal(before, torch.get_rng_state())


def test_dims_of_a_module_are_found_by_trial():
    class FourHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4, 1, 16))

        def forward(self, q, k, v, key_mask=None, causal=False):
            return subjects.right(q * self.scale, k, v, key_mask, causal)

    assert check(FourHeads, probes=["empty_rows"]).passed


def test_what_the_signature_does_not_take_is_not_claimed():
    report = check(lambda q, k, v: subjects.right(q, k, v), probes=ALL)
    assert statuses(report) == {
        "prefix_causality": "not claimed",
        "padding": "not claimed",
        "batch": "passed",
        "hidden_nan": "not claimed",
        "empty_rows": "not claimed",
        "lengths": "passed",
        "gradients": "passed",
    }
    reasons = {result.probe: result.where for result in report.results if result.status == "not claimed"}
    assert reasons["padding"] == "the signature takes no key_mask"
    assert reasons["prefix_causality"] == "the signature takes no causal"


def test_keywords_that_are_only_passed_on_and_then_refused_are_not_claimed():
    def inner(q, k, v, causal=False):
        return subjects.right(q, k, v, None, causal)

    report = check(lambda *args, **options: inner(*args, **options), probes=["prefix_causality", "padding"])
    assert statuses(report) == {"prefix_causality": "passed", "padding": "not claimed"}


def test_always_causal_is_checked_without_the_keyword():
    always = functools.partial(subjects.right, causal=True)
    target = lambda q, k, v, key_mask=None: always(q, k, v, key_mask)  # noqa: E731
    assert statuses(check(target, causal=True, probes=["prefix_causality"])) == {"prefix_causality": "passed"}
    leaking = lambda q, k, v: subjects.right(q, k, v)  # noqa: E731
    assert statuses(check(leaking, causal=True, probes=["prefix_causality"])) == {"prefix_causality": "failed"}


def test_claims_restrict_what_is_asked():
    seen = set()

    def watched(q, k, v, key_mask=None, causal=False):
        ragged = key_mask is not None and bool((key_mask.int().diff() > 0).any())
        seen.add((causal, ragged))
        assert q.shape[2] % 2 == 0, "even lengths only"
        return subjects.right(q, k, v, key_mask, causal)

    report = check(watched, claims=Claims())
    assert statuses(report)["prefix_causality"] == statuses(report)["lengths"] == "not claimed"
    assert report.passed, report.table()
    assert seen == {(False, False)}


def test_claims_of_cross_attention_ask_for_two_lengths_and_value_dims():
    shapes = set()

    def watched(q, k, v):
        shapes.add((q.shape[2] == k.shape[2], k.shape[3] == v.shape[3]))
        return subjects.right(q, k, v)

    claims = Claims(cross=True, any_length=True)
    assert check(watched, claims=claims, probes=["lengths"]).passed
    assert (False, False) in shapes

    def square_only(q, k, v):
        assert q.shape[2] == k.shape[2], "one length only"
        return subjects.right(q, k, v)

    assert not check(square_only, claims=claims, probes=["lengths"]).passed


def test_the_seed_makes_a_check_repeatable():
    first, again = (check(subjects.off_by_one, seed=5, probes=["prefix_causality"]) for _ in range(2))
    assert first == again
