"""What a class says of itself in its docstring: a sentence, sections, and the attributes one by one.

A section begins with its name and a colon at the margin, as `Cost:`; its text stands behind it or indented below.
"""

import inspect
from dataclasses import dataclass

from saccade.errors import must_be

SECTIONS = ("Formula", "Cost", "Use it", "Leave it", "Source")
"""What a mechanism has to say."""

ATTRIBUTES = "Attributes"


@dataclass(frozen=True)
class Explained:
    """A docstring, taken apart.

    Attributes:
        summary: what stands before the first section.
        sections: the text of each, by name.
        attributes: what is said of each attribute, by name.
    """

    summary: str
    sections: dict[str, str]
    attributes: dict[str, str]


def explained(kind: type, wanted: tuple[str, ...] = SECTIONS, attributes: tuple[str, ...] = ()) -> Explained:
    """What a class says of itself.

    Args:
        kind: the class.
        wanted: the sections that it must have.
        attributes: the attributes that it must explain.

    Raises:
        ValueError: something is missing; the message names it.
    """
    summary, sections = _cut(inspect.cleandoc(kind.__doc__ or ""), (*wanted, ATTRIBUTES))
    for name in wanted:
        if not sections.get(name):
            raise ValueError(must_be(f"the docstring of {kind.__name__}", f"one with a section {name!r}", "none"))
    told = _items(sections.pop(ATTRIBUTES, ""))
    for name in attributes:
        if name not in told:
            raise ValueError(must_be(f"the docstring of {kind.__name__}", f"one that explains {name!r}", list(told)))
    return Explained(summary, sections, told)


def _cut(text: str, names: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """The text before the first section, and that of each section."""
    parts: dict[str, list[str]] = {"": []}
    current = ""
    for line in text.splitlines():
        head, colon, rest = line.partition(":")
        if colon and head in names:
            current = head
            parts[current] = [rest.strip()]
        else:
            parts[current].append(line)
    return _flush(parts.pop("")), {name: _flush(lines) for name, lines in parts.items()}


def _flush(lines: list[str]) -> str:
    """The lines at the margin; the first may stand there already, behind the name of its section."""
    if not lines:
        return ""
    first, *rest = lines
    return "\n".join([first, inspect.cleandoc("\n" + "\n".join(rest))]).strip()


def _items(text: str) -> dict[str, str]:
    """`name: what it is`, over several lines where these are indented."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, colon, rest = line.partition(": ")
        if colon and name.isidentifier():
            found[name] = [rest]
        elif found:
            found[next(reversed(found))].append(line.strip())
    return {name: " ".join(lines) for name, lines in found.items()}
