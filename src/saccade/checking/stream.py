"""A target that decodes: one token at a time, each call with the state that the one before gave.

The interface, on q, k, v (on x, with x in their place):

    state = layer.initial_state(batch)
    out, state = layer.prefill(q, k, v)             # the first n tokens at once; a layer need not have it
    out, state = layer.step(q, k, v, state)         # the next one: q [b h 1 d]

`dtype` and `device` are given to `initial_state`, and `key_mask` to the other two, if they take them. A state is a
tree of tuples, lists and dicts with tensors as leaves.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch

from saccade.checking.calling import Format, TargetFailure, output, ready, sheltered
from saccade.checking.draws import Inputs
from saccade.checking.target import Forward
from saccade.shapes import Bool, Tensor


class Stream:
    """One copy of the target, decoding. Outputs are float64 on the CPU, like those of a `Subject`.

    Raises:
        TargetFailure: it cannot decode; and from every method, if the target raises or returns something else.
    """

    def __init__(self, forward: Forward, form: Format) -> None:
        reason = cannot_stream(forward, form.shape.names)
        if reason:
            raise TargetFailure(reason)
        self._forward: Any = forward
        self._form = form

    @property
    def prefills(self) -> bool:
        """Whether there is a `prefill` on these inputs."""
        prefill = getattr(self._forward, "prefill", None)
        return callable(prefill) and _binds(prefill, *self._form.shape.names)

    def takes_mask(self, method: str) -> bool:
        """Whether that method takes a key mask."""
        return _takes(getattr(self._forward, method), "key_mask")

    def start(self, batch: int) -> Any:
        """The state before the first token."""
        make, form = self._forward.initial_state, self._form
        wanted = {"dtype": form.dtype, "device": form.device}
        named = {name: value for name, value in wanted.items() if _takes(make, name)}
        arguments = (batch,) if _positional(make) else ()
        state = self._run(lambda: make(*arguments, **named), f"initial_state({batch})")

        def fitting(leaf: Tensor) -> Tensor:
            return leaf.to(form.device, form.dtype if leaf.is_floating_point() else None)

        return state if "dtype" in named else mapped(state, fitting)

    def step(self, token: Inputs, state: Any, key_mask: Bool[Tensor, "b 1"] | None = None) -> tuple[Tensor, Any]:
        """The output of the next token, and the state behind it."""
        given, masks = ready(token, self._form), self._masks(key_mask)
        return self._pair(lambda: self._forward.step(*given, state, **masks), token, "step")

    def prefill(self, inputs: Inputs, key_mask: Bool[Tensor, "b n"] | None = None) -> tuple[Tensor, Any]:
        """The outputs of the first tokens, and the state behind them."""
        given, masks = ready(inputs, self._form), self._masks(key_mask)
        return self._pair(lambda: self._forward.prefill(*given, **masks), inputs, f"prefill (n={inputs[0].shape[-2]})")

    def _masks(self, key_mask: Tensor | None) -> dict[str, Tensor]:
        return {} if key_mask is None else {"key_mask": key_mask.to(self._form.device, copy=True)}

    def _pair(self, call: Callable[[], Any], inputs: Inputs, words: str) -> tuple[Tensor, Any]:
        pair = self._run(call, words)
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TargetFailure(f"{words}: returned {type(pair).__name__}, not (output, state)")
        out = output(pair[0], self._form, inputs, words)
        return out.to("cpu", torch.float64, copy=True), pair[1]

    def _run(self, call: Callable[[], Any], words: str) -> Any:
        with torch.no_grad():
            return sheltered(call, self._form, words)


def cannot_stream(forward: Forward, names: tuple[str, ...]) -> str:
    """Why a forward pass cannot decode token by token; empty if it can.

    Args:
        forward: the forward pass.
        names: what its inputs are called.
    """
    missing = [name for name in ("initial_state", "step") if not callable(getattr(forward, name, None))]
    if missing:
        return f"it has no {' and no '.join(missing)}"
    target: Any = forward
    if not _binds(target.initial_state, *(("batch",) if _positional(target.initial_state) else ())):
        return "its initial_state needs more than the number of examples"
    if not _binds(target.step, *names, "state"):
        return f"its step does not take ({', '.join(names)}, state)"
    return ""


def mapped(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same tree with every tensor changed."""
    if isinstance(state, torch.Tensor):
        return change(state)
    if isinstance(state, dict):
        return {key: mapped(part, change) for key, part in state.items()}
    if isinstance(state, tuple | list):
        parts = [mapped(part, change) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    return state


def leaves(state: Any) -> Iterator[Tensor]:
    """The tensors of a tree."""
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict | tuple | list):
        for part in state.values() if isinstance(state, dict) else state:
            yield from leaves(part)


def _takes(method: Callable[..., Any], name: str) -> bool:
    return name in inspect.signature(method).parameters


def _binds(method: Callable[..., Any], *arguments: str) -> bool:
    """Whether it can be called with those arguments, by position."""
    try:
        inspect.signature(method).bind(*arguments)
    except TypeError:
        return False
    return True


def _positional(method: Callable[..., Any]) -> bool:
    """Whether it takes any argument by position."""
    never = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    return any(parameter.kind not in never for parameter in inspect.signature(method).parameters.values())
