"""What a model of transformers asks of attention besides its tensors: who may see whom, without an array of it.

transformers builds the mask of a forward pass once, by the mask function that is registered for an attention, and hands
it to every layer. Ours writes down what is asked: causal or not, further patterns, padding, and where queries stand.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch._guards import TracingContext

from saccade.attention.patterns import Causal, Full, Local, Pattern, Segments, Union
from saccade.errors import must_be
from saccade.integrations.transformers.mask_functions import Sizes, patterns_of
from saccade.shapes import Bool


@dataclass(frozen=True, eq=False)
class Asked:
    """Who may see whom in one forward pass.

    Attributes:
        causal: whether a query sees only keys up to its own position.
        patterns: what else must show a key to a query, each of them.
        key_mask: True for real keys `[b k]`; `None` where all are.
        q_start: where the first query stands, counted from the first key that is given.
        keys_start: how many keys stood before that one and are no longer given.
    """

    causal: bool = False
    patterns: tuple[Pattern, ...] = ()
    key_mask: Bool[Tensor, "b k"] | None = None
    q_start: int = 0
    keys_start: int = 0

    @property
    def lets_later_in(self) -> bool:
        """Whether some pairs are causal and others are not, as where parts of a text see themselves whole."""
        return not self.causal and any(isinstance(pattern, Union) for pattern in self.patterns)

    def up_to(self, queries: int, keys: int) -> "tuple[Asked, int]":
        """The same without the keys behind the last query, such as unwritten ones, and how many keys that leaves."""
        end = min(self.q_start + queries, keys) if self.causal else keys
        mask = None if self.key_mask is None else self.key_mask[:, :end]
        return replace(self, key_mask=mask), end


_SAME = {"contiguous", "detach", "clone", "alias"}
"""What gives the same mask: nothing writes into one. Generation with a cache of fixed size makes it contiguous."""

_LOOKS = {"size", "dim", "stride", "numel", "nelement", "element_size", "is_contiguous", "is_floating_point"}
_LOOKS |= {"__len__", "__hash__", "get_device", "is_complex", "__repr__"}


class Mask(torch.Tensor):
    """What the models pass on from the mask function to each layer: a mask `[b 1 q k]` in which nobody sees anybody.

    It has the shape that they expect, takes no memory, and carries what is asked. Only attention of ours can read it:
    a model that computes with it, as one that adds masks to scores of its own, gets an error and never its numbers.
    """

    asked: Asked

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Say what the mask looks like, copy it as itself, and refuse everything else.

        Raises:
            ValueError: the message names what was to be done with it.
        """
        name = getattr(func, "__name__", "")
        if TracingContext.try_get() is not None:  # a compiler, which makes copies of its own kinds
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        if name in _SAME and isinstance(args[0], Mask):
            return args[0]
        with torch._C.DisableTorchFunctionSubclass():
            if name == "__getitem__" and _takes_all(*args):
                return args[0]
            if name in _LOOKS or name == "__get__":
                found = func(*args, **(kwargs or {}))
                if not isinstance(found, torch.Tensor):
                    return found
        what = getattr(getattr(func, "__self__", None), "__name__", name) if name == "__get__" else name
        constraint = "handed on to the attention as it is, as only attention of saccade can read it"
        raise ValueError(must_be("attention mask", constraint, f"a mask that the model itself uses in {what}"))

    @staticmethod
    def of(asked: Asked, batch: int, queries: int, keys: int, device: torch.device | str) -> "Mask":
        """The mask for these sizes."""
        nobody = torch.zeros((), dtype=torch.bool, device=device).expand(batch, 1, queries, keys)
        mask = nobody.as_subclass(Mask)
        mask.asked = asked
        return mask

    def to(self, *args: Any, **options: Any) -> "Mask":
        """The same on another device, for a model that is spread over several."""
        with torch._C.DisableTorchFunctionSubclass():
            device = super().to(*args, **options).device
        real = self.asked.key_mask
        moved = replace(self.asked, key_mask=None if real is None else real.to(device))
        return Mask.of(moved, self.shape[0], self.shape[2], self.shape[3], device)


def _takes_all(mask: Mask, index: Any) -> bool:
    """Whether slices of a mask leave nothing out and move nothing."""
    parts = index if isinstance(index, tuple) else (index,)
    if not all(isinstance(part, slice) for part in parts) or len(parts) > mask.ndim:
        return False
    return all(part.indices(size) == (0, size, 1) for part, size in zip(parts, mask.shape, strict=False))


@torch.compiler.disable  # it reads the closures of functions
def saccade_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] | None = None,
    attention_mask: Tensor | None = None,
    device: torch.device | str = "cpu",
    **_: object,
) -> Mask:
    """The mask function that transformers calls for every attention whose name begins with `saccade`.

    Args:
        batch_size: examples.
        q_length: queries.
        kv_length: keys.
        q_offset: position of the first query.
        kv_offset: position of the first key.
        mask_function: the model's: who sees whom by position; causal if not given.
        attention_mask: `[b n]`, True for real tokens, with positions from 0 on.
        device: where the model's inputs are.
        _: what only other attentions need, such as whether a mask may be left out.

    Raises:
        ValueError: a mask function of which nothing is known, or an `attention_mask` of another shape.
    """
    refuse_export()
    if attention_mask is not None and attention_mask.ndim != 2:
        raise ValueError(must_be("attention_mask", "[b n] or [b 1 q k]", f"of shape {tuple(attention_mask.shape)}"))
    sizes = Sizes(batch_size, int(q_offset), q_length, int(kv_offset), kv_length)
    found = [p for p in patterns_of(mask_function, sizes) if p != Full() and not _shows_all(p, sizes)]
    further = tuple(pattern for pattern in found if pattern != Causal())
    asked = Asked(
        causal=len(further) < len(found),
        patterns=further,
        key_mask=_key_mask(attention_mask, sizes),
        q_start=sizes.q_start - sizes.k_start,
        keys_start=sizes.k_start,
    )
    return Mask.of(asked, batch_size, q_length, kv_length, device)


def refuse_export() -> None:
    """Refuse `torch.export`, which keeps neither the choices nor the mask of a call.

    Raises:
        ValueError: while a model is exported.
    """
    if torch.compiler.is_exporting():
        raise ValueError(must_be("attn_implementation", "'sdpa' or 'eager' to export a model", "one of saccade"))


def _shows_all(pattern: Pattern, sizes: Sizes) -> bool:
    """Whether a window, a chunk or one document is so large that it hides nothing. `Causal()` is told apart."""
    if isinstance(pattern, Segments):
        first = pattern.ids[..., :1]
        return bool(((pattern.ids == first) & (first >= 0)).all())
    if not isinstance(pattern, Local) or pattern == Causal():
        return False
    left, right = pattern.window
    if pattern.block is not None:
        return sizes.end <= pattern.block
    return sizes.q_end - 1 - sizes.k_start <= left and sizes.k_start + sizes.keys - 1 - sizes.q_start <= right


def _key_mask(attention_mask: Tensor | None, sizes: Sizes) -> Bool[Tensor, "b k"] | None:
    """The part for the given keys, as booleans. Keys that it does not name, such as unwritten ones, are not real."""
    if attention_mask is None:
        return None
    real = attention_mask[:, sizes.k_start :][:, : sizes.keys].bool()
    missing = sizes.keys - real.shape[1]
    return torch.nn.functional.pad(real, (0, missing)) if missing else real


def asked_of(mask: Tensor | None, causal: bool, batch: int, queries: int, keys: int) -> Asked:
    """What is asked of one layer.

    Args:
        mask: what the model passes on: ours, one `[b 1 q k]` that somebody made, or none.
        causal: whether the layer is causal where there is no mask.
        batch: examples.
        queries: how many.
        keys: how many.

    Raises:
        ValueError: a mask that is neither ours nor exactly causal or bidirectional with some keys hidden, or a causal
            layer without a mask in which it can't be known where the queries stand.
    """
    if isinstance(mask, Mask):
        return mask.asked
    if mask is not None:
        return _asked_by(mask, causal, batch, queries, keys)
    if causal and queries not in (1, keys):
        constraint = f"made by the model for {queries} queries and {keys} keys of a causal layer"
        raise ValueError(must_be("attention_mask", constraint, mask))
    return Asked(causal=causal, q_start=keys - queries if causal else 0)


def _asked_by(mask: Tensor, causal: bool, batch: int, queries: int, keys: int) -> Asked:
    """What a whole mask says, if it says no more than causality and padding."""
    constraint = "2-D (padding), or exactly causal or bidirectional with some keys hidden"
    if mask.ndim != 4 or mask.shape[1] != 1 or mask.shape[2:] != (queries, keys):
        raise ValueError(must_be("attention_mask", constraint, f"a mask of shape {tuple(mask.shape)}"))
    seen = mask if mask.dtype == torch.bool else mask == 0
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise ValueError(must_be("attention_mask", "of booleans or to be added, where it is 4-D", mask.dtype))
    if mask.dtype != torch.bool and bool((mask[~seen] > torch.finfo(mask.dtype).min / 2).any()):
        raise ValueError(must_be("attention_mask", constraint, "a mask that adds to the scores"))
    seen = seen[:, 0].expand(batch, -1, -1)
    real, start = seen.any(1), keys - queries if causal else 0
    if not bool(real.any(1).all()):
        raise ValueError(must_be("attention_mask", constraint, "a mask in which nobody sees anything"))
    whole = real[:, None].expand(-1, queries, -1)
    earlier = torch.ones(queries, keys, dtype=torch.bool, device=mask.device).tril(keys - queries)
    # One query at the end is both; a causal layer then has to know where it stands.
    for is_causal, meant in ((True, whole & earlier), (False, whole)):
        if torch.equal(seen, meant) and (not is_causal or causal or not torch.equal(meant, whole)):
            return Asked(causal=is_causal, key_mask=real, q_start=keys - queries if is_causal else start)
    raise ValueError(must_be("attention_mask", constraint, "another mask"))
