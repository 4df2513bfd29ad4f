"""Find out whether an attention of your own leaks: this one shifts its causal mask by one.

python examples/find_a_leak.py
"""

import torch
from torch import Tensor

from saccade import check


def careless(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """Softmax attention whose causal mask lets every query see one key too many."""
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(diagonal=2)
        scores = scores.masked_fill(later, -torch.inf)
    return scores.softmax(-1) @ v


report = check(careless)
print(report.table())
print("leaks" if not report.passed else "no leak found")
