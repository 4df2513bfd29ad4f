import json

import pytest

from saccade.bench.sweep.plan import Cell, read_plan
from saccade.bench.sweep.records import (
    changed,
    file_name,
    read_records,
    refuse_changed,
    to_lines,
    waiting,
    write_record,
)


def test_records_are_read_back_from_a_folder_and_from_one_file(made, tmp_path):
    records = dict([made("letters", "linear"), made("letters", "linear", None)])
    for record in records.values():
        write_record(tmp_path / "out", record)
    assert read_records(tmp_path / "out") == records
    (tmp_path / "all.jsonl").write_text(to_lines(records.values()), encoding="utf-8")
    assert read_records(tmp_path / "all.jsonl") == records
    assert read_records(tmp_path / "nowhere") == {}


def test_each_cell_has_a_file_of_its_own():
    cells = [Cell("t", each, seed) for each in ("Local(1) | Full()", "Local(1) & Full()") for seed in (0, 1, None)]
    assert len({file_name(cell) for cell in cells}) == len(cells)


def test_what_is_no_record_is_refused(tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records/x.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="must be the record of a cell"):
        read_records(tmp_path)


def test_what_waits(plan, made):
    records = dict(
        [
            made("letters", "full"),
            made("letters", "linear", status="failed"),
            made("letters", "local(left=2)", status="skipped"),
        ]
    )
    cells = plan.first()
    assert waiting(plan, cells, records) == [cells[2]]
    assert waiting(plan, cells, records, retry=True) == cells[1:]
    assert waiting(plan, cells, {}) == cells


def test_a_record_from_before_a_setting_was_there_has_its_default(plan, plan_path, made):
    cell, record = Cell("letters", "linear", 0), made("letters", "linear")[1]
    record = json.loads(json.dumps(record))
    del record["settings"]["training"]["accumulate"], record["settings"]["model"]["normalisation"]
    assert changed(plan, cell, record) == []
    other = read_plan(plan_path, ["training.accumulate=2"])
    assert changed(other, cell, record) == ["training.accumulate = 1, and the plan says 2"]


def test_other_settings_are_named_and_refused(plan, plan_path, made):
    other = read_plan(plan_path, ["training.steps=4"])
    records = dict([made("letters", "linear"), made("letters", "full", status="failed")])
    cell = Cell("letters", "linear", 0)
    assert changed(plan, cell, json.loads(json.dumps(records[cell]))) == []
    assert changed(other, cell, records[cell]) == ["training.steps = 3, and the plan says 4"]
    refuse_changed(plan, plan.first(), records)
    with pytest.raises(ValueError, match=r"training\.steps = 3, and the plan says 4; .*--redo"):
        refuse_changed(other, other.first(), records)
    assert Cell("letters", "full", 0) in waiting(other, other.first(), records)
