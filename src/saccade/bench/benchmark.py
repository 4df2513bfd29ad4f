"""A benchmark that is kept: mechanisms over lengths, measured into a folder of records and a picture."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from saccade.attention import Mechanism
from saccade.bench.plots import save
from saccade.bench.race import Progress, measure_speeds
from saccade.bench.speed import Setting, Speeds
from saccade.bench.speed_report import speed_figure, to_jsonl
from saccade.writing import refuse_existing, write

RECORDS, PICTURE = "bench.jsonl", "bench.png"


def benchmark(
    mechanisms: Sequence[Mechanism],
    setting: Setting,
    out: Path,
    *,
    on_change: Callable[[Progress], object] = lambda progress: None,
) -> Speeds:
    """Measure mechanisms over lengths, and write what is found into the folder `out` whenever a length is done.

    Args:
        mechanisms: with dense attention, `full`, among them.
        setting: what to measure.
        out: a new folder for the records and the picture; without matplotlib for the records alone.
        on_change: called whenever there is something new to show.

    Returns:
        What was found, also after Ctrl-C.

    Raises:
        ValueError: dense attention is not among the mechanisms.
        FileExistsError: `out` exists; nothing in it is touched.
        OSError: a file could not be written.
    """
    refuse_existing(out)
    out.mkdir(parents=True)

    def keep(found: Speeds) -> None:
        write(out / RECORDS, to_jsonl(found))

    found = measure_speeds(mechanisms, setting, on_change=on_change, on_length=keep)
    keep(found)
    # matplotlib is an extra, and the records hold all that would be drawn.
    with suppress(ModuleNotFoundError):
        save(speed_figure(found), out / PICTURE)
    return found
