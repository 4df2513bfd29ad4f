"""From `package.module:name` to the object: the one place where user code is imported."""

import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from saccade.checking.target import CODE_FAILED, describe
from saccade.errors import must_be, unknown


def load_target(text: str) -> Callable[..., Any]:
    """Import what `package.module:name` names, with the current folder on the import path.

    `name` may have dots (`Model.forward`).

    Raises:
        ValueError: no colon, no such module, or no such name in it (the nearest is given).
        ImportError: the module is there but raised while it was imported.
        TypeError: what is named cannot be called.
    """
    module_name, colon, path = text.partition(":")
    if not (module_name and colon and path):
        raise ValueError(must_be("target", "package.module:name", text))
    if module_name.endswith(".py") or "/" in module_name or "\\" in module_name:
        written = ".".join(Path(module_name).with_suffix("").parts)
        raise ValueError(must_be("target", f"a module with dots, such as {written}:{path}", text))
    target: Any = _import(module_name)
    for name in path.split("."):
        if not hasattr(target, name):
            raise ValueError(unknown(f"name in {module_name}", name, _callables(target)))
        target = getattr(target, name)
    if not callable(target):
        raise TypeError(must_be("target", "callable", f"{text}, a {type(target).__name__}"))
    return target


def _import(name: str) -> object:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except CODE_FAILED as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            reachable = f"a module that can be imported from {folder} or from the installed packages"
            raise ValueError(must_be("target's module", reachable, name) + f" ({error})") from error
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{describe(error)} ({place.filename}, line {place.lineno})"
        raise ImportError(f"{name} could not be imported: {reason}") from error


def _callables(owner: object) -> list[str]:
    return [name for name in dir(owner) if not name.startswith("_") and callable(getattr(owner, name, None))]
