"""The public names are sorted, complete and real."""

import importlib

import pytest

FIXED = {
    "Causal", "Full", "Global", "Local", "Random", "Strided",
    "attend", "big_bird", "check", "cost", "longformer", "sparse_transformer",
}  # fmt: skip

MODULES = ["saccade", "saccade.attention", "saccade.attention.patterns", "saccade.generation", "saccade.nn"]


def natural(name):
    """Constants, then classes, then functions, as ruff sorts `__all__`."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("module", MODULES)
def test_all_is_sorted_and_real(module):
    names = importlib.import_module(module).__all__
    assert list(names) == sorted(names, key=natural)
    assert all(hasattr(importlib.import_module(module), name) for name in names)


def test_fixed_names_are_there():
    assert set(importlib.import_module("saccade").__all__) >= FIXED


def test_fixed_names_of_the_rooms():
    from saccade.attention import MECHANISMS
    from saccade.nn import Encoder, MultiHeadAttention

    assert {"full", "sparse", "local", "strided", "longformer", "big_bird", "linear"} <= set(MECHANISMS)
    assert Encoder is not MultiHeadAttention
