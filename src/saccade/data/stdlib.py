"""The Python standard library's own sources as data: tell from which package a passage of code comes.

Real files that are on every machine with Python and need no download. A class is a package of the library with
at least 15 source files; an example is a passage of its bytes. The split is by file, so no half of a test file is
ever trained on. Time: reads a few hundred files, well under a second.
"""

import platform
import sysconfig
from collections import defaultdict
from pathlib import Path

import torch

from saccade.data.labelled import LabelledData, Split
from saccade.data.settings import DataSettings
from saccade.data.splitting import partition, rank
from saccade.data.vocabulary import ByteVocabulary

LEAST_FILES = 15
# `encodings` is tables of numbers, IDLE is an application, and not every machine has the library's tests.
LEFT_OUT = {"test", "encodings", "idlelib", "site-packages", "dist-packages"}
NESTED_TESTS = {"test", "tests"}
SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}

Sources = dict[str, bytes]


def load(settings: DataSettings) -> LabelledData:
    """Passages of `settings.length` bytes from every package that is large enough.

    Raises:
        FileNotFoundError: if fewer than two packages have their sources on this machine.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    sources = {package: _read(folder / package) for package in _packages(folder)}
    large = {package: files for package, files in sources.items() if len(files) >= LEAST_FILES}
    if len(large) < 2:
        raise FileNotFoundError(_missing(folder, sources))
    drawn = [_draw(files, settings) for files in large.values()]
    return LabelledData(
        name="stdlib",
        vocabulary=ByteVocabulary(),
        classes=tuple(large),
        train=_as_split([found["train"] for found in drawn]),
        validation=_as_split([found["validation"] for found in drawn]),
        test=_as_split([found["test"] for found in drawn]),
        origin={"python": platform.python_version(), "passage": f"{settings.length:,} bytes"},
    )


def passages(source: bytes, length: int) -> list[bytes]:
    """A file cut into passages; a rest of less than half a passage is dropped, unless it is all there is."""
    cut = [source[start : start + length] for start in range(0, len(source), length)]
    return cut[:-1] if len(cut) > 1 and len(cut[-1]) < length / 2 else cut


def _packages(folder: Path) -> list[str]:
    """The packages directly in the folder, by name."""
    if not folder.is_dir():
        return []
    return sorted(
        entry.name for entry in folder.iterdir() if entry.name not in LEFT_OUT and (entry / "__init__.py").is_file()
    )


def _read(package: Path) -> Sources:
    """The source files of a package that have something in them, by their path from the library's folder."""
    sources = {}
    for file in sorted(package.rglob("*.py")):
        path = file.relative_to(package.parent)
        if not NESTED_TESTS & set(path.parts) and (content := file.read_bytes()):
            sources[path.as_posix()] = content
    return sources


def _draw(sources: Sources, settings: DataSettings) -> dict[str, list[bytes]]:
    """The passages of one package: each file goes to one split, which keeps its share of `per_class`."""
    paths = sorted(sources, key=lambda path: rank(settings.seed, path.encode()))
    cut = {path: passages(sources[path], settings.length) for path in paths}
    places = partition((len(cut[path]) for path in paths), SHARES)
    found: dict[str, list[tuple[bytes, bytes]]] = defaultdict(list)
    for path, place in zip(paths, places, strict=True):
        for i, passage in enumerate(cut[path]):
            found[place].append((rank(settings.seed, f"{path} {i}".encode()), passage))
    most = {split: round(share * settings.per_class) for split, share in SHARES.items()}
    return {split: [passage for _, passage in sorted(found[split])[: most[split]]] for split in SHARES}


def _as_split(by_class: list[list[bytes]]) -> Split:
    """The passages of all classes one after the other, with their labels."""
    encode = ByteVocabulary().encode
    labels = [label for label, found in enumerate(by_class) for _ in found]
    return Split(tuple(encode(passage) for found in by_class for passage in found), torch.tensor(labels))


def _missing(folder: Path, sources: dict[str, Sources]) -> str:
    """What to say where the library has no sources."""
    found = ", ".join(f"{package} ({len(files)})" for package, files in sources.items() if files)
    return (
        f"stdlib must be at least 2 packages of {LEAST_FILES} source files (.py) in {folder}, "
        f"got {found or 'no source files'}. This Python was installed without its sources. Use one that has them "
        "(python.org, uv, conda, pyenv or your system's full package), or other data: the source 'listops', or a "
        "file of your own."
    )
