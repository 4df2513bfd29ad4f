import json
import math

import pytest
import torch
from rows import comparison, row

from saccade.bench.report import Row, facts_of, join, to_jsonl, to_markdown
from saccade.machine import machine, versions
from saccade.tasks import Recipe
from saccade.training import TrainingSettings


def table(text):
    """The cells of each row of the Markdown table."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").replace(r"\|", "¦").split("|")] for line in lines]


def test_table_has_a_row_a_mechanism():
    found = comparison(row("full", range(300), 0.5, 416), row("local(left=8)", range(290), 0.25, 82))
    head, rule, full, local = table(to_markdown(found, "So be it."))
    assert len(head) == len(rule) == len(full) == len(local) == 7
    assert full == ["`full`", "75.0% ± 2.2", "1.94", "1.00x", "250", "416", "12,345"]
    assert local[:4] == ["`local(left=8)`", "72.5% ± 2.2", "3.88", "2.00x"]


def test_facts_stand_above_and_the_sentence_below():
    text = to_markdown(comparison(row("full", range(300))), "So be it.")
    assert text.startswith("- data: stdlib\n\n| mechanism")
    assert text.rstrip().endswith("**So be it.**")
    assert "always guessing the commonest class gives 20.0%" in text


def test_what_failed_or_was_stopped_says_so():
    failed = Row("Local(2) | Global(1)", "failed", "RuntimeError: too large", parameters=7)
    text = to_markdown(comparison(row("full", range(300)), failed, Row("linear", "stopped")), "")
    _, _, _, first, second = table(text)
    assert first == ["`Local(2) ¦ Global(1)`", "failed", "-", "-", "-", "-", "7"]
    assert second[1] == "stopped"
    assert "`Local(2) | Global(1)` failed: RuntimeError: too large" in text


def test_without_a_baseline_there_is_no_relative_speed():
    text = to_markdown(comparison(row("local", range(300)), baseline=None), "")
    assert table(text)[2][3] == "-"
    assert "being 1" not in text


def test_standard_error_is_the_binomial_one_but_never_zero():
    found = row("full", range(100))
    assert found.accuracy == 0.25
    assert found.standard_error == pytest.approx(math.sqrt(0.25 * 0.75 / 400), rel=5e-3)
    assert row("full", range(400)).standard_error > 1e-3
    assert math.isnan(Row("full").accuracy)
    assert math.isnan(Row("full").steps_per_second)


def test_every_record_stands_alone():
    failed = Row("linear", "failed", "RuntimeError: no")
    found = comparison(row("full", range(300)), failed, Row("local", "stopped"))
    first, second = (json.loads(line) for line in to_jsonl(found).splitlines())
    assert first["mechanism"] == "full"
    assert first["test_accuracy"] == 0.75
    assert first["test_examples"] == 400
    assert first["speed_to_baseline"]["value"] == 1.0
    assert first["seeds"] == {"data": 3}
    assert first["machine"] == machine()
    assert first["versions"] == versions()
    assert second["status"] == "failed"
    assert second["reason"] == "RuntimeError: no"
    assert second["test_accuracy"] is None


def test_infinite_settings_are_words_in_json():
    found = comparison(row("full", range(300)))
    found.settings["training"] = {"clip": math.inf, "seed": 5}
    record = json.loads(to_jsonl(found))
    assert record["settings"]["training"] == {"clip": "inf", "seed": 5}


def test_the_machine_is_named():
    assert machine()["cores"] >= 1
    assert machine()["torch_threads"] == torch.get_num_threads()
    assert machine()["cpu"]
    assert versions()["torch"] == torch.__version__


def test_facts_name_seed_and_sizes():
    facts = facts_of(Recipe(training=TrainingSettings(steps=77, seed=5)))
    assert "77 steps of 16" in facts["training"]
    assert "seed 5 (data: seed 0)" in facts["training"]
    assert torch.__version__ in facts["versions"]


@pytest.mark.parametrize(
    ("names", "text"), [(["a"], "`a`"), (["a", "b"], "`a` and `b`"), (["a", "b", "c"], "`a`, `b` and `c`")]
)
def test_names_in_a_sentence(names, text):
    assert join(names) == text
