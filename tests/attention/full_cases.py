"""Layers of full attention with other scores and weights."""

from mechanism_cases import build

from saccade.attention import MECHANISMS

SCORES = ("scaled_dot", "dot", "cosine", "additive")
WEIGHTS = ("softmax", "relu", "top_k")
OPTIONS = {"cosine": {"temperature": 0.5}, "additive": {"hidden": 4}, "top_k": {"top_k": 3}}


def full(score="scaled_dot", weights="softmax", **options):
    return MECHANISMS["full"](score, weights, **OPTIONS.get(score, {}), **OPTIONS.get(weights, {}), **options)


def layer_of(score, weights):
    return build(full(score, weights)).double()
