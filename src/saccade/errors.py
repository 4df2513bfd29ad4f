"""How Saccade words its errors: what was wrong, what was got, what is allowed.

Every message of the package has one of these forms, so that a reader learns to read them once.
"""

from collections.abc import Iterable
from difflib import get_close_matches


def must_be(name: str, constraint: str, value: object) -> str:
    """`"{name} must be {constraint}, got {value}"`, the form of every error about a value."""
    return f"{name} must be {constraint}, got {value!r}"


def whole_number(name: str, value: object, least: int = 1) -> None:
    """Refuse what is no whole number, or a smaller one.

    Raises:
        ValueError: the message names it.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(must_be(name, f"a whole number, at least {least}", value))


def unknown(kind: str, value: object, options: Iterable[str]) -> str:
    """The form of every error about a name: the nearest known one, then all of them.

    Args:
        kind: what is named, such as `"mechanism"`.
        value: the name that was got.
        options: the names that are allowed.
    """
    names = sorted(options)
    near = get_close_matches(str(value), names, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{kind} must be one of {', '.join(names)}, got {value!r}{hint}"
