"""What the import hook of jaxtyping does to each function, made cheap: the same checks, from fewer programs.

The hook decorates whatever is defined, and what is defined inside a function is defined, and decorated, at every call
of it. beartype writes a program for each, which takes a millisecond or two: longer than most of our calls.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import jaxtyping
from beartype import beartype

Function = Callable[..., Any]
KEPT: dict[object, Function] = {}


def kept(function: Function) -> Function:
    """The check that beartype makes of one of jaxtyping's empty functions, which have a signature and do nothing.

    Their names, arguments and annotations are all that goes into it: what was made for them once serves again.
    """
    # By their text: the types of jaxtyping are new at each definition, and equal only to themselves.
    key = (function.__module__, function.__qualname__, function.__code__, repr(function.__annotations__))
    if key not in KEPT:
        KEPT[key] = _at_first_call(function)
    return KEPT[key]


def _at_first_call(function: Function) -> Function:
    """Half of what is imported is never called where it is checked."""
    made: list[Function] = []

    @wraps(function)
    def check(*args: object, **options: object) -> object:
        if not made:
            made.append(beartype(function))
        return made[0](*args, **options)

    return check


def where_on(decorator: Function) -> Function:
    """jaxtyping's decorator, which leaves what is defined inside a function alone while the checks are off."""

    def jaxtyped(*, typechecker: Function) -> Function:
        decorate = decorator(typechecker=typechecker)

        def choose(defined: Any) -> Any:
            inside = "<locals>" in getattr(defined, "__qualname__", "")
            return defined if inside and jaxtyping.config.jaxtyping_disable else decorate(defined)

        return choose

    return jaxtyped
