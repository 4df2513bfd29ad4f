"""Counted warnings: what was passed over, or looks wrong, in somebody's data; how often, and where first."""

import logging

log = logging.getLogger(__name__)


class Tally:
    """Counts of what was found, by what is said about it.

    Example:
        `tally.note("training examples longer than max_source = 64 were skipped", "train.en, line 7")`
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def note(self, what: str, where: str) -> None:
        """Count one more."""
        self._counts[what] = self._counts.get(what, 0) + 1
        self._first.setdefault(what, where)

    @property
    def counts(self) -> dict[str, int]:
        """How often each was found."""
        return dict(self._counts)

    def warn(self) -> None:
        """One line in the log for each kind, and not for each case."""
        for what, count in self._counts.items():
            log.warning("%s: %s (the first: %s)", what, f"{count:,}", self._first[what])

    @property
    def facts(self) -> dict[str, str]:
        """The counts as facts of the data, to be kept with a run."""
        return {what: f"{count:,}, the first in {self._first[what]}" for what, count in self._counts.items()}
