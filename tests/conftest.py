"""What every test shares: memory that shows when it was never written, seeds, and the type checks' switch."""

import gc
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import settings
from torch import Tensor

import type_checks

# No deadline: the tests share two cores with others. Derandomised: the same examples on every machine.
settings.register_profile("saccade", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("saccade")


def _filled(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same allocation, but floating memory starts as NaN: a result that was not written cannot pass."""

    def allocate_nan(*args: object, **options: object) -> Tensor:
        fresh = allocate(*args, **options)
        if fresh.is_floating_point() or fresh.is_complex():
            with torch.no_grad():
                fresh.fill_(float("nan"))
        return fresh

    return allocate_nan


@pytest.fixture(autouse=True, scope="session")
def unwritten_memory_is_nan() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("empty", "empty_like", "empty_strided"):
            patch.setattr(torch, name, _filled(getattr(torch, name)))
        for name in ("new_empty", "new_empty_strided"):
            patch.setattr(torch.Tensor, name, _filled(getattr(torch.Tensor, name)), raising=False)
        yield


@pytest.fixture(autouse=True, scope="session")
def undecorated_where_unchecked() -> Iterator[None]:
    """Where the run-time type checks are off, nothing is made for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxtyping, "jaxtyped", type_checks.where_on(jaxtyping.jaxtyped))
        yield


@pytest.fixture(autouse=True, scope="session")
def exported_unchecked() -> Iterator[None]:
    """The run-time type checks know no lengths that may vary, so they are off while `torch.export` traces."""
    export = torch.export.export

    def unchecked(*args: object, **options: object) -> object:
        before = jaxtyping.config.jaxtyping_disable
        jaxtyping.config.update("jaxtyping_disable", True)
        try:
            return export(*args, **options)
        finally:
            jaxtyping.config.update("jaxtyping_disable", before)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.export, "export", unchecked)
        yield


@pytest.fixture(autouse=True)
def nothing_left_in_workspaces() -> None:
    """So that they, too, start as NaN."""
    from saccade.attention.backends import _tiles  # not above: the type checks hook into the first import

    _tiles.KEPT.workspaces.clear()


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Every test starts from the same global seed and leaves the generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(20200101)  # torch.manual_seed keeps a stack trace a call
        yield


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


REPEATED = (
    "attention/test_contract.py",
    "attention/test_export.py",
    "attention/test_mechanism_cost.py",
    "attention/test_streaming.py",
    "attention/test_random_blocks.py",
    "attention/test_rfa_gate.py",
    "attention/test_surroundings.py",
    "attention/test_told_apart.py",
    "bench/",
    "checking/",
    "integrations/",
    "nn/test_streams.py",
    "commands/",
)
"""Tests that repeat, thousands of times, calls that others make with the run-time type checks: as long again."""

SEEN_BEFORE = pytest.StashKey[bool]()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the cases of a test whose every parameter has had its value in an earlier case of the same test.

    And begin with what takes longest, or one worker would be at it when all others are done.
    """
    seen: defaultdict[str, set[tuple[str, int]]] = defaultdict(set)
    for item in items:
        case = getattr(item, "callspec", None)
        values = set(case.indices.items()) if case else set()
        before = seen[item.nodeid.partition("[")[0]]
        item.stash[SEEN_BEFORE] = case is not None and values <= before
        before |= values
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """What has been imported and collected stays to the end: no use in looking through it for garbage."""
    gc.freeze()


@pytest.fixture(autouse=True)
def as_users_run_it(request: pytest.FixtureRequest) -> None:
    """No run-time type checks in what is repeated: each value of each parameter meets them once, not each pair."""
    repeated = request.path.relative_to(Path(__file__).parent).as_posix().startswith(REPEATED)
    if repeated or request.node.stash[SEEN_BEFORE]:
        request.getfixturevalue("unchecked")


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without the run-time type checks, as users run it: for tests of our own error messages."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
