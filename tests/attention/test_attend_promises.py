"""What `attend` promises besides the right numbers: of empty rows, hidden keys, padding, steps, views and memory."""

import pytest
import torch
from attend_cases import (
    BACKENDS,
    PATTERNS,
    B,
    E,
    G,
    H,
    allowed,
    assert_same,
    expected,
    got,
    key_mask,
    random_inputs,
    with_gradients,
)

import oracles
from saccade import Full, Global, Local, Random, Strided, attend

EMPTY = {
    "all_hidden": (Full(), 11, 11, 0, "empty"),
    "all_hidden_window": (Local(3) | Global(1), 67, 67, 0, "empty"),
    "out_of_reach": (Local(2), 13, 5, 20, "none"),
    "partly_out_of_reach": (Local(2), 90, 70, 30, "right"),
    "nothing_chosen": (Global(positions=(500,), rows=False), 66, 66, 0, "none"),
    "strides_missed": (Strided(5) & Local(4, 0) & Global(positions=(3, 10), rows=False), 31, 31, 0, "none"),
    "no_keys": (Full(), 5, 0, 0, "none"),
    "first_block_of_causal_draws": (Random(2, block=16, causal=True), 67, 67, 0, "none"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", EMPTY)
def test_queries_that_see_nothing_get_zeros_and_zero_gradient(name, backend):
    pattern, n_q, n_k, q_start, mask_kind = EMPTY[name]
    q, k, v, upstream = random_inputs(n_q, n_k)
    mask = key_mask(mask_kind, B, n_k)
    out, dq, dk, dv = with_gradients(
        lambda *qkv: attend(*qkv, pattern, key_mask=mask, q_start=q_start, backend=backend),
        *(q, k, v),
        upstream=1e6 * upstream,
    )
    seen = allowed(pattern, n_q, n_k, q_start, H, mask).expand(B, H, n_q, n_k)
    empty = ~seen.any(-1)
    assert empty.any()
    assert not out[empty].any()
    assert not dq[empty].any()
    unseen = ~seen.unflatten(1, (G, H // G)).any(3).any(2)
    assert not dk[unseen].any()
    assert not dv[unseen].any()
    assert all(tensor.isfinite().all() for tensor in (out, dq, dk, dv))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mask_kind", ["right", "left", "holes", "empty"])
@pytest.mark.parametrize("name", ["full", "window_global", "big_bird"])
def test_nothing_behind_the_key_mask_reaches_outputs_or_gradients(name, mask_kind, backend):
    n = 70
    q, k, v, upstream = random_inputs(n, n)
    mask = key_mask(mask_kind, B, n)
    hidden = ~mask[:, None, :, None]
    poison = torch.tensor([torch.nan, torch.inf, -torch.inf], dtype=torch.float64)[torch.arange(n) % 3, None]

    def run(k, v):
        return with_gradients(
            lambda q, k, v: attend(q, k, v, PATTERNS[name], key_mask=mask, backend=backend),
            *(q, k, v),
            upstream=upstream,
        )

    clean, poisoned = run(k, v), run(torch.where(hidden, poison, k), torch.where(hidden, poison, v))
    for one, other in zip(clean, poisoned, strict=True):
        assert torch.equal(one, other)
    for gradient in poisoned[2:]:
        assert not gradient.masked_select(hidden.expand_as(gradient)).any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["full", "causal", "window_global", "last", "big_bird", "three"])
def test_more_padding_on_the_right_changes_nothing(name, backend):
    n, more = 53, 40
    q, k, v, _ = random_inputs(n + more, n + more)
    real = torch.ones(B, n, dtype=torch.bool)
    padded_mask = torch.cat([real, torch.zeros(B, more, dtype=torch.bool)], 1)
    short = attend(*(t[:, :, :n] for t in (q, k, v)), PATTERNS[name], key_mask=real, backend=backend)
    long = attend(q, k, v, PATTERNS[name], key_mask=padded_mask, backend=backend)
    torch.testing.assert_close(long[:, :, :n], short, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["causal", "window_global", "big_bird_heads", "last", "three", "random_window"])
def test_a_step_at_a_time_equals_the_whole(name, backend):
    n, pattern = 45, PATTERNS[name].causal()
    q, k, v, _ = random_inputs(n, n)
    whole = attend(q, k, v, pattern, backend=backend)
    for i in (0, 1, 7, 16, 31, 44):
        step = attend(q[:, :, i : i + 1], k[:, :, : i + 1], v[:, :, : i + 1], pattern, q_start=i, backend=backend)
        torch.testing.assert_close(step, whole[:, :, i : i + 1], rtol=0, atol=1e-12)


def strided_view(tensor, kind):
    if kind == "heads_last":
        return tensor.transpose(1, 2).contiguous().transpose(1, 2)
    if kind == "dims_first":
        return tensor.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)
    if kind == "every_other":
        return tensor.repeat_interleave(2, 2)[:, :, ::2]
    return torch.cat([tensor, tensor], -1)[..., : tensor.shape[-1]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["heads_last", "dims_first", "every_other", "wide_rows"])
@pytest.mark.parametrize("name", ["full", "window_global", "big_bird"])
def test_views_work_like_contiguous_tensors(name, kind, backend):
    n = 71
    q, k, v, upstream = random_inputs(n, n)
    views = [strided_view(tensor, kind) for tensor in (q, k, v)]
    assert not any(view.is_contiguous() for view in views)
    leaves = [view.requires_grad_() for view in views]
    out = attend(*leaves, PATTERNS[name], backend=backend)
    gradients = torch.autograd.grad(out, leaves, strided_view(upstream, kind))
    assert_same((out.detach(), *gradients), expected(PATTERNS[name], n, n, 0, H, G, "none"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_expanded_inputs_and_upstream_work(backend):
    q, k, v, upstream = random_inputs(67, 67, batch=1, groups=1)
    seen = allowed(PATTERNS["window_global"], 67, 67, 0, H, None)
    leaves = [tensor.requires_grad_() for tensor in (q, k, v)]

    def gradients(function, upstream):
        q, k, v = leaves
        out = function(q.expand(3, -1, -1, -1), k.expand(3, 2, -1, -1), v.expand(3, 2, -1, -1))
        return out.detach(), *torch.autograd.grad(out, leaves, upstream)

    one = upstream[:, :1, :1].expand(3, H, 67, E)
    wanted = gradients(lambda q, k, v: oracles.attention(q, k, v, seen), one)
    actual = gradients(lambda q, k, v: attend(q, k, v, PATTERNS["window_global"], backend=backend), one)
    assert_same(actual, wanted)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["full", "window_global", "big_bird"])
def test_inputs_are_left_as_they_were(name, backend):
    q, k, v, upstream = random_inputs(70, 70)
    mask = key_mask("right", B, 70)
    given_tensors = [q, k, v, mask, upstream]
    copies = [tensor.clone() for tensor in given_tensors]
    for tensor in (q, k, v):
        tensor.requires_grad_()
    versions = [tensor._version for tensor in given_tensors]
    attend(q, k, v, PATTERNS[name], key_mask=mask, backend=backend).backward(upstream)
    assert versions == [tensor._version for tensor in given_tensors]
    assert all(torch.equal(one, other) for one, other in zip(given_tensors, copies, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["full", "window_global", "big_bird_heads"])
def test_calls_share_no_memory(name, backend):
    """A result must not be a view of a workspace that the next call writes into."""
    q, k, v, upstream = random_inputs(70, 70)
    first = got(PATTERNS[name], 70, 70, 0, H, G, "none", backend)
    copies = [tensor.clone() for tensor in first]
    with_gradients(
        lambda q, k, v: attend(q, k, v, PATTERNS[name], backend=backend), q + 1, k - 1, v * 3, upstream=upstream
    )
    assert all(torch.equal(one, other) for one, other in zip(first, copies, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["window_global", "big_bird"])
def test_backward_of_an_earlier_call_after_a_later_one(name, backend):
    q, k, v, upstream = random_inputs(70, 70)
    leaves = [tensor.requires_grad_() for tensor in (q, k, v)]
    first = attend(*leaves, PATTERNS[name], backend=backend)
    attend(q * 2, k * 2, v * 2, PATTERNS[name], backend=backend).sum().backward()
    gradients = torch.autograd.grad(first, leaves, upstream)
    assert_same((first.detach(), *gradients), expected(PATTERNS[name], 70, 70, 0, H, G, "none"))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["full", "window_global", "big_bird", "strided"])
@pytest.mark.parametrize(
    ("batch", "n_q", "n_k", "dim", "value_dim"),
    [(0, 5, 5, 3, 2), (2, 0, 5, 3, 2), (2, 5, 0, 3, 2), (2, 0, 0, 3, 2), (2, 5, 5, 3, 0), (1, 1, 1, 1, 1)],
    ids=str,
)
def test_empty_axes_give_empty_or_zero_results(name, batch, n_q, n_k, dim, value_dim, backend):
    q, k, v, upstream = random_inputs(n_q, n_k, 4, 2, batch, dim, value_dim)
    mask = torch.ones(batch, n_k, dtype=torch.bool)
    actual = with_gradients(
        lambda q, k, v: attend(q, k, v, PATTERNS[name], key_mask=mask, backend=backend), q, k, v, upstream=upstream
    )
    seen = allowed(PATTERNS[name], n_q, n_k, 0, 4, mask)
    wanted = with_gradients(lambda q, k, v: oracles.attention(q, k, v, seen), q, k, v, upstream=upstream)
    assert_same(actual, wanted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_example_alone_equals_the_same_example_in_a_batch(backend):
    q, k, v, _ = random_inputs(67, 67, batch=3)
    mask = key_mask("right", 3, 67)
    for name in ("last", "big_bird", "window_global"):
        together = attend(q, k, v, PATTERNS[name], key_mask=mask, backend=backend)
        for example in range(3):
            one = slice(example, example + 1)
            alone = attend(q[one], k[one], v[one], PATTERNS[name], key_mask=mask[one], backend=backend)
            torch.testing.assert_close(together[one], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_does_not_reach_inside(backend):
    q, k, v, _ = random_inputs(70, 70, dtype=torch.float32)
    plain = attend(q, k, v, PATTERNS["window_global"], backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        cast = attend(q, k, v, PATTERNS["window_global"], backend=backend)
    assert torch.equal(plain, cast)


@pytest.mark.parametrize("backend", BACKENDS)
def test_inference_mode_works(backend):
    with torch.inference_mode():
        q, k, v, _ = random_inputs(63, 63)
        out = attend(q, k, v, PATTERNS["window_global"], backend=backend)
    torch.testing.assert_close(
        out.clone(), expected(PATTERNS["window_global"], 63, 63, 0, H, G, "none")[0], rtol=0, atol=1e-12
    )
