"""What a check found: one result a probe, as a table for people and as JSON for programs."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Literal

Status = Literal["passed", "failed", "not claimed"]


@dataclass(frozen=True)
class Result:
    """What one probe found.

    Attributes:
        probe: its fixed name.
        status: `"not claimed"` where the target does not promise what the probe checks.
        violation: largest difference found, relative to the size of the right answer; `inf` for NaN or inf in
            the output, `None` where the target raised or the probe did not run.
        where: where the largest violation is, what the target raised, or why the probe did not run.
    """

    probe: str
    status: Status
    violation: float | None = None
    where: str = ""


@dataclass(frozen=True)
class Report:
    """The results of one check, in the order of the table of probes."""

    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        """Whether no probe failed; what is not claimed does not count."""
        return not self.failed

    @property
    def failed(self) -> tuple[Result, ...]:
        """The results of the probes that failed."""
        return tuple(result for result in self.results if result.status == "failed")

    def to_json(self) -> str:
        """A JSON list of `{probe, status, violation, where}`.

        JSON has no NaN and no infinity: a violation that is not finite is `null`, and `where` says what happened.
        """
        rows = [asdict(result) for result in self.results]
        for row in rows:
            if row["violation"] is not None and not math.isfinite(row["violation"]):
                row["violation"] = None
        return json.dumps(rows, indent=2, allow_nan=False)

    def table(self) -> str:
        """The results as aligned plain text, one line a probe."""
        rows = [("probe", "status", "violation", "where")]
        rows += [(r.probe, r.status, _number(r.violation), " ".join(r.where.split())) for r in self.results]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = ["  ".join([*map(str.ljust, row[:3], widths), row[3]]).rstrip() for row in rows]
        return "\n".join(lines)


def _number(violation: float | None) -> str:
    return "-" if violation is None else f"{violation:.1e}"
