from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saccade.data.windows import consecutive_windows, random_windows, sliding_windows


def stream(n: int) -> torch.Tensor:
    """Token i is 1,000 + i, so that what was read tells where it stood."""
    return torch.arange(1000, 1000 + n, dtype=torch.int16)


@given(st.integers(2, 40), st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
def test_sliding_scores_each_token_once_with_what_comes_before_it(n, length, stride, batch_size):
    stride = min(stride, length)
    scored = []
    for batch in sliding_windows(stream(n), length, stride, batch_size):
        assert len(batch) <= batch_size
        for inputs, targets, counts in zip(
            batch.inputs.tolist(), batch.targets.tolist(), batch.scored.tolist(), strict=True
        ):
            for i, (target, counted) in enumerate(zip(targets, counts, strict=True)):
                if counted:
                    scored.append(target)
                    # The real tokens before it, up to its own place, and enough of them.
                    assert inputs[: i + 1] == list(range(target - 1 - i, target))
                    assert i + 1 >= min(length - stride + 1, target - 1000)
    assert scored == list(range(1001, 1000 + n))


def test_sliding_as_drawn_by_hand():
    (batch,) = sliding_windows(stream(10), length=4, stride=3)
    assert batch.inputs.tolist() == [[1000, 1001, 1002, 1003], [1003, 1004, 1005, 1006], [1006, 1007, 1008, 0]]
    assert batch.targets.tolist() == [[1001, 1002, 1003, 1004], [1004, 1005, 1006, 1007], [1007, 1008, 1009, 0]]
    assert batch.scored.tolist() == [[True] * 4, [False, True, True, True], [False, True, True, False]]
    assert batch.to("meta").inputs.device.type == "meta"


def test_random_windows_are_pieces_of_the_stream_and_reach_all_of_it():
    seen = set()
    for batch in islice(random_windows(stream(23), 7, 5, seed=3), 60):
        assert batch.inputs.shape == (5, 7)
        assert torch.equal(batch.targets, batch.inputs + 1)
        assert torch.equal(batch.inputs.diff(dim=1), torch.ones(5, 6, dtype=torch.int64))
        assert batch.scored.all()
        seen |= set(batch.inputs[:, 0].tolist())
    assert seen == set(range(1000, 1016))


@pytest.mark.parametrize("make", [random_windows, consecutive_windows])
@pytest.mark.parametrize("start", [1, 2, 3, 4, 11])
def test_a_started_run_goes_on_with_the_same_windows(make, start):
    torch.manual_seed(start)
    whole = [batch.inputs.tolist() for batch in islice(make(stream(83), 7, 4, seed=5), 16)]
    later = [batch.inputs.tolist() for batch in islice(make(stream(83), 7, 4, seed=5, start=start), 16 - start)]
    assert later == whole[start:]
    assert whole != [batch.inputs.tolist() for batch in islice(make(stream(83), 7, 4, seed=6), 16)]


@given(st.integers(2, 90), st.integers(1, 9), st.integers(1, 5), st.integers(0, 3))
def test_an_epoch_of_consecutive_windows_has_each_token_once_but_for_a_rest(n, length, batch_size, epoch):
    length = min(length, n - 1)
    windows = (n - 1) // length
    batches = -(-windows // batch_size)
    found = list(islice(consecutive_windows(stream(n), length, batch_size, start=epoch * batches), batches))
    targets = torch.cat([batch.targets.flatten() for batch in found]).tolist()
    assert len(set(targets)) == len(targets) == windows * length > n - 1 - length
    assert sorted(targets) == list(range(min(targets), max(targets) + 1))
    assert all(batch.scored.all() for batch in found)


def test_borders_and_order_change_from_epoch_to_epoch():
    epochs = consecutive_windows(stream(69), 10, 6)
    found = [next(epochs).inputs[:, 0].tolist() for _ in range(12)]
    assert len({min(first) for first in found}) > 3
    assert any(first != sorted(first) for first in found)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: next(random_windows(stream(7), 7, 2)), "stream must be longer than a window of 7 tokens, got 7"),
        (lambda: next(consecutive_windows(stream(7), 0, 2)), "length must be a whole number, at least 1, got 0"),
        (lambda: next(random_windows(stream(7), 2, 0)), "batch_size must be a whole number, at least 1, got 0"),
        (lambda: sliding_windows(stream(7), 3, 4), "stride must be from 1 to length = 3, got 4"),
        (lambda: sliding_windows(stream(7), 3, 0), "stride must be from 1 to length = 3, got 0"),
        (lambda: sliding_windows(stream(1), 3, 2), "stream must be longer than a window of 1 tokens, got 1"),
    ],
)
def test_what_makes_no_windows_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
