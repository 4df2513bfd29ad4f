import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saccade.data.ragged import Ragged, id_dtype

ROWS = st.lists(st.lists(st.integers(0, 99), max_size=5), max_size=7)


@given(ROWS)
def test_rows_come_back(rows):
    ragged = Ragged.of(iter(rows))
    assert len(ragged) == len(rows)
    assert [row.tolist() for row in ragged] == rows
    assert ragged.lengths.tolist() == [len(row) for row in rows]


@given(ROWS, st.data())
def test_a_batch_is_padded_on_the_right(rows, data):
    chosen = data.draw(st.lists(st.sampled_from(range(len(rows))), max_size=6) if rows else st.just([]))
    found, mask = Ragged.of(rows).padded(torch.tensor(chosen, dtype=torch.int64), -1)
    longest = max((len(rows[row]) for row in chosen), default=0)
    assert found.tolist() == [rows[row] + [-1] * (longest - len(rows[row])) for row in chosen]
    assert mask.tolist() == [[i < len(rows[row]) for i in range(longest)] for row in chosen]
    assert found.dtype == torch.int64


@given(ROWS, st.integers(0, 2), st.integers(0, 2))
def test_a_frame_is_put_around_each_row(rows, before, behind):
    first = torch.arange(len(rows) * before).view(len(rows), before) + 1000
    last = torch.arange(len(rows) * behind).view(len(rows), behind) + 2000
    framed = Ragged.of(rows).framed(first, last)
    expected = [a + row + b for a, row, b in zip(first.tolist(), rows, last.tolist(), strict=True)]
    assert [row.tolist() for row in framed] == expected


@given(ROWS, ROWS, st.data())
def test_rows_are_joined_and_left_out(rows, more, data):
    joined = Ragged.joined([Ragged.of(rows), Ragged.of([]), Ragged.of(more)])
    assert [row.tolist() for row in joined] == rows + more
    mask = data.draw(st.lists(st.booleans(), min_size=len(joined), max_size=len(joined)))
    kept = joined.kept(torch.tensor(mask, dtype=torch.bool))
    assert [row.tolist() for row in kept] == [row for row, keep in zip(rows + more, mask, strict=True) if keep]
    assert len(Ragged.joined([])) == 0


def test_the_last_row_and_no_further():
    ragged = Ragged.of([[1], [2, 3]], torch.int16)
    assert ragged[-1].tolist() == [2, 3]
    assert ragged[0].dtype == torch.int16
    with pytest.raises(IndexError):
        ragged[2]


def test_ids_take_as_little_as_they_can():
    assert id_dtype(2**15) == torch.int16
    assert id_dtype(2**15 + 1) == torch.int32
    assert torch.tensor(2**15 - 1).to(id_dtype(2**15)) == 2**15 - 1


@pytest.mark.parametrize("ends", [[1, 2], [4, 3], []])
def test_ends_that_do_not_cut_the_values_are_refused(ends):
    with pytest.raises(ValueError, match="ends must be in order, up to 3, got"):
        Ragged(torch.tensor([1, 2, 3]), torch.tensor(ends, dtype=torch.int64))
