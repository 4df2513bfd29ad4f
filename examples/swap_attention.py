"""Swap the attention of one layer: the projections stay the same, only who looks at whom changes.

python examples/swap_attention.py
"""

import torch

from saccade import Global, Local
from saccade.nn import MultiHeadAttention

torch.manual_seed(0)
x = torch.randn(2, 500, 64)
key_mask = torch.arange(500) < torch.tensor([[500], [320]])  # the second text is shorter

dense = MultiHeadAttention(width=64, heads=4, mechanism="full")
for mechanism in ("local(left=16)", "big_bird(block=16)", "linear", Local(16) | Global(2)):
    swapped = MultiHeadAttention(width=64, heads=4, mechanism=mechanism)
    swapped.load_state_dict(dense.state_dict())
    difference = (swapped(x, key_mask=key_mask) - dense(x, key_mask=key_mask)).abs().mean()
    print(f"{mechanism!s:24} mean difference from dense attention {difference:.3f}")
