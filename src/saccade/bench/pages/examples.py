"""Options with which a mechanism shows what it does on a short passage, of which its defaults see nearly all."""

from dataclasses import fields, replace

from saccade.attention import Mechanism, to_mechanism
from saccade.bench.cost import cost

EXAMPLES: dict[str, str] = {
    "full": "full",
    "performer": "performer",
    "rfa": "rfa",
    "sparse": "Local(48) & Strided(8) | Global(4)",
    "strided": "strided(stride=16)",
    "sparse_transformer": "sparse_transformer(stride=16)",
    "longformer": "longformer(window=32, first=4)",
    "routing": "routing(clusters=8)",
    "mixed": "mixed(parts=[('local(left=16)', 4), ('linear', 4)])",
    "big_bird": "big_bird(block=16, random_blocks=2)",
}
"""Where the rule below finds none that tell much."""

MOST, SMALLEST = 0.25, 8


def example(name: str, length: int) -> Mechanism:
    """A mechanism of THE LIST with options that suit a short input.

    Those of `EXAMPLES`; otherwise its defaults, with the first option that is a size halved as long as the mechanism
    takes more than a quarter of full attention's operations, and halving spares any.

    Args:
        name: of the mechanism.
        length: tokens of the input.
    """
    spec = to_mechanism(EXAMPLES.get(name, name))
    size = next(iter(_sizes(spec)), None)
    if name in EXAMPLES or size is None:
        return spec
    while (share := _share(spec, length)) > MOST and getattr(spec, size) >= 2 * SMALLEST:
        smaller = replace(spec, **{size: getattr(spec, size) // 2})  # pyright: ignore[reportArgumentType]
        if _share(smaller, length) >= share:
            break
        spec = smaller
    return spec


def _sizes(spec: Mechanism) -> list[str]:
    """The options that are whole numbers large enough to be the size of something."""
    values = ((field.name, getattr(spec, field.name)) for field in fields(spec))  # pyright: ignore[reportArgumentType]
    return [name for name, value in values if type(value) is int and value >= SMALLEST]


def _share(spec: Mechanism, length: int) -> float:
    return cost(spec, length).flops / cost("full", length).flops
