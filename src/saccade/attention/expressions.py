"""Reads the expressions that patterns and mechanisms print: `Local(128) | Global(2)`, `local(left=64)`.

The same text works in Python strings, in TOML recipes and on the command line. Only calls of known names,
numbers, strings, lists, `|`, `&` and unary minus are read: nothing is ever evaluated as Python.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from inspect import signature

from saccade.errors import must_be, unknown

_CONSTANTS = {"inf": math.inf}


def read(text: str, names: Mapping[str, Callable[..., object]], kind: str) -> object:
    """The value that an expression describes.

    Args:
        text: the expression. A bare name stands for a call without options.
        names: what may be called.
        kind: what the names are, for error messages.

    Raises:
        ValueError: the text is no such expression, or names something unknown, or an option is refused.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError:
        raise ValueError(f"{kind} must be an expression such as {_example(names)}, got {text!r}") from None
    return _Reader(text, names, kind).value(tree.body)


class _Reader:
    """Walks one expression."""

    def __init__(self, text: str, names: Mapping[str, Callable[..., object]], kind: str) -> None:
        self.text, self.names, self.kind = text, names, kind

    def value(self, node: ast.expr) -> object:
        """The value of one node of the expression."""
        match node:
            case ast.Constant():
                return node.value
            case ast.Name(id=name) if name in _CONSTANTS:
                return _CONSTANTS[name]
            case ast.Name(id=name):
                return self.call(name, [], {})
            case ast.Call(func=ast.Name(id=name)):
                given = [word.arg or "**" for word in node.keywords]
                if len(set(given)) < len(given):
                    raise ValueError(must_be(f"options of {name}", "given once each", ", ".join(given)))
                options = {word: self.value(option.value) for word, option in zip(given, node.keywords, strict=True)}
                return self.call(name, [self.value(part) for part in node.args], options)
            case ast.List() | ast.Tuple():
                return tuple(self.value(part) for part in node.elts)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
            case ast.BinOp(op=ast.BitOr() | ast.BitAnd()):
                return self.combine(node)
        raise ValueError(f"{self.kind} must be made of names, options, | and &, got {self.text!r}")

    def combine(self, node: ast.BinOp) -> object:
        """What `|` or `&` makes of its two sides."""
        joined = operator.or_ if isinstance(node.op, ast.BitOr) else operator.and_
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(left, int) or isinstance(right, int):
            raise ValueError(must_be("each side of | and &", "a pattern", self.text))
        try:
            return joined(left, right)
        except TypeError:
            raise ValueError(must_be("each side of | and &", "a pattern", self.text)) from None

    def call(self, name: str, values: list[object], options: dict[str, object]) -> object:
        """What a name gives with some options."""
        try:
            called = self.names[name]  # not `in`: names may have their own reason to refuse
        except KeyError:
            raise ValueError(unknown(self.kind, name, self.names)) from None
        known = signature(called).parameters
        for option in options:
            if option not in known:
                raise ValueError(unknown(f"option of {name}", option, known))
        if len(values) > len(known):
            raise ValueError(must_be(f"values in {name}(...)", f"at most {len(known)}", len(values)))
        try:
            signature(called).bind(*values, **options)
        except TypeError as error:
            raise ValueError(must_be(f"{name}(...)", f"complete ({error})", self.text)) from None
        return called(*values, **options)


def _example(names: Mapping[str, object]) -> str:
    return repr(sorted(names)[0])
