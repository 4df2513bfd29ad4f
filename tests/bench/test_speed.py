import math

import pytest
from speeds import measured, speeds

from saccade.bench.speed import Setting


def race(*ratios, lengths=(256, 512, 1024, 2048)):
    """Dense attention, and another that is so many times as fast at each length."""
    pairs = list(zip(lengths, ratios, strict=False))
    dense = [measured("full", n, 1.0) for n, _ in pairs]
    return speeds(*dense, *(measured("local", n, 1 / ratio) for n, ratio in pairs))


def test_speed_is_of_forward_and_backward_unless_there_is_only_forward():
    rows = measured("full", 8, 6.0), measured("local", 8, 3.0, forward=(4.0, 4.0, 4.0))
    found = speeds(*rows)
    assert found.speed(rows[1]).value == pytest.approx(2)
    assert speeds(*rows, forward_only=True).speed(rows[1]).value == pytest.approx(2.02 / 4)


def test_speed_in_the_middle_of_a_round_is_that_of_the_rounds_before():
    rows = measured("full", 8, 4.0, rounds=3), measured("local", 8, 2.0, rounds=2)
    assert speeds(*rows).speed(rows[1]) == speeds(*rows).speed(measured("local", 8, 2.0, rounds=3))


def test_without_dense_attention_there_is_no_speed():
    skipped = measured("full", 8, 1.0, status="skipped", forward=(), both=())
    local = measured("local", 8, 1.0)
    found = speeds(skipped, local)
    assert found.speed(local) is None
    assert found.crossover("local") is None


def test_predicted_is_the_ratio_of_what_is_carried_out():
    dense, local = measured("full", 8, 1.0, computed=600), measured("local", 8, 1.0, computed=200)
    assert speeds(dense, local).predicted(local) == 3


def test_crossover_lies_between_two_lengths_by_their_logarithms():
    assert race(0.5, 0.5, 2.0, 3.0).crossover("local") == pytest.approx(512 * math.sqrt(2))
    assert race(0.5, 1.0, 2.0, 3.0).crossover("local") == pytest.approx(512)
    # Half as fast and four times as fast: a third of the way.
    assert race(0.5, 4.0).crossover("local") == pytest.approx(256 * 2 ** (1 / 3))


def test_crossover_is_where_it_stays_faster():
    assert race(2.0, 0.5, 2.0, 3.0).crossover("local") == pytest.approx(512 * math.sqrt(2))
    assert race(1.5, 1.2, 2.0).crossover("local") == 256
    assert race(0.5, 2.0, 0.9).crossover("local") is None
    assert race(0.5, 0.6).crossover("local") is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": ()}, "lengths must be at least one"),
        ({"lengths": (0,)}, "each at least 1"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"head_dim": 0}, "head_dim must be at least 1, got 0"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"seconds": 0}, "seconds must be above 0 and finite, got 0"),
        ({"seconds": math.nan}, "seconds must be above 0 and finite, got nan"),
        ({"dtype": "fp23"}, "did you mean 'fp32'"),
    ],
)
def test_refuses_settings(options, message):
    with pytest.raises(ValueError, match=message):
        Setting(**options)
