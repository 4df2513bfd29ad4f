"""Which backend is used, and what it allocates."""

import logging

import pytest
import torch
from allocations import LargestAllocation, PeakAllocation
from attend_cases import PATTERNS, random_inputs

from saccade import Causal, Full, Global, Local, Strided, attend, big_bird
from saccade.attention import dispatch
from saccade.attention.layout import layout
from saccade.attention.patterns import Axial, Edges, PerHead, Segments

NODES = 4096
GRAPH = Edges(torch.randint(NODES, (2, 3 * NODES), generator=torch.Generator().manual_seed(0)))
SMALL = Edges(torch.cartesian_prod(torch.arange(60), torch.arange(60)).T)


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


@pytest.mark.parametrize(
    ("pattern", "n", "choice"),
    [
        (GRAPH, NODES, "pairs"),
        (GRAPH | Local(0), NODES, "pairs"),
        (GRAPH & Causal(), NODES, "pairs"),
        (GRAPH.shifted(1) | Global(1), NODES, "pairs"),
        ((GRAPH | Local(0)).shifted(1), NODES, "pairs"),
        (PerHead([GRAPH, Local(3)]), NODES, "pairs"),
        (GRAPH | Full(), NODES, "dense"),
        (PerHead([Full(), Full(), GRAPH]), NODES, "dense"),
        (SMALL, 60, "dense"),
        (SMALL | Local(1), 60, "dense"),
        (SMALL | Local(20), NODES, "blockwise"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_auto_takes_lists_of_pairs_where_they_are_short(pattern, n, choice):
    """Without an array of all pairs, and without a list of them where there are many (it once took minutes)."""
    bound = pattern.bind(n, n, heads=pattern.heads or 1)
    with LargestAllocation() as largest:
        assert dispatch._choose(bound, biased=False) == choice
    assert largest.bytes < NODES * NODES / 2


@pytest.mark.parametrize("pattern", [GRAPH | Local(1), PerHead([GRAPH, Local(3)])], ids=["union", "heads"])
def test_a_graph_needs_no_array_of_all_pairs(pattern):
    heads = pattern.heads or 1
    q, k, v = (torch.ones(1, heads, NODES, 8, requires_grad=True) for _ in range(3))
    with LargestAllocation() as largest:
        attend(q, k, v, pattern).sum().backward()
    assert largest.bytes < NODES * NODES / 2


@pytest.mark.parametrize(
    ("make", "most"),
    [
        (lambda n: Strided(64), 2.1),
        (lambda n: Strided(64, steps=2), 10),
        (lambda n: Strided(n // 8), 2.1),
        (lambda n: Axial(n // 64, 64), 1.1),
        (lambda n: Axial(64, n // 64), 1.1),
        (lambda n: Segments(torch.arange(n) // 100), 1.7),
        (lambda n: Segments(torch.randperm(n, generator=torch.Generator().manual_seed(0)) // 100), 1.7),
    ],
    ids=["strides", "few_strides", "long_strides", "tall", "wide", "segments", "scattered_segments"],
)
def test_what_needs_its_own_order_costs_what_it_visits(make, most):
    for n in (1024, 4096, 8192):
        plan = layout(make(n).bind(n, n))
        assert plan.visited <= most * plan.pairs, n


def test_a_window_holds_its_output_and_three_gradients_and_little_else():
    def held(n, dim=64):
        q, k, v = (torch.ones(1, 1, n, dim, requires_grad=True) for _ in range(3))
        upstream = torch.ones(1, 1, n, dim)
        layout(Local(128).bind(n, n))
        with PeakAllocation() as peak:
            out = attend(q, k, v, Local(128), backend="blockwise")
            torch.autograd.grad(out, (q, k, v), upstream)
        return peak.bytes, 4 * n * dim

    (short, _), (long, tensor) = held(8192), held(16384)
    assert 4 * tensor < long < 4 * tensor + 12 * 2**20, "workspaces do not grow with the length"
    assert long - short < 4.1 * tensor / 2
