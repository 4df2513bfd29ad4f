"""Which patterns a trained model's weights are held against: every mechanism of THE LIST that is a pattern.

Each comes with its default options and, from `SIZES`, with sizes that suit shorter inputs.
"""

from collections.abc import Sequence
from dataclasses import fields

from saccade.attention import MECHANISMS, Mechanism, to_mechanism
from saccade.attention.mechanisms._pattern_layer import PatternLayer
from saccade.attention.mechanisms.sparse import SparseAttention
from saccade.attention.patterns import Pattern
from saccade.errors import must_be

SIZES: dict[str, tuple[str, ...]] = {
    "sparse": ("Global(1)",),
    "local": ("local(left=2)", "local(left=8)", "local(left=32)", "local(left=64)"),
    "strided": ("strided(stride=8)", "strided(stride=32)"),
    "sparse_transformer": ("sparse_transformer(stride=16)", "sparse_transformer(stride=64)"),
    "longformer": ("longformer(window=32)", "longformer(window=128)"),
    "big_bird": ("big_bird(block=8)", "big_bird(block=16)", "big_bird(block=32)"),
}


def pattern_of(spec: Mechanism, layer: int = 0) -> Pattern | None:
    """The pattern that a mechanism is in this layer of a model, `None` if it is none."""
    built = spec.build(heads=1, head_dim=1, layer=layer)
    return built.pattern if isinstance(built, PatternLayer) else None


def candidates(chosen: Sequence[str | Mechanism | Pattern] = ()) -> list[Mechanism]:
    """The mechanisms to weigh, each a pattern and each once.

    Args:
        chosen: these, if any; otherwise every pattern of THE LIST but `full`, at several sizes.

    Raises:
        ValueError: a chosen one is unknown, or no pattern.
    """
    found = [to_mechanism(each) for each in chosen]
    for spec in found:
        if pattern_of(spec) is None:
            raise ValueError(must_be("mechanism", "a pattern, as only a pattern leaves pairs out", str(spec)))
    if not found:
        listed = [to_mechanism(text) for name in MECHANISMS for text in (name, *SIZES.get(name, ()))]
        found = [spec for spec in listed if spec.name != "full" and pattern_of(spec) is not None]
    # Two names may stand for one pattern. The later one is kept: `local` says more than the default of `sparse`.
    return list({pattern_of(spec): spec for spec in found}.values())


def label(spec: Mechanism) -> str:
    """The mechanism as an expression that says its size, also where that is the default."""
    if isinstance(spec, SparseAttention):
        return repr(spec.pattern)
    option = fields(spec)[0].name  # pyright: ignore[reportArgumentType] - mechanisms are dataclasses
    return repr(spec) if "(" in repr(spec) else f"{spec.name}({option}={getattr(spec, option)!r})"
