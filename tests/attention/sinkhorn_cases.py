"""Forms of Sinkhorn attention, inputs, and its oracle, for its tests."""

import pytest
import torch

from saccade.attention import MECHANISMS

B, H, G, D, E = 2, 4, 2, 5, 7


BLOCK = 4


FORMS = {
    "both": {},
    "causal": {},
    "cut": {"sort_cut": 2},
    "net": {"scores": "linear", "max_length": 90},
    "causal_net": {"scores": "linear", "max_length": 90},
}


forms = pytest.mark.parametrize("form", FORMS)


def inputs(n, dtype=torch.float64, batch=B, groups=G):
    shapes = (batch, H, n, D), (batch, groups, n, D), (batch, groups, n, E), (batch, H, n, E)
    generator = torch.Generator().manual_seed(n)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def build(form="both", block=BLOCK, iterations=5, temperature=0.8, **options):
    spec = MECHANISMS["sinkhorn"](block, iterations, temperature, **FORMS[form], **options)
    return spec.build(heads=H, head_dim=D, kv_heads=G, value_dim=E).double().eval()


def run(layer, form, key_mask=None):
    return lambda *qkv: layer(*qkv, key_mask=key_mask, causal=form.startswith("causal"))


def plain(q, k, v, block=8, iterations=8, temperature=0.75):
    """The same in the dtype of the inputs, by torch's operations, for lengths of whole blocks."""
    q, k, v = (x.unflatten(2, (-1, block)) for x in (q, k, v))
    logits = q.sum(3) @ k.sum(3).mT / (block * q.shape[4] ** 0.5 * temperature)
    order = logits.softmax(3)
    for _ in range(iterations):
        order = order / order.sum(2, keepdim=True)
        order = order / order.sum(3, keepdim=True)
    k, v = (torch.cat([(order @ x.flatten(3)).view_as(x), x], 3) for x in (k, v))
    return ((q @ k.mT / q.shape[4] ** 0.5).softmax(4) @ v).flatten(2, 3)
