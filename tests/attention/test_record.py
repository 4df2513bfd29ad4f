import pytest
import torch

from saccade.attention.record import Record


def test_it_keeps_what_was_asked_for_in_order():
    record = Record("weights")
    assert "weights" in record
    assert "counts" not in record
    values = [torch.rand(2), torch.rand(3)]
    for value in values:
        record.add("weights", value)
        record.add("counts", value)
    assert record["weights"] == values


def test_what_cannot_be_recorded_is_refused():
    with pytest.raises(ValueError, match=r"name must be one of .*, got 'wieghts' \(did you mean 'weights'\?\)"):
        Record("wieghts")
    with pytest.raises(ValueError, match="names must be one or more of weights, losses, counts, got"):
        Record()
    with pytest.raises(ValueError, match="name must be one of weights, got 'counts'"):
        Record("weights")["counts"]
