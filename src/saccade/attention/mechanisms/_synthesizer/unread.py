"""Stand-ins for queries and keys that no part of a Synthesizer reads, so that all inputs can be checked alike."""

from collections.abc import Collection

from saccade.attention.inputs import AXES
from saccade.errors import must_be
from saccade.shapes import Float, Tensor


def filled(
    q: Tensor | None, k: Tensor | None, v: Tensor, reads: Collection[str], heads: int, head_dim: int
) -> tuple[Float[Tensor, "b h q d"], Float[Tensor, "b g k d"]]:
    """Queries and keys; zeros that take no memory in the place of what is not read.

    Args:
        q: queries, or `None` if they are not read.
        k: keys, or `None` if they are not read.
        v: values.
        reads: the names of the inputs that are read.
        heads: query heads of the layer.
        head_dim: the size of a query.

    Raises:
        TypeError: values that are no tensor.
        ValueError: values with other axes, or queries that are not read and not of one sequence with them.
    """
    if not isinstance(v, Tensor):
        raise TypeError(must_be("v", f"a tensor {AXES['v']}", type(v).__name__))
    if v.ndim != 4:
        raise ValueError(must_be("v", f"of shape {AXES['v']}", tuple(v.shape)))
    if "q" not in reads:
        one_sequence = v.shape[0], heads, v.shape[2]
        if isinstance(q, Tensor) and q.shape[:3] != one_sequence:
            wanted = f"of one sequence with v, {one_sequence}, or None: it is not read"
            raise ValueError(must_be("q", wanted, tuple(q.shape[:3])))
        q = v.new_zeros(()).expand(*one_sequence, head_dim)
    if "k" not in reads:
        like = q if isinstance(q, Tensor) else v
        k = like.new_zeros(()).expand(like.shape[0], *v.shape[1:3], head_dim)
    return q, k  # pyright: ignore[reportReturnType] - `validate` refuses what is no tensor
