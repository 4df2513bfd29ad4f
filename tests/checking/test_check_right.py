"""What is right passes everything: no false alarms."""

import functools

import decoders
import module_subjects
import pytest
import subjects
import torch
from torch import nn

from saccade.checking import check
from saccade.claims import PROBES, Claims

ALL = [probe.name for probe in PROBES]


def statuses(report):
    return {result.probe: result.status for result in report.results}


@pytest.mark.parametrize("target", [subjects.right_placed, subjects.right_linear])
def test_right_attention_passes_every_probe(target):
    report = check(target)
    not_claimed = {"export", "step"} if target is subjects.right_placed else {"export", "chunk", "step"}
    wanted = {probe: "not claimed" if probe in not_claimed else "passed" for probe in ALL}
    assert statuses(report) == wanted, report.table()
    assert report.passed


@pytest.mark.parametrize(
    "target", [decoders.Cached, decoders.TupleAlone, decoders.OtherPrefill, lambda: decoders.Cached(heads=3)]
)
def test_right_decoding_passes(target):
    assert statuses(check(target, probes=["step"])) == {"step": "passed"}


def test_a_window_has_weights():
    assert statuses(check(subjects.wide_window, probes=["weights"])) == {"weights": "passed"}


def test_torch_attention_on_x_is_a_right_set_attention():
    assert statuses(check(module_subjects.SetAttention, on="x", probes=["permutation", "padding"])) == {
        "padding": "passed",
        "permutation": "passed",
    }


def test_fused_attention_is_right():
    def fused(q, k, v, key_mask=None):
        mask = None if key_mask is None else key_mask[:, None, None]
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    report = check(fused, probes=["permutation", "weights", "empty_rows"])
    assert statuses(report) == dict.fromkeys(["permutation", "empty_rows", "weights"], "passed"), report.table()


@pytest.mark.parametrize("attention", [subjects.wide_window, subjects.pooled_far_away])
def test_a_window_or_block_inside_a_block_on_x_is_no_defect_either(attention):
    (result,) = check(lambda: module_subjects.Block(attention=attention), on="x", probes=["permutation"]).results
    assert result.status == "not claimed", result.where


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (subjects.windowed, "the order of keys matters by design, already at n=13"),
        (subjects.wide_window, "the order of keys matters by design: at n=63 it also matters where a query stands"),
        (subjects.pooled_far_away, "the order of keys matters by design: at n=63 it also matters where a query stands"),
    ],
)
def test_a_window_is_no_defect_however_wide(target, reason):
    (result,) = check(target, probes=["permutation"]).results
    assert (result.status, result.where) == ("not claimed", reason)
    (result,) = check(target, probes=["permutation"], claims=Claims(unordered=True)).results
    assert result.status == "failed"


def test_always_causal_attention_owes_nothing_to_the_order_of_keys():
    always = lambda q, k, v: subjects.right(q, k, v, None, True)  # noqa: E731
    (result,) = check(always, causal=True, probes=["permutation"]).results
    assert (result.status, result.where) == ("not claimed", "it is always causal")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (subjects.right, "it has no initial_state and no step"),
        (decoders.OtherStep, "its step does not take (q, k, v, state)"),
        (decoders.NeedsMore, "its initial_state needs more than the number of examples"),
        (decoders.NotWritten, "initial_state(3): NotImplementedError: later"),
        (
            decoders.NotCausal,
            "the whole call is not causal and takes no causal",
        ),
    ],
)
def test_what_only_looks_like_decoding_is_not_claimed(target, reason):
    (result,) = check(target, probes=["step"]).results
    assert (result.status, result.where) == ("not claimed", reason)


def test_decoding_that_is_claimed_and_not_there_fails():
    (result,) = check(subjects.right, claims=Claims(causal=True, streaming=True), probes=["step"]).results
    assert (result.status, result.where) == ("failed", "it has no initial_state and no step")


def test_a_right_decoder_on_x_passes():
    assert statuses(check(decoders.RunningMean, on="x", probes=["step"])) == {"step": "passed"}


def test_chunks_on_x_get_what_is_before_them_as_context():
    class Placed(nn.Module):
        def __init__(self, width=16, lost=0):
            super().__init__()
            self.lost = lost

        def forward(self, x, context=None, key_mask=None, causal=False, q_start=0):
            source = x if context is None else context
            heads = (t[:, None] for t in (x, source, source))
            return subjects.right_placed(*heads, key_mask, causal, q_start - self.lost * (q_start > 9))[:, 0]

    assert statuses(check(Placed(), on="x", probes=["chunk"])) == {"chunk": "passed"}
    assert statuses(check(Placed(lost=1), on="x", probes=["chunk"])) == {"chunk": "failed"}


def test_claims_that_name_neither_causal_nor_cross_owe_no_chunks():
    report = check(subjects.q_start_ignored, claims=Claims(any_length=True), probes=["chunk"])
    assert report.results[0].where == "its claims name neither causal nor cross"
    assert not check(subjects.q_start_ignored, claims=Claims(causal=True, any_length=True), probes=["chunk"]).passed
    assert check(subjects.q_start_ignored, claims=Claims(cross=True, any_length=True), probes=["chunk"]).passed


def test_a_target_of_one_sequence_may_refuse_chunks_but_not_ignore_where_they_stand():
    def refuses(q, k, v, key_mask=None, causal=False, q_start=0):
        if q_start or k.shape[2] != q.shape[2]:
            raise ValueError("queries and keys are one sequence")
        return subjects.right(q, k, v, key_mask, causal)

    report = check(refuses, claims=Claims(causal=True, any_length=True), probes=["chunk"])
    assert report.results[0].status == "not claimed"
    assert "its claims do not name cross, and it refuses chunks" in report.results[0].where
    assert "queries and keys are one sequence" in report.results[0].where
    assert not check(refuses, claims=Claims(causal=True, any_length=True, cross=True), probes=["chunk"]).passed
    assert not check(refuses, probes=["chunk"]).passed


def test_a_target_may_say_itself_what_it_claims():
    class Causal(torch.nn.Module):
        claims = Claims(causal=True)

        def forward(self, q, k, v, key_mask=None, causal=False):
            return subjects.relu_attention(q, k, v, key_mask, causal)

    class OfSpec(Causal):
        claims = None
        spec = Causal()

    for target in (Causal(), OfSpec()):
        found = statuses(check(target, probes=["prefix_causality", "weights"]))
        assert found == {"prefix_causality": "passed", "weights": "not claimed"}
    assert statuses(check(Causal(), claims=Claims(normalised=True), probes=["weights"])) == {"weights": "failed"}


def test_what_is_skipped_is_not_claimed():
    report = check(subjects.relu_attention, skip=["weights"], probes=["weights", "padding"])
    assert [(r.probe, r.status) for r in report.results] == [("padding", "passed"), ("weights", "not claimed")]
    assert report.results[1].where == "left out by skip"
    (result,) = check(subjects.relu_attention, probes=["weights"]).results
    assert "--skip weights" in result.where


def test_a_pattern_that_shows_a_query_nothing_is_normalised_if_it_claims_so():
    def not_itself(q, k, v, key_mask=None, causal=False):
        k, v = subjects.hide(k, key_mask), subjects.hide(v, key_mask)
        allowed = subjects.visible(q, k, key_mask, causal) & ~torch.eye(q.shape[2], dtype=torch.bool)
        return subjects.weights(q, k, allowed) @ v

    claims = Claims(causal=True, any_length=True, any_mask=True, normalised=True)
    assert check(not_itself, claims=claims, probes=["weights"]).passed
    assert not check(not_itself, probes=["weights"]).passed


def test_weights_are_seen_through_a_fixed_value_dim_too():
    def fixed(attention):
        def call(q, k, v, key_mask=None, causal=False):
            assert v.shape[-1] == 8, "values have dim 8"
            return attention(q, k, v, key_mask, causal)

        return call

    assert check(fixed(subjects.right), probes=["weights"]).passed
    assert not check(fixed(subjects.last_block_twice), probes=["weights"]).passed


@pytest.mark.parametrize("target", [subjects.right_in_float32, subjects.float32_only])
def test_the_rounding_of_float32_is_no_leak(target):
    probes = ["prefix_causality", "padding", "gradients"]
    report = check(target, probes=probes)
    assert statuses(report) == dict.fromkeys(probes, "passed"), report.table()


def test_a_dtype_that_is_asked_for_is_not_exchanged():
    (result,) = check(subjects.float32_only, dtype=torch.float64, probes=["batch"]).results
    assert result.status == "failed"
    assert "expected scalar type Float" in result.where


@pytest.mark.parametrize("target", [module_subjects.Block(), module_subjects.Block, lambda: module_subjects.Block(28)])
def test_a_right_block_on_x_passes_every_probe_in_both_modes(target):
    probes = ALL if isinstance(target, nn.Module) else ["padding", "empty_rows"]
    report = check(target, on="x", probes=probes)
    not_claimed = {"chunk", "step", "weights", "export"}
    wanted = {probe: "not claimed" if probe in not_claimed else "passed" for probe in probes}
    assert statuses(report) == wanted, report.table()


def test_a_function_of_x_is_the_forward_pass():
    block = module_subjects.Block(16).double().eval()
    report = check(lambda x, key_mask=None, causal=False: block(x, key_mask, causal), on="x", probes=["padding"])
    assert statuses(report) == {"padding": "passed"}, report.table()


def test_relu_kinks_are_no_wrong_gradients():
    report = check(lambda: nn.TransformerEncoderLayer(32, 4, batch_first=True), on="x", probes=["gradients"])
    assert report.passed, report.table()


def test_the_target_itself_is_left_as_it_was():
    block = module_subjects.Block()
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
        "chunk": "not claimed",
        "permutation": "passed",
        "step": "not claimed",
        "hidden_nan": "not claimed",
        "empty_rows": "not claimed",
        "lengths": "passed",
        "gradients": "passed",
        "weights": "passed",
        "export": "not claimed",
    }
    reasons = {result.probe: result.where for result in report.results if result.status == "not claimed"}
    assert reasons["padding"] == "the signature takes no key_mask"
    assert reasons["prefix_causality"] == "the signature takes no causal"
    assert reasons["chunk"] == "the signature takes no q_start"


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


def test_rounding_in_empty_rows_is_measured_by_the_gradients_elsewhere():
    def rounded(q, k, v, key_mask=None):
        return subjects.right(q, k, v, key_mask) + 1e-12 * q

    assert check(rounded, probes=["empty_rows"]).passed
    assert not check(lambda q, k, v, key_mask=None: rounded(q, k, v, key_mask) + 1e-8 * q, probes=["empty_rows"]).passed
