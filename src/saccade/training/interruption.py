"""Ctrl-C that lets the step in hand finish: the first one asks, the second one stops at once."""

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType


class Interrupted(Exception):  # noqa: N818 - stopping on request is no error
    """Training was asked to stop and did, after a whole step.

    Attributes:
        folder: the run that holds the checkpoint; `None` where the run writes none.
        step: the last step that was done.
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        where = "nothing is saved, as the run has no output folder"
        if folder is not None:
            where = f"everything is saved; continue with: saccade train --resume {folder}"
        super().__init__(f"stopped after step {step}; {where}")
        self.folder = folder
        self.step = step


class Interruption:
    """While entered, turns the first SIGINT into `requested = True`; the next one raises KeyboardInterrupt.

    Python delivers signals to the main thread only, so in any other thread this changes nothing.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "Interruption":
        self._catches = threading.current_thread() is threading.main_thread()
        if self._catches:
            self._before = signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._catches:
            signal.signal(signal.SIGINT, self._before)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
