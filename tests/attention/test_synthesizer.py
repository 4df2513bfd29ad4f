"""The Synthesizer against the sums of its paper, in all its kinds; what it refuses; what others get wrong."""

import copy
import subprocess
import sys

import pytest
import torch
from low_rank_cases import all_gradients, assert_all_same, layer_of, mask_of, run
from mechanism_cases import B, D, E, G, H, build, inputs

import oracles
from oracles_synthesizer import synthesizer
from saccade.attention import MECHANISMS, to_mechanism
from saccade.attention.mechanisms import _query_chunks
from saccade.attention.weights import implied_weights
from saccade.nn import Encoder, MultiHeadAttention

KINDS = (
    "dense",
    "random",
    "fixed",
    "factorised_dense",
    "factorised_random",
    "dense+dot",
    "fixed+factorised_random",
    "random+dot+factorised_dense",
)
OPTIONS = {"factorised_dense": ", block=4", "factorised_random": ", rank=3"}
kinds = pytest.mark.parametrize("kind", KINDS)
causal_or_not = pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])


def text(kind, max_length=17):
    options = [option for part, option in OPTIONS.items() if part in kind.split("+")]
    return f"synthesizer('{kind}', max_length={max_length}{''.join(options)})"


def given(layer):
    """What it has learned, and what it has drawn."""
    return dict(layer.named_parameters()), dict(layer.named_buffers())


def compare(kind, n_q, n_k, mask="none", causal=False, q_start=0, max_length=17):
    layer, key_mask = layer_of(text(kind, max_length)), mask_of(mask)
    (parameters, drawn), (q, k, v, upstream) = given(layer), inputs(n_q, n_k)
    options = {"key_mask": key_mask, "causal": causal, "q_start": q_start}
    wanted = all_gradients(
        lambda q, k, v, named: synthesizer(kind, q, k, v, {**named, **drawn}, **options),
        (q, k, v),
        parameters,
        upstream,
    )
    actual = all_gradients(lambda *x: run(layer, *x, **options), (q, k, v), parameters, upstream)
    assert_all_same(actual, wanted)


@kinds
@causal_or_not
@pytest.mark.parametrize("mask", ["none", "right", "left", "holes", "empty"])
def test_it_equals_the_sums_of_the_paper(kind, mask, causal):
    compare(kind, 13, 13, mask, causal)
