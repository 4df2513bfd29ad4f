"""Settings from TOML and from `--set a.b=c` into nested frozen dataclasses.

The dataclass is the whole description: its fields are the keys, its annotations are what is accepted, its
defaults are what a file may leave out, and its `__post_init__` says what else must hold. Nothing is ignored:
a key that no field has is refused with the nearest name, and every error says where the value came from.

TOML has no null. A field that may be `None` reads the word `none` as `None`.
"""

import dataclasses
import json
import re
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from saccade.errors import must_be, unknown

Settings = TypeVar("Settings")

_SCALARS: dict[object, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
}


class _RefusedError(ValueError):
    """A value that does not fit, with the dotted key by which its origin is found."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True)
class Source:
    """Settings as they were written, before any dataclass has read them.

    Attributes:
        values: nested tables, overrides already applied.
        name: the file, or `settings` where there is none.
        origins: where each dotted key was written: a file and line, or the `--set` that gave it.
    """

    values: dict[str, Any]
    name: str = "settings"
    origins: Mapping[str, str] = field(default_factory=dict)

    def origin(self, key: str) -> str:
        """Where `key`, or else the nearest table around it, was written."""
        key = key.partition("[")[0]
        while key and key not in self.origins:
            key = key.rpartition(".")[0]
        return self.origins.get(key, self.name)


def load(path: Path | str | None, cls: type[Settings], overrides: Sequence[str] = ()) -> Settings:
    """Settings of class `cls` from a TOML file and overrides; `path=None` starts from the defaults.

    Args:
        path: a TOML file whose tables and keys are the fields of `cls`.
        cls: a frozen dataclass, whose fields may be dataclasses themselves.
        overrides: texts such as `"model.width=64"`; the value is read as TOML, or else taken as plain text.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: invalid TOML, an unknown key, or a value that does not fit; the message says where.
    """
    return build(read(path, overrides), cls)


def read(path: Path | str | None, overrides: Sequence[str] = ()) -> Source:
    """The tables of a TOML file and overrides, for a caller that must look before it knows the class."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if path is not None:
        text = _text(Path(path))
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path} must be valid TOML: {error}") from None
        origins = {key: f"{path}, line {line}" for key, line in _lines_of_keys(text).items()}
    for override in overrides:
        key, value = _parse_override(override)
        _put(values, key, value, origins, f"--set {override}")
    return Source(values, "settings" if path is None else str(path), origins)


def build(source: Source, cls: type[Settings]) -> Settings:
    """An instance of `cls` from settings that were read; see `load` for the errors."""
    try:
        return _build(cls, source.values, "")
    except _RefusedError as error:
        raise ValueError(f"{source.origin(error.key)}: {error}") from error.__cause__


def dump(instance: object) -> str:
    """The settings as TOML that `load` reads back equal.

    Fields that are `None` and have that default are left out.

    Raises:
        TypeError: a value that has no TOML form.
        ValueError: the text `none` in a field, which would read back as `None`.
    """
    return "\n".join(_dump_table(instance, "")).strip() + "\n"


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(must_be("settings", "an existing TOML file", str(path)))
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be valid TOML: not UTF-8 at byte {error.start}") from None


def _lines_of_keys(text: str) -> dict[str, int]:
    """The line of each dotted key. Line by line: good enough to point a reader, not a parser."""
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[([\w.\s-]+)\]", line):
            table = header[1].replace(" ", "") + "."
            found.setdefault(table[:-1], number)
        elif key := re.match(r"\s*([\w.-]+)\s*=", line):
            found.setdefault(table + key[1], number)
    return found


def _parse_override(text: str) -> tuple[str, Any]:
    key, sign, value = (part.strip() for part in text.partition("="))
    if not sign or not all(key.split(".")):
        raise ValueError(must_be("--set", "of the form a.b=value", text))
    try:
        parsed = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        return key, value
    return key, parsed["value"] if len(parsed) == 1 else value


def _put(table: dict[str, Any], key: str, value: object, origins: dict[str, str], origin: str) -> None:
    parts = key.split(".")
    for depth, part in enumerate(parts[:-1], start=1):
        if not isinstance(table.get(part), dict):
            table[part] = {}
            origins[".".join(parts[:depth])] = origin
        table = table[part]
    table[parts[-1]] = value
    origins[key] = origin


def _build(cls: type[Settings], values: object, key: str) -> Settings:
    if not isinstance(values, dict):
        raise _RefusedError(key, must_be(key, "a table", values))
    fields = {each.name: each for each in _fields(cls) if each.init}
    for name in values:
        if name not in fields:
            options = [_dotted(key, option) for option in fields]
            raise _RefusedError(_dotted(key, name), unknown("key", _dotted(key, name), options))
    for name, each in fields.items():
        if name not in values and each.default is each.default_factory is dataclasses.MISSING:
            raise _RefusedError(key, f"{_dotted(key, name)} must be given: it has no default")
    kinds = get_type_hints(cls)
    arguments = {name: _convert(kinds[name], value, _dotted(key, name)) for name, value in values.items()}
    try:
        return cls(**arguments)
    except (ValueError, TypeError) as error:
        subject = str(error).partition(" ")[0]
        if subject in fields:
            raise _RefusedError(_dotted(key, subject), _dotted(key, str(error))) from error
        raise _RefusedError(key, f"{key}: {error}" if key else str(error)) from error


def _convert(kind: object, value: object, key: str) -> object:
    """`value` as the annotation `kind` asks for it."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build(kind, value, key)
    if get_origin(kind) in (Union, types.UnionType):
        return _convert_union(kind, value, key)
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
        raise _RefusedError(key, unknown(key, str(value), map(str, get_args(kind))))
    if get_origin(kind) in (tuple, list) and isinstance(value, list):
        return _convert_items(kind, value, key)
    if kind is float and type(value) is int:
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if type(value) is kind:
        return value
    raise _RefusedError(key, must_be(key, _describe(kind), value))


def _convert_union(kind: object, value: object, key: str) -> object:
    alternatives = [each for each in get_args(kind) if each is not types.NoneType]
    if value == "none" and len(alternatives) < len(get_args(kind)):
        return None
    for alternative in alternatives:
        try:
            return _convert(alternative, value, key)
        except _RefusedError:
            if len(alternatives) == 1:
                raise
    raise _RefusedError(key, must_be(key, _describe(kind), value))


def _convert_items(kind: object, values: list[object], key: str) -> object:
    items = get_args(kind)
    if get_origin(kind) is list or items[-1] is Ellipsis:
        items = (items[0],) * len(values)
    if len(items) != len(values):
        raise _RefusedError(key, must_be(key, _describe(kind), values))
    converted = [
        _convert(item, value, f"{key}[{i}]") for i, (item, value) in enumerate(zip(items, values, strict=True))
    ]
    return converted if get_origin(kind) is list else tuple(converted)


def _describe(kind: object) -> str:
    """What an annotation accepts, in words."""
    if kind is types.NoneType:
        return "none"
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_describe(each) for each in get_args(kind))
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) in (tuple, list):
        items = get_args(kind)
        if get_origin(kind) is list or items[-1] is Ellipsis:
            return f"a list, each item {_describe(items[0])}"
        return f"a list of {len(items)}: " + ", ".join(map(_describe, items))
    return _SCALARS.get(kind, "a table")


def _fields(settings: object) -> tuple[dataclasses.Field[Any], ...]:
    if not dataclasses.is_dataclass(settings):
        raise TypeError(must_be("settings", "a dataclass", settings))
    return dataclasses.fields(settings)


def _dotted(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _dump_table(instance: object, key: str) -> list[str]:
    own: list[str] = []
    nested: list[str] = []
    kinds = get_type_hints(type(instance))
    for each in _fields(instance):
        value = getattr(instance, each.name)
        if value == "none" and types.NoneType in get_args(kinds[each.name]):
            meant = "another text, since none stands for no value"
            raise ValueError(must_be(_dotted(key, each.name), meant, value))
        if dataclasses.is_dataclass(value):
            nested += _dump_table(value, _dotted(key, each.name))
        elif value is not None or each.default is not None:
            own.append(f"{each.name} = {_dump_value(value, _dotted(key, each.name))}")
    return ["", f"[{key}]", *own, *nested] if key else [*own, *nested]


def _dump_value(value: object, key: str) -> str:
    match value:
        case None:
            return '"none"'
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str() | Path():
            # JSON escapes what TOML asks to be escaped, but for the delete character.
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
        case tuple() | list():
            return "[" + ", ".join(_dump_value(item, key) for item in value) + "]"
    raise TypeError(must_be(key, "a number, text, a list, a table or none", value))
