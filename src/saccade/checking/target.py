"""What the user gave, read but not yet run: is it the forward pass itself, or does it build one?

A module instance, and a function that takes the inputs, *are* the forward pass. Everything else builds one:

| `on` | a function is the forward pass when |
|---|---|
| `"qkv"` | it needs at least two arguments, or takes any number of them (`*args`) |
| `"x"` | its first parameter is one of `INPUT_NAMES`, or it takes `key_mask` or any number of arguments |

A class or factory is called without arguments if it can be, else with the width alone (`"qkv"`: the head dim).
"""

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from saccade.errors import must_be, unknown
from saccade.seeded import seeded

ON = ("qkv", "x")
Forward = Callable[..., Any]
Parameters = tuple[inspect.Parameter, ...]
INPUT_NAMES = ("x", "input", "inputs", "hidden_states")
COMMON_WIDTHS = {"qkv": 8, "x": 64}
MASKS = frozenset(("key_mask", "causal"))
PLACES = frozenset(("q_start", "context"))
CODE_FAILED = (Exception, SystemExit)
"""What a stranger's code may raise without ending the check; `sys.exit` in it must not end ours."""


@dataclass(frozen=True)
class Target:
    """How to get a forward pass and how to call it.

    Attributes:
        make: gives the forward pass; a fresh copy at each call where it is a module.
        on: `"qkv"` or `"x"`.
        options: which of `key_mask`, `causal`, `q_start` and `context` the forward pass takes.
        needed: which of them it has no default for.
        swallows: whether it takes masks only through `**kwargs`, where taking does not mean using.
    """

    make: Callable[[], Forward]
    on: str
    options: frozenset[str]
    needed: frozenset[str]
    swallows: bool

    @property
    def is_module(self) -> bool:
        """Whether there are a training and an evaluation mode."""
        return isinstance(self.make(), nn.Module)

    def call(self, forward: Forward, inputs: tuple[Tensor, ...], options: dict[str, Any]) -> object:
        """Call the forward pass with those of the options that it takes."""
        given = {name: value for name, value in options.items() if name in self.options and value is not None}
        if "key_mask" in self.needed and "key_mask" not in given:
            b, n = inputs[-1].shape[0], inputs[-1].shape[-2]
            given["key_mask"] = torch.ones(b, n, dtype=torch.bool, device=inputs[-1].device)
        if "q_start" in self.needed:
            given.setdefault("q_start", 0)
        return forward(*inputs, **given)


def read_target(target: Forward, on: str, width: int | None, seed: int) -> Target:
    """Find out what the target is and which options it takes.

    Raises:
        ValueError: an unknown `on`, or a class or factory that needs more than its width or cannot be built.
        TypeError: something that cannot be called, or a module that cannot be copied.
    """
    if on not in ON:
        raise ValueError(unknown("on", on, ON))
    if not callable(target):
        raise TypeError(must_be("target", "callable", type(target).__name__))
    if not isinstance(target, nn.Module) and (isinstance(target, type) or not _is_forward(target, on)):
        target = _build(target, on, width or COMMON_WIDTHS[on], seed)
    parameters = _parameters(target.forward if isinstance(target, nn.Module) else target)
    named = {parameter.name: parameter for parameter in parameters}
    swallows = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    taken = (MASKS | PLACES) & set(named)
    return Target(
        make=_copier(target) if isinstance(target, nn.Module) else lambda: target,
        on=on,
        options=taken | MASKS if swallows else taken,
        needed=frozenset(name for name in taken if named[name].default is inspect.Parameter.empty),
        swallows=swallows and not taken >= MASKS,
    )


def _parameters(target: Forward) -> Parameters:
    """What the target can be called with; of a function written in C, as little as Python knows."""
    try:
        return tuple(inspect.signature(target).parameters.values())
    except (ValueError, TypeError):
        return (inspect.Parameter("arguments", inspect.Parameter.VAR_POSITIONAL),)


def _required(parameters: Parameters) -> list[inspect.Parameter]:
    many = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p for p in parameters if p.default is p.empty and p.kind not in many]


def _is_forward(target: Forward, on: str) -> bool:
    parameters = _parameters(target)
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return True
    if on == "qkv":
        return len(_required(parameters)) >= 2
    names = [parameter.name for parameter in parameters]
    return "key_mask" in names or (bool(names) and names[0] in INPUT_NAMES)


def _build(factory: Forward, on: str, width: int, seed: int) -> Forward:
    """Call a class or factory, from a fixed seed."""
    name = getattr(factory, "__name__", type(factory).__name__)
    required = _required(_parameters(factory))
    if len(required) > 1:
        got = f"{name}({', '.join(parameter.name for parameter in required)})"
        wanted = "a class or factory that needs no argument but its width; give it defaults or pass an instance"
        raise ValueError(must_be("target", wanted, got))
    by_name = required and required[0].kind is inspect.Parameter.KEYWORD_ONLY
    arguments = [width] if required and not by_name else []
    named = {required[0].name: width} if by_name else {}
    with seeded(seed):
        try:
            built = factory(*arguments, **named)
        except CODE_FAILED as error:
            raise ValueError(f"target could not be built: {name} raised {describe(error)}") from error
    if not callable(built):
        first = {"qkv": "q, k, v", "x": "x"}[on]
        wanted = f"a module, or what builds one, or a function whose first parameters are {first}"
        raise TypeError(must_be("target", wanted, f"{name}, which gave {built!r}"))
    return built


def _copier(module: nn.Module) -> Callable[[], nn.Module]:
    try:
        copy.deepcopy(module)
    except CODE_FAILED as error:
        wanted = "a module that copy.deepcopy can copy (or pass its class or a factory)"
        raise TypeError(must_be("target", wanted, f"{type(module).__name__}: {describe(error)}")) from error
    return lambda: copy.deepcopy(module)


def describe(error: BaseException) -> str:
    """An exception on one line: its type and the first line of what it says."""
    if isinstance(error, SystemExit):
        return f"it called sys.exit({'' if error.code is None else repr(error.code)})"
    text = str(error).strip()
    lines = text.splitlines() or [""]
    first = lines[0] if len(lines[0]) <= 300 else lines[0][:300] + " ..."
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
