import json
from pathlib import Path

import pytest

from saccade.bench.sweep.page import planned, to_page, write_page
from saccade.bench.sweep.plan import read_plan
from saccade.bench.sweep.records import read_records

PLAN = Path("plans/plan.toml")


def hand_made(made):
    """The best by validation is `local(left=2)`; `linear` has no second seed."""
    trained = [
        made("letters", "full", 0, test=0.40, validation=0.4),
        made("letters", "full", 1, test=0.44, validation=0.4),
        made("letters", "linear", 0, test=0.60, validation=0.3),
        made("letters", "local(left=2)", 0, test=0.70, validation=0.5),
        made("letters", "local(left=2)", 1, test=0.74, validation=0.6),
        made("more", "full", 0, status="failed"),
    ]
    measured = [
        made("letters", "full", None, seconds=0.5, dense=0.5, peak=4 * 10**6),
        made("letters", "linear", None, seconds=0.25, dense=1.0),
    ]
    return dict([*trained, *measured, made("letters", "linear", 5)])


def test_the_numbers_of_the_page_are_those_of_the_records(plan, made):
    page = to_page(plan, PLAN, planned(plan, hand_made(made)), "results")
    assert "| `local(left=2)` | 72.0% ± 2.8 | 2 | 55.0% | - | - | - | - | 1,234 |" in page
    full = "| `full` | 42.0% ± 2.8 | 2 | 40.0% | 2.00 | 1.00x (1.00-1.00) | 2.00x (2.00-2.00) | 1.00 (4 MB) | 1,234 |"
    assert full in page
    linear = "| `linear` | 60.0% | 1 | 30.0% | 4.00 | 4.00x (4.00-4.00) | 8.00x (8.00-8.00) | 0.25 (1 MB) | 1,234 |"
    assert linear in page
    assert page.index("| `local") < page.index("| `linear") < page.index("| `full")
    assert "- `full`: failed: ValueError: no" in page
    assert "`local(left=2)` went on to the second stage" in page
    # 3 trainings of the first stage; 2 mechanisms x 2 tasks x 2 seeds of the second, 2 of them made; 3 + 2 speeds
    assert "7 of its 14 records are there" in page
    assert "machine: Abacus, 2 cores, 8 GB of memory, Loom" in page
    assert "versions: python 3, torch 2, saccade 0" in page
    assert "saccade sweep plans/plan.toml --out runs/again --task letters --mechanism 'local(left=2)'" in page


def test_a_page_is_written_with_pictures_and_the_records_of_the_plan(plan, made, tmp_path):
    records, report = hand_made(made), tmp_path / "docs/results.md"
    write_page(plan, PLAN, records, report)
    pictures = sorted(path.name for path in (tmp_path / "docs/images").iterdir())
    assert pictures == ["results-letters.png", "results-scores.png"]
    page = report.read_text(encoding="utf-8")
    assert "![Speed, score and memory on letters](images/results-letters.png)" in page
    lines = (tmp_path / "docs/results.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(records) - 1  # without the seed that the plan does not have
    assert {json.loads(line)["machine"]["cpu"] for line in lines} == {"Abacus"}
    # The file of records makes the same page again.
    write_page(plan, PLAN, read_records(tmp_path / "docs/results.jsonl"), tmp_path / "again/results.md")
    assert (tmp_path / "again/results.md").read_text(encoding="utf-8") == page


def test_records_of_other_settings_are_not_on_the_page(plan, plan_path, made):
    other = read_plan(plan_path, ["training.steps=4"])
    assert planned(plan, hand_made(made))
    assert planned(other, hand_made(made)) == {}


def test_a_page_is_not_replaced_by_one_of_nothing(plan, plan_path, made, tmp_path):
    report = tmp_path / "results.md"
    write_page(plan, PLAN, hand_made(made), report)
    before = report.read_text(encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"none of the \d+ records was made with the settings of .*: nothing is written"
    ):
        write_page(read_plan(plan_path, ["training.steps=4"]), PLAN, hand_made(made), report)
    assert report.read_text(encoding="utf-8") == before


def test_a_page_of_nothing_says_so(plan, tmp_path):
    write_page(plan, PLAN, {}, tmp_path / "results.md")
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert page.count("Not run yet.") == 2
    assert "The second stage has not begun" in page
    assert not (tmp_path / "images").exists()
