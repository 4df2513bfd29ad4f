"""What a mechanism costs, by name: operations, visited pairs and bytes of one forward pass."""

from saccade.attention import Cost, Mechanism, to_mechanism
from saccade.attention.patterns import Pattern
from saccade.errors import must_be


def cost(
    mechanism: str | Mechanism | Pattern,
    n: int,
    *,
    heads: int = 8,
    head_dim: int = 64,
    n_k: int | None = None,
    kv_heads: int | None = None,
    value_dim: int | None = None,
    causal: bool = False,
) -> Cost:
    """What one forward pass takes for one example, all heads together, counted and not measured.

    ```python
    cost("big_bird", 4096).flops / cost("full", 4096).flops
    ```

    Args:
        mechanism: a name (`"big_bird"`), an expression (`"local(left=64)"`), a spec or a pattern.
        n: number of queries.
        heads: query heads.
        head_dim: dim of one query or key.
        n_k: number of keys, `n` if not given.
        kv_heads: heads of keys and values, `heads` if not given.
        value_dim: dim of one value, `head_dim` if not given.
        causal: whether a query sees only keys up to its own position.

    Raises:
        ValueError: an unknown mechanism (the message names the nearest), or a size below 1.
    """
    n_k = n if n_k is None else n_k
    for name, value in (("n", n), ("n_k", n_k)):
        if value < 1:
            raise ValueError(must_be(name, "at least 1", value))
    return to_mechanism(mechanism).cost(n, n_k, heads, head_dim, kv_heads, value_dim, causal)
