"""Each known kind of leak is found by the probe that is meant for it, and by no other."""

import decoders
import module_subjects
import pytest
import subjects
from torch import nn

from saccade.checking import check
from saccade.checking.probes import PROBES

FUTURE = {"prefix_causality"}
LEAKS = {
    "global_maximum": FUTURE,
    "sorted_buckets": FUTURE,
    "off_by_one": FUTURE | {"weights"},
    "causal_by_block": FUTURE | {"weights"},
    "soft_mask": {"padding"},
    "length_in_scale": {"padding"},
    "length_in_causal_scale": {"padding", "prefix_causality"},
    "live_length_in_scale": FUTURE,
    "values_masked_only": {"padding", "hidden_nan", "weights"},
    "mask_ignored": {"padding", "hidden_nan", "empty_rows", "weights"},
    "mask_inverted": {"padding", "hidden_nan", "empty_rows", "weights"},
    "centred_over_batch": {"batch"},
    "writes_into_keys": {"batch"},
    "drawn_each_call": {"batch"},
    "DenseForGood": {"batch", "lengths"},
    "zero_times_nan": {"hidden_nan"},
    "hidden_gradient": {"hidden_nan"},
    "empty_is_nan": {"empty_rows", "weights"},
    "empty_is_uniform": {"empty_rows", "weights"},
    "only_empty_examples_are_zero": {"empty_rows", "weights"},
    "empty_gradient_overflows": {"empty_rows"},
    "even_only": {"lengths"},
    "folded_into_batch": {"lengths"},
    "keys_detached": {"gradients"},
    "long_inputs_detached": {"gradients"},
    "LeaksInTraining": FUTURE | {"weights"},
    "q_start_ignored": {"chunk"},
    "q_start_rounded": {"chunk"},
    "aligned_to_the_end": {"chunk"},
    "leaks_from_1024_on": {"prefix_causality"},
    "scaled_by_queries": {"chunk"},
    "tail_of_chunk_lost": {"chunk"},
    "order_in_long_inputs": {"permutation"},
    "keys_beyond_500_dropped": {"permutation"},
    "hidden_keys_counted": {"permutation", "padding"},
    "OrderInTraining": {"permutation"},
    "relu_attention": {"weights"},
    "negative_weights": {"weights"},
    "values_squashed": {"weights"},
    "normaliser_of_all": {"weights"},
    "last_block_twice": {"weights"},
}
DECODERS = {
    "ForgetsTheOldest": "(n=300",
    "PrefillLosesItsRest": "steps behind a prefill of",
    "PrefillSeesTheFuture": "in a prefill of",
    "StepForgetsTheMask": "padding)",
    "WritesIntoItsState": "a step writes into its state",
    "KeepsValuesToItself": "picked from the state",
}


ONE_OF_EACH_KIND = [
    "off_by_one",
    "soft_mask",
    "centred_over_batch",
    "zero_times_nan",
    "empty_is_uniform",
    "even_only",
    "keys_detached",
    "keys_beyond_500_dropped",
]


def subject(name):
    return getattr(subjects, name, None) or getattr(module_subjects, name)


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_is_found_by_its_probe(name):
    report = check(subject(name), probes=LEAKS[name])
    assert {result.probe for result in report.failed} == LEAKS[name], report.table()
    assert not report.passed
    assert all(result.where for result in report.failed)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_a_leak_is_found_by_no_other_probe(name):
    report = check(subject(name), probes=set(PROBES) - LEAKS[name])
    assert report.passed, report.table()


@pytest.mark.parametrize("name", DECODERS)
def test_steps_that_are_not_the_whole_are_found(name):
    (result,) = check(getattr(decoders, name), probes=["step"]).results
    assert result.status == "failed"
    assert DECODERS[name] in result.where


def test_a_step_on_x_that_is_not_the_whole_is_found():
    assert not check(decoders.RunningMeanOffByOne, on="x", probes=["step"]).passed


@pytest.mark.parametrize(
    ("attention", "probe"),
    [
        (subjects.off_by_one, "prefix_causality"),
        (subjects.mask_inverted, "padding"),
        (subjects.centred_over_batch, "batch"),
        (subjects.zero_times_nan, "hidden_nan"),
        (subjects.empty_is_nan, "empty_rows"),
        (subjects.empty_is_uniform_over_all, "empty_rows"),
        (subjects.even_only, "lengths"),
        (subjects.keys_detached, "gradients"),
        (subjects.order_in_long_inputs, "permutation"),
    ],
)
def test_a_leak_inside_a_block_on_x_is_found_too(attention, probe):
    report = check(lambda: module_subjects.Block(attention=attention), on="x", probes=[probe])
    assert [result.probe for result in report.failed] == [probe], report.table()


def test_a_batch_normalisation_is_found_in_training_only():
    (result,) = check(module_subjects.BatchNormed, on="x", probes=["batch"]).results
    assert result.status == "failed"
    assert result.where.endswith("(in training mode)")


def test_dropout_is_off_so_that_training_shows_what_follows_the_length():
    class ScalesInTraining(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, q, k, v, key_mask=None):
            attention = subjects.length_in_scale if self.training else subjects.right
            return self.drop(attention(q, k, v, key_mask))

    (result,) = check(ScalesInTraining, probes=["padding"]).results
    assert result.status == "failed"


def test_where_names_the_position_and_what_was_done():
    (result,) = check(subjects.off_by_one, probes=["prefix_causality"]).results
    assert result.violation > 1
    for words in ("output at position", "batch", "head", "when tokens", "and later were drawn anew", "n="):
        assert words in result.where


def test_a_leak_through_float32_is_still_found():
    def leaking(q, k, v, key_mask=None, causal=False):
        return subjects.off_by_one(q.float(), k.float(), v.float(), key_mask, causal).double()

    assert not check(leaking, probes=["prefix_causality"]).passed
