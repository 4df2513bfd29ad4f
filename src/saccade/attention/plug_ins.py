"""Mechanisms of other packages: what their entry points name, and the list that they join.

A package names its specs under the group `saccade.mechanisms`, in its pyproject.toml:

    [project.entry-points."saccade.mechanisms"]
    mine = "my_package.mine:MineAttention"

What is installed is looked up at the first question to the list, and a plug-in is imported when it is asked for by
name, or with all others when the list is read through. So `import saccade` pays for none; a plug-in may import
anything of Saccade; and it makes no difference which of the two is imported first. One that cannot be used is left
out with a warning, and whoever asks for it by name is told why.
"""

import logging
from collections import UserDict
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points

from saccade._version import __version__
from saccade.attention.mechanism import Mechanism, input_sizes
from saccade.attention.patterns import PATTERNS
from saccade.claims import Claims
from saccade.errors import must_be, unknown

GROUP = "saccade.mechanisms"

log = logging.getLogger(__name__)


class Mechanisms(UserDict[str, type[Mechanism]]):
    """Name and spec of every mechanism: Saccade's own, in `data`, and behind them those of other packages.

    A plug-in that cannot be used is no member: iteration leaves it out and warns, once. `[name]` raises ValueError
    then, and says why; a name that nobody knows is a KeyError.
    """

    def __init__(self) -> None:
        super().__init__()
        self._loaded: dict[str, type[Mechanism]] = {}
        self._told: set[str] = set()

    @cached_property
    def _others(self) -> dict[str, list[EntryPoint]]:
        """The entry points of each name, as installed when this was first asked."""
        found: dict[str, list[EntryPoint]] = {}
        for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
            found.setdefault(entry.name, []).append(entry)
        for name in filter(self._is_own, found):
            self._tell(_taken(name, found[name]))  # now, as nobody will ask for it
        return found

    def _is_own(self, name: object) -> bool:
        """Whether Saccade itself reads the name, as a mechanism or a pattern."""
        return name in self.data or name in PATTERNS

    def __getitem__(self, name: str) -> type[Mechanism]:
        others = self._others
        if self._is_own(name) or name not in others:
            return super().__getitem__(name)
        if name not in self._loaded:
            # What failed is tried again: it may have been asked for in the middle of its own import.
            self._loaded[name] = load(name, others[name])
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self.data or (name in self._others and self._is_usable(str(name)))

    def __iter__(self) -> Iterator[str]:
        yield from self.data
        yield from filter(self._is_usable, self._others)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def broken(self) -> dict[str, str]:
        """The plug-ins that cannot be used, by name, and why; there is no warning of what was told here."""
        reasons = {name: reason for name in self._others if (reason := self._reason(name))}
        self._told.update(reasons.values())
        return reasons

    def _is_usable(self, name: str) -> bool:
        """Whether a plug-in can be used; there is a warning if not."""
        if reason := self._reason(name):
            self._tell(reason)
        return not reason

    def _reason(self, name: str) -> str:
        """Why a plug-in cannot be used; empty if it can."""
        try:
            if self._is_own(name):
                return _taken(name, self._others[name])
            self[name]
        except ValueError as error:
            return str(error)
        return ""

    def _tell(self, reason: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            log.warning("left out: %s", reason)


def load(name: str, entries: Sequence[EntryPoint]) -> type[Mechanism]:
    """The spec of a plug-in.

    Args:
        name: of the mechanism.
        entries: all that have this name.

    Raises:
        ValueError: two packages have one of that name; or it cannot be imported; or it is no mechanism. The message
            names the package.
    """
    if len(entries) > 1:
        raise ValueError(must_be(f"the plug-in {name!r}", "of one package", _packages(entries)))
    who = f"the plug-in {name!r} of {_packages(entries)}"
    if not name.isidentifier():
        raise ValueError(must_be(f"the name of {who}", "a word, of letters, digits and _", name))
    kind = _imported(entries[0], who)
    if not (isinstance(kind, type) and issubclass(kind, Mechanism)):
        raise ValueError(must_be(who, "a subclass of saccade.attention.Mechanism", kind))
    _validate_kind(kind, name, who)
    _validate_defaults(kind, name, who)
    return kind


def _imported(entry: EntryPoint, who: str) -> object:
    try:
        return entry.load()
    except (Exception, SystemExit) as error:  # whatever a stranger's module does ends nothing of ours
        raise ValueError(f"{who} could not be imported from {entry.value}: {_line(error)}") from error


def _validate_kind(kind: type[Mechanism], name: str, who: str) -> None:
    """Refuse what is no whole spec of that name, every option of which has a default."""
    if (own := getattr(kind, "name", None)) != name:
        raise ValueError(must_be(f"the name of {who}", f"that of its entry point, {name!r}", own))
    if missing := sorted(kind.__abstractmethods__):
        raise ValueError(must_be(who, f"a mechanism with {', '.join(missing)}", "none"))
    made_with = getattr(kind, "__dataclass_params__", None)
    if made_with is None or not made_with.frozen:
        raise ValueError(must_be(who, "a frozen dataclass", kind))
    for field in fields(kind):  # pyright: ignore[reportArgumentType] - it is a dataclass
        if field.default is field.default_factory is MISSING:
            raise ValueError(must_be(f"option {field.name!r} of {who}", "one with a default", "none"))


def _validate_defaults(kind: type[Mechanism], name: str, who: str) -> None:
    """Refuse a spec that cannot be made, promises nothing, prints as something else, or reads what nothing gives it."""
    try:
        spec = kind()
        printed, claims, inputs = str(spec), spec.claims, spec.inputs
    except Exception as error:
        raise ValueError(f"{who} could not be made with its default options: {_line(error)}") from error
    if printed != name:
        raise ValueError(must_be(f"what {who} prints", f"{name!r} (is it a dataclass with repr=False?)", printed))
    if not isinstance(claims, Claims):
        raise ValueError(must_be(f"claims of {who}", "saccade.claims.Claims", claims))
    for each in inputs:
        if each not in (known := input_sizes(1, 1, 1, 1)):
            raise ValueError(unknown(f"input of {who}", each, known))


def _taken(name: str, entries: Sequence[EntryPoint]) -> str:
    """What is said of a plug-in whose name is Saccade's own."""
    constraint = f"of another name than any mechanism or pattern of saccade {__version__}"
    return must_be(f"the plug-in {name!r} of {_packages(entries)}", constraint, name)


def _packages(entries: Sequence[EntryPoint]) -> str:
    """Who brings them, as `plug 1.0 and other 2.1`."""
    return " and ".join(f"{entry.dist.name} {entry.dist.version}" if entry.dist else "?" for entry in entries)


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
