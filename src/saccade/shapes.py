"""The axis letters of every shape in this package, and the tensor types that carry them.

A shape reads like `Float[Tensor, "b h q d"]`. The letters always mean the same:

| letter | axis | letter | axis |
|---|---|---|---|
| `b` | batch | `c` | model width |
| `h` | query heads | `d` | dim of one query or key |
| `g` | key heads (`g` divides `h`) | `e` | dim of one value |
| `q` | queries | `f` | features |
| `k` | keys | `v` | vocabulary |
| `n` | positions where `q` = `k` | `t` | target positions |
| `r` | rank | `m` | groups of tokens, or heads of all examples |

The annotations are free at run time; the tests run with jaxtyping's import hook, which checks them all.
"""

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

__all__ = ["Bool", "Float", "Int", "Shaped", "Tensor"]
