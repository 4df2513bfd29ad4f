import pytest
import torch

from saccade.bench import measure
from saccade.bench.measure import Ratio, peak_memory, seconds_of, speed_ratio

CPU = torch.device("cpu")


def test_peak_is_what_is_held_at_once():
    def work():
        first = torch.zeros(1000)
        second = torch.zeros(3000)
        del first
        third = torch.zeros(2000)
        return second, third

    assert peak_memory(work, CPU) == 4 * (3000 + 2000)


def test_what_was_released_before_does_not_count():
    def work():
        for _ in range(5):
            torch.zeros(1000)

    assert peak_memory(work, CPU) == 4000


def test_memory_held_before_the_work_does_not_count():
    held = [torch.zeros(100_000)]

    def work():
        torch.zeros(1000)
        held.clear()

    assert peak_memory(work, CPU) == 4000


def test_gradients_and_saved_activations_count():
    weight = torch.zeros(1000, requires_grad=True)

    def work():
        hidden = (weight * 2).exp()
        hidden.sum().backward()

    # The product, its exponential (saved for backward), and one gradient of each before the first is released.
    assert 4000 * 3 <= peak_memory(work, CPU) <= 4000 * 5
    assert peak_memory(lambda: None, CPU) == 0


def test_two_measurements_agree():
    def work():
        layer = torch.nn.Linear(31, 37)
        layer(torch.ones(41, 31)).sum().backward()

    assert peak_memory(work, CPU) == peak_memory(work, CPU) > 4 * 2 * 31 * 37


def test_other_devices_are_refused():
    with pytest.raises(ValueError, match=r"device must be a CPU or a CUDA device, got 'meta'"):
        peak_memory(lambda: None, torch.device("meta"))


def test_seconds_are_of_the_work(monkeypatch):
    ticks = iter([3.0, 5.5])
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(ticks))
    done = []
    assert seconds_of(lambda: done.append(1), CPU) == 2.5
    assert done == [1]


def test_speed_is_compared_round_by_round():
    # The machine was three times as slow in the second round, for both.
    ratio = speed_ratio((1.0, 3.0, 1.1), (2.0, 6.0, 1.1))
    assert ratio == Ratio(2.0, 1.0, 2.0)
    assert ratio.is_noise
    assert not Ratio(1.2, 1.1, 1.3).is_noise
    assert not Ratio(0.8, 0.7, 0.9).is_noise


def test_rare_rounds_do_not_hide_who_is_faster():
    """Two of 15 at either end may be anything; with 7 rounds all have to agree."""
    usual = [2.0 + turn / 100 for turn in range(11)]
    rare = speed_ratio((1.0,) * 15, (*usual, 0.1, 0.2, 30.0, 40.0))
    assert (rare.low, rare.value, rare.high) == (2.0, 2.05, 2.1)
    assert not rare.is_noise
    assert speed_ratio((1.0,) * 15, (*usual, 0.1, 0.2, 0.3, 40.0)).is_noise
    assert speed_ratio((1.0,) * 7, (*usual[:6], 0.1)).is_noise
    assert speed_ratio((1.0,), (2.0,)) == Ratio(2.0, 2.0, 2.0)


@pytest.mark.parametrize(("own", "other"), [((), ()), ((1.0,), (1.0, 2.0))])
def test_rounds_must_be_shared(own, other):
    with pytest.raises(ValueError, match="rounds, at least 1"):
        speed_ratio(own, other)
