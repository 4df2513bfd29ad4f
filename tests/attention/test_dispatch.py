"""Which backend is used, and what it allocates."""

import logging

import pytest
import torch
from allocations import LargestAllocation
from attend_cases import PATTERNS, random_inputs

from saccade import Causal, Full, Global, Local, Strided, attend, big_bird
from saccade.attention import dispatch


@pytest.mark.parametrize("pattern", [Local(64), Local(64, 0) | Global(2), big_bird(), Strided(1024)], ids=repr)
def test_blockwise_makes_no_array_of_all_pairs(pattern):
    n = 4096
    q, k, v = (torch.ones(1, 1, n, 8, requires_grad=True) for _ in range(3))
    with LargestAllocation() as largest:
        attend(q, k, v, pattern, backend="blockwise").sum().backward()
    assert largest.bytes < n * n, "even one byte for each pair"


@pytest.mark.parametrize("backend", ["reference", "dense", "blockwise"])
@pytest.mark.parametrize("name", ["full", "window"])
@pytest.mark.parametrize("n", [3, 500])
def test_a_named_backend_is_used_whatever_the_input(name, n, backend, monkeypatch):
    used = []
    for option, function in list(dispatch.BACKENDS.items()):

        def record(*args, option=option, function=function, **options):
            used.append(option)
            return function(*args, **options)

        monkeypatch.setitem(dispatch.BACKENDS, option, record)
    q, k, v, _ = random_inputs(n, n, 1, 1, 1)
    attend(q, k, v, PATTERNS[name], backend=backend)
    assert used == [backend]


def test_a_backend_that_cannot_refuses(unchecked):
    q, k, v, _ = random_inputs(5, 5)
    bias = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    with pytest.raises((ValueError, NotImplementedError), match="bias"):
        attend(q, k, v, Local(2), bias=bias, backend="blockwise")


@pytest.mark.parametrize(
    ("pattern", "n", "choice"),
    [(Full(), 1500, "dense"), (Causal(), 1500, "dense"), (Local(8), 90, "dense"), (Local(8), 1500, "blockwise")],
    ids=str,
)
def test_auto_says_what_it_chose(pattern, n, choice, caplog):
    q, k, v, _ = random_inputs(n, n, 1, 1, 1)
    with caplog.at_level(logging.DEBUG, logger="saccade"):
        attend(q, k, v, pattern)
    assert any(choice in record.getMessage() for record in caplog.records)
