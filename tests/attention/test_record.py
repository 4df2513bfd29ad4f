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


def test_what_is_added_at_a_place_is_found_there_and_above():
    record = Record("weights")
    values = [torch.full((1,), float(i)) for i in range(4)]
    decoder = record.at("decoder")
    record.at("encoder").add("weights", values[0])
    decoder.at("self").add("weights", values[1])
    decoder.at("cross").add("weights", values[2])
    decoder.add("losses", values[3])
    assert record["weights"] == values[:3]
    assert record.at("encoder")["weights"] == values[:1]
    assert record.at("decoder")["weights"] == values[1:3]
    assert decoder.at("cross")["weights"] == values[2:3]
    assert record.at("cross")["weights"] == []
    assert "weights" in decoder
    assert "losses" not in decoder
    with pytest.raises(ValueError, match="name must be one of weights, got 'losses'"):
        decoder["losses"]
