"""Probes that find leaks in any attention, ours or not, and their report.

A probe is a function of a `Subject` that yields one `Finding` a comparison. Adding one is one file in `probes`,
one line in its list and one row in `saccade.claims.PROBES`.
"""

from saccade.checking.loading import load_target
from saccade.checking.report import Report, Result
from saccade.checking.run import check

__all__ = ["Report", "Result", "check", "load_target"]
