"""The report: JSON that is JSON, a table that lines up, and what passed means."""

import json
import math

import pytest

from saccade.checking import Report, Result
from saccade.checking.probes import PROBES
from saccade.claims import PROBES as TABLE

RESULTS = (
    Result("padding", "passed", 2.5e-16),
    Result("hidden_nan", "failed", math.inf, "output at position 3 is nan"),
    Result("lengths", "failed", None, "n=63: AssertionError: two\nlines"),
    Result("prefix_causality", "not claimed", None, "the signature takes no causal"),
)


def test_json_has_no_nan_and_keeps_every_field():
    rows = json.loads(Report(RESULTS).to_json(), parse_constant=lambda text: pytest.fail(text))
    assert [list(row) for row in rows] == [["probe", "status", "violation", "where"]] * 4
    assert [row["violation"] for row in rows] == [2.5e-16, None, None, None]
    assert [row["where"] for row in rows] == [result.where for result in RESULTS]


def test_the_table_has_one_aligned_line_a_probe():
    lines = Report(RESULTS).table().splitlines()
    assert len(lines) == 5
    column = lines[0].index("status")
    assert [line[column:].split("  ")[0] for line in lines[1:]] == [result.status for result in RESULTS]
    assert lines[3].endswith("n=63: AssertionError: two lines")


def test_a_report_passes_when_nothing_failed():
    assert not Report(RESULTS).passed
    assert [result.probe for result in Report(RESULTS).failed] == ["hidden_nan", "lengths"]
    assert Report((RESULTS[0], RESULTS[3])).passed


def test_every_probe_of_the_table_has_a_function():
    assert list(PROBES) == [row.name for row in TABLE]
