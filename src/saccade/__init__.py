"""Efficient attention and parallel decoding for PyTorch: right, fast, and measured on your own data.

```python
import torch
from saccade import Global, Local, attend

q = k = v = torch.randn(1, 8, 4096, 64)
out = attend(q, k, v, Local(128) | Global(2))
```
"""

from saccade._version import __version__
from saccade.attention import MECHANISMS, attend
from saccade.attention.patterns import (
    Axial,
    Causal,
    Edges,
    Full,
    Global,
    Grid,
    Local,
    Pattern,
    PerHead,
    Random,
    Segments,
    Strided,
    big_bird,
    longformer,
    sparse_transformer,
)
from saccade.bench.cost import cost
from saccade.checking import check

__all__ = [
    "MECHANISMS",
    "Axial",
    "Causal",
    "Edges",
    "Full",
    "Global",
    "Grid",
    "Local",
    "Pattern",
    "PerHead",
    "Random",
    "Segments",
    "Strided",
    "__version__",
    "attend",
    "big_bird",
    "check",
    "cost",
    "longformer",
    "sparse_transformer",
]
