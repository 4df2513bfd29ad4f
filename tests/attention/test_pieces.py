"""The pieces that `blockwise` cuts its work into: many small ones and moving windows, on inputs short enough to check.

With the sizes as they are, short inputs make one piece each; here they are cut as long inputs would be.
"""

import pytest
import torch

import oracles
from saccade import Causal, Global, Local, Pattern, Random, Strided, attend, big_bird
from saccade.attention.backends import _pieces

B, H, G, D, E = 2, 4, 2, 5, 7
PATTERNS: dict[str, Pattern] = {
    "window": Local(20),
    "wide_window": Local(100, 30),
    "left_window": Local(64, 0),
    "blocks": Local(1, block=32),
    "window_and_first": Local(20) | Global(2),
    "window_and_last": Local(20) | Global(1, last=2),
    "window_and_sinks": Local(20, 0) | Global(3, rows=False) & Causal(),
    "many_global_rows": Local(3) | Global(70),
    "big_bird": big_bird(block=16, random_blocks=1),
    "big_bird_heads": big_bird(block=16, random_blocks=1, per_head=True),
    "strided": Strided(64) | Local(5),
    "causal": Causal(),
    "random": Random(2, block=32),
}


@pytest.fixture(autouse=True)
def nothing_kept():
    """Pieces are kept for the next call of the same kind; here every test cuts its own."""
    _pieces._kept.cache_clear()
    yield
    _pieces._kept.cache_clear()


@pytest.fixture(params=["one_tile_a_piece", "few_tiles_a_piece", "as_it_is"])
def cut(request, monkeypatch):
    """Pieces of one tile, of a few, or as large as they are; moving windows wherever there can be one."""
    sizes = {"one_tile_a_piece": 1, "few_tiles_a_piece": 5 * 64 * 64}
    if request.param in sizes:
        monkeypatch.setattr(_pieces, "CHUNK_SCORES", sizes[request.param])
    monkeypatch.setattr(_pieces, "WINDOW_SCORES", 0)


def inputs(n_q, n_k, heads=H, groups=G, batch=B):
    generator = torch.Generator().manual_seed(n_q + n_k)
    shapes = (batch, heads, n_q, D), (batch, groups, n_k, D), (batch, groups, n_k, E), (batch, heads, n_q, E)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


def with_gradients(function, *tensors, upstream):
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    out = function(*leaves)
    return out.detach(), *torch.autograd.grad(out, leaves, upstream)


def masked_softmax(pattern, n_q, n_k, q_start, heads, mask):
    """Attention in one matrix product: the oracle's formula without its loop, for lengths that would take long."""
    lengths = None if mask is None else tuple(int(row.nonzero().max()) + 1 for row in mask)
    seen = pattern.bind(n_q, n_k, q_start, lengths=lengths, heads=heads).dense()
    seen = seen.expand(*(1,) * (4 - seen.ndim), *seen.shape)
    seen = seen if mask is None else seen & mask[:, None, None]

    def attention(q, k, v):
        scores = q @ oracles.repeat_heads(k, heads).mT * D**-0.5
        weights = torch.where(seen, scores.exp(), 0.0)
        total = weights.sum(-1, keepdim=True)
        return weights @ oracles.repeat_heads(v, heads) / torch.where(total == 0, 1.0, total)

    return attention


def assert_same(actual, wanted):
    for name, one, other in zip(("out", "dq", "dk", "dv"), actual, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize(("n_q", "n_k", "q_start"), [(256, 256, 0), (130, 301, 171)], ids=str)
def test_however_the_work_is_cut_the_result_is_the_same(cut, name, n_q, n_k, q_start):
    q, k, v, upstream = inputs(n_q, n_k)
    pattern = PATTERNS[name]
    wanted = with_gradients(masked_softmax(pattern, n_q, n_k, q_start, H, None), q, k, v, upstream=upstream)
    actual = with_gradients(
        lambda *qkv: attend(*qkv, pattern, q_start=q_start, backend="blockwise"), q, k, v, upstream=upstream
    )
    assert_same(actual, wanted)


@pytest.mark.parametrize("name", PATTERNS)
def test_key_masks_are_cut_like_the_keys(cut, name):
    n = 301
    q, k, v, upstream = inputs(n, n)
    mask = torch.rand(B, n, generator=torch.Generator().manual_seed(3)) < 0.8
    mask[0, 220:] = False
    mask[1, :90] = False
    pattern = PATTERNS[name]
    wanted = with_gradients(masked_softmax(pattern, n, n, 0, H, mask), q, k, v, upstream=upstream)
    poison = torch.where(mask[:, None, :, None], 0.0, torch.nan)
    actual = with_gradients(
        lambda *qkv: attend(*qkv, pattern, key_mask=mask, backend="blockwise"),
        *(q, k + poison, v + poison),
        upstream=upstream,
    )
    assert_same(actual, wanted)


LAYOUTS = {
    "packed_projection": lambda tensor: torch.cat([tensor, tensor + 1, tensor - 1], -1)[..., : tensor.shape[-1]],
    "heads_last": lambda tensor: tensor.transpose(1, 2).contiguous().transpose(1, 2),
    "dims_first": lambda tensor: tensor.mT.contiguous().mT,
    "every_other": lambda tensor: tensor.repeat_interleave(2, 2)[:, :, ::2],
    "inside_a_longer_one": lambda tensor: torch.cat([tensor + 1, tensor, tensor - 1], 2)[
        :, :, tensor.shape[2] : 2 * tensor.shape[2]
    ],
    "reversed_heads": lambda tensor: tensor.flip(1).contiguous().flip(1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("name", ["window", "window_and_first", "big_bird"])
def test_views_that_need_no_padding_are_read_right(monkeypatch, name, heads, layout):
    """256 positions are whole tiles: the inputs are then read where they lie, whatever their strides."""
    monkeypatch.setattr(_pieces, "WINDOW_SCORES", 0)
    n, view = 256, LAYOUTS[layout]
    q, k, v, upstream = inputs(n, n, heads, 1)
    pattern = PATTERNS[name]
    wanted = with_gradients(masked_softmax(pattern, n, n, 0, heads, None), q, k, v, upstream=upstream)
    actual = with_gradients(
        lambda *qkv: attend(*qkv, pattern, backend="blockwise"), *map(view, (q, k, v)), upstream=view(upstream)
    )
    assert_same(actual, wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["window", "window_and_first", "big_bird"])
def test_low_precision_is_summed_up_in_single_precision(cut, name, dtype):
    n = 256
    low = [tensor.to(dtype) for tensor in inputs(n, n)]
    *wide, wide_upstream = (tensor.double() for tensor in low)
    wanted = with_gradients(masked_softmax(PATTERNS[name], n, n, 0, H, None), *wide, upstream=wide_upstream)
    actual = with_gradients(lambda *qkv: attend(*qkv, PATTERNS[name], backend="blockwise"), *low[:3], upstream=low[3])
    for one, other in zip(actual, wanted, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), other, rtol=4 * torch.finfo(dtype).eps, atol=1e-4)


@pytest.mark.parametrize("name", ["window", "window_and_first", "big_bird_heads", "causal"])
def test_pieces_drop_different_weights(cut, name):
    n = 256
    q, k, _, _ = inputs(n, n)
    identity = torch.eye(n, dtype=torch.float64).expand(B, G, n, n)
    weights = attend(q, k, identity, PATTERNS[name], backend="blockwise")
    torch.manual_seed(2)
    kept = attend(q, k, identity, PATTERNS[name], dropout=0.5, backend="blockwise") != 0
    seen = weights > 0
    for step in (64, 128):
        pairs = {
            "query tiles": (kept[:, :, step:] == kept[:, :, :-step])[seen[:, :, step:] & seen[:, :, :-step]],
            "along the diagonal": (kept[:, :, step:, step:] == kept[:, :, :-step, :-step])[
                seen[:, :, step:, step:] & seen[:, :, :-step, :-step]
            ],
        }
        for where, same in pairs.items():
            if len(same) > 100:
                assert abs(float(same.double().mean()) - 0.5) < 5 * 0.5 / len(same) ** 0.5, where
    for axis, same in {"examples": kept[0] == kept[1], "heads": kept[:, 0] == kept[:, 1]}.items():
        both = (seen[0] & seen[1]) if axis == "examples" else (seen[:, 0] & seen[:, 1])
        assert abs(float(same[both].double().mean()) - 0.5) < 5 * 0.5 / int(both.sum()) ** 0.5, axis


@pytest.mark.parametrize("name", ["window", "window_and_first", "big_bird_heads"])
def test_pieces_drop_the_same_weights_forward_and_backward(cut, name):
    """The gradient for the values under the seed of the forward pass is the transpose of its weights."""
    n = 200
    q, k, _, upstream = inputs(n, n, heads=2, groups=2)
    identity = torch.eye(n, dtype=torch.float64).expand(B, 2, n, n)
    torch.manual_seed(2)
    weights = attend(q, k, identity, PATTERNS[name], dropout=0.5, backend="blockwise")
    torch.manual_seed(2)
    v = torch.zeros(B, 2, n, E, dtype=torch.float64, requires_grad=True)
    attend(q, k, v, PATTERNS[name], dropout=0.5, backend="blockwise").backward(upstream)
    torch.testing.assert_close(v.grad, weights.mT @ upstream, rtol=0, atol=1e-11)
