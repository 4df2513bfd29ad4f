import pytest
import torch

from saccade.attention import MECHANISMS
from saccade.attention.mechanisms.linear import LinearLayer
from saccade.bench import race as module
from saccade.bench.accuracy import DEFINITION, ITSELF
from saccade.bench.choice import read_mechanisms
from saccade.bench.race import measure_speeds
from saccade.bench.speed import Setting

SMALL = {"lengths": (40, 20), "heads": 2, "head_dim": 4, "rounds": 2}


def run(mechanisms="full, local(left=2), linear", on_change=lambda progress: None, **options):
    return measure_speeds(read_mechanisms(mechanisms), Setting(**{**SMALL, **options}), on_change=on_change)


def test_every_mechanism_is_measured_at_every_length():
    found = run(", ".join(MECHANISMS), batch=3)
    assert list(found.rows) == [(n, name) for n in (20, 40) for name in MECHANISMS]
    for row in found.rows.values():
        assert (row.status, row.reason) == ("done", "")
        assert len(row.forward) == len(row.both) == 2
        assert min(*row.forward, *row.both) > 0
        # Output and three gradients of three examples, at least.
        assert row.peak_bytes >= 3 * 4 * 4 * row.length * 2 * 4
        assert row.error < 1e-5
        assert row.against == (DEFINITION if MECHANISMS[row.mechanism]().claims.exact else ITSELF)
        assert found.speed(row) is not None
        assert row.cost == MECHANISMS[row.mechanism]().cost(row.length, row.length, 2, 4)


def test_causal_precision_and_forward_alone():
    found = run(causal=True, dtype="bf16", forward_only=True)
    for row in found.rows.values():
        assert len(row.forward) == 2
        assert row.both == ()
        assert 1e-5 < row.error < 0.05
        assert found.speed(row) is not None
    assert found.rows[40, "full"].cost == MECHANISMS["full"]().cost(40, 40, 2, 4, causal=True)
    assert run(dtype="fp64").rows[40, "full"].error < 1e-13


def test_rounds_follow_the_time_but_are_three_at_least(monkeypatch):
    monkeypatch.setattr(module, "seconds_of", lambda work, device: (work(), 0.5)[1])
    monkeypatch.setattr(module, "PATIENCE", 1e9)
    assert len(run("full", lengths=(8,), rounds=9, seconds=6).rows[8, "full"].both) == 6
    assert len(run("full", lengths=(8,), rounds=9, seconds=100).rows[8, "full"].both) == 9
    assert len(run("full", lengths=(8,), rounds=9, seconds=0.1).rows[8, "full"].both) == 3
    assert len(run("full", lengths=(8,), rounds=2, seconds=0.1).rows[8, "full"].both) == 2


def test_mechanisms_take_turns(monkeypatch):
    turns = []
    real = module._Race.time

    def time(race, n, name, candidate):
        turns.append((n, name))
        real(race, n, name, candidate)

    monkeypatch.setattr(module._Race, "time", time)
    run("full, linear")
    assert turns == [(n, name) for n in (20, 40) for _ in range(2) for name in ("full", "linear")]


def test_what_would_take_too_long_is_skipped_and_the_rest_is_not(monkeypatch):
    monkeypatch.setattr(module, "_pace_of_products", lambda device: 1e-3)
    found = run("full, linear", lengths=(300,), seconds=100.0)
    assert found.rows[300, "full"].status == "skipped"
    # 4 n^2 h d operations, 4.5 times for forward and both, twice as there are two rounds.
    assert found.rows[300, "full"].reason == f"it would take about {4 * 300**2 * 8 * 4.5 * 1e-3 * 2:.0f} seconds"
    assert found.rows[300, "linear"].status == "done"
    assert found.speed(found.rows[300, "linear"]) is None


def test_what_would_not_fit_into_memory_is_skipped(monkeypatch):
    monkeypatch.setattr(module, "free_memory", lambda: 10_000)
    found = run("full")
    assert found.rows[20, "full"].status == "done"
    assert found.rows[40, "full"].status == "skipped"
    assert "GB of memory, and 0 GB are free" in found.rows[40, "full"].reason
    monkeypatch.setattr(module, "free_memory", lambda: None)
    assert run("full").rows[40, "full"].status == "done"


def test_a_mechanism_that_fails_leaves_the_others(monkeypatch):
    def fails(layer, q, *rest, **options):
        if q.shape[2] == 40:
            raise RuntimeError("too large\nand a second line")
        return q

    monkeypatch.setattr(LinearLayer, "forward", fails)
    found = run("full, linear")
    assert found.rows[40, "linear"].status == "failed"
    assert found.rows[40, "linear"].reason == "RuntimeError: too large"
    assert found.rows[40, "full"].status == "done"


def test_what_has_only_a_causal_form_is_skipped_elsewhere():
    gated = "rfa(features=8, gate=True)"
    assert run(f"full, {gated}").rows[20, gated].reason == "it has only a causal form"
    assert run(f"full, {gated}", causal=True).rows[20, gated].status == "done"


def test_what_does_not_claim_causality_is_skipped(monkeypatch):
    claims = type(MECHANISMS["linear"]().claims)()
    monkeypatch.setattr(MECHANISMS["linear"], "claims", property(lambda spec: claims))
    found = run("full, linear", causal=True)
    assert found.rows[20, "linear"].reason == "it does not claim causality"
    assert run("full, linear").rows[20, "linear"].status == "done"


@pytest.mark.parametrize(("doing", "detail", "kept"), [("warming up linear", "", 0), ("rounds", "round 2: linear", 1)])
def test_stopping_keeps_whole_rounds(doing, detail, kept):
    def stop(progress):
        if progress.length == 40 and doing in progress.doing and detail in progress.detail:
            raise KeyboardInterrupt

    found = run("full, linear", on_change=stop)
    assert [len(found.rows[20, name].both) for name in ("full", "linear")] == [2, 2]
    assert [len(found.rows[40, name].both) for name in ("full", "linear")] == [kept, kept]
    assert [len(found.rows[40, name].forward) for name in ("full", "linear")] == [kept, kept]
    assert found.rows[40, "full"].status == ("done" if kept else "stopped")
    assert found.stopped is not bool(kept)


def test_progress_ends_at_nothing_left_and_lengths_are_told_when_done():
    seen, known = [], []
    measure_speeds(read_mechanisms("full, linear"), Setting(**SMALL), on_change=seen.append, on_length=known.append)
    assert [progress.length for progress in seen] == sorted(progress.length for progress in seen)
    assert all(progress.left >= 0 for progress in seen)
    assert seen[0].doing == "n = 20: warming up full"
    assert seen[-1].detail == ", round 2: linear"
    assert seen[-1].left < seen[2].left
    assert [sum(row.status == "done" for row in found.rows.values()) for found in known] == [2, 4]


def test_inputs_are_those_of_the_seed_and_the_global_generator_stays():
    before = torch.get_rng_state()
    one, same, other = (run("full, linear", seed=seed).rows[40, "linear"].error for seed in (0, 0, 1))
    assert one == same != other
    assert torch.equal(torch.get_rng_state(), before)


def test_dense_attention_must_be_there():
    with pytest.raises(ValueError, match="mechanisms must be with full among them, got 'linear'"):
        measure_speeds(read_mechanisms("linear", baseline=False))
