"""Compressed attention against the sums of its paper; causality by groups; and what others get wrong."""

import pytest
import torch
from compressed_cases import either_way, specs
from low_rank_cases import all_gradients, assert_all_same, layer_of, mask_of, run
from mechanism_cases import B, D, E, G, H, inputs

import oracles
from oracles_low_rank import compressed
from saccade.attention import MECHANISMS
from saccade.attention.weights import implied_weights


def taps(weight, dim):
    """A weight of `Conv1d` [o i t] as the oracle reads it: [taps, heads, channel, heads, channel]."""
    out, width, kernel = weight.shape
    dense = weight.new_zeros(kernel, out // dim, dim, out // dim, dim)
    for o in range(out):
        for i in range(width):
            source = o // width * width + i
            dense[:, source // dim, source % dim, o // dim, o % dim] += weight[o, i]
    return dense


def by_the_paper(layer, **options):
    """The oracle, as a function of inputs and parameters."""

    def plain(q, k, v, named):
        weights = taps(named["key_weight"], D), taps(named["value_weight"], E)
        return compressed(q, k, v, *weights, layer.spec.stride, named.get("null_key"), **options)

    return plain


def both_ways(layer, tensors, upstream, **options):
    parameters = dict(layer.named_parameters())
    actual = all_gradients(lambda *x: run(layer, *x, **options), tensors, parameters, upstream)
    return actual, all_gradients(by_the_paper(layer, **options), tensors, parameters, upstream)


@specs
@pytest.mark.parametrize("mask", ["none", "right", "left", "holes", "empty"])
@either_way
def test_it_equals_the_sums_of_the_paper(spec, mask, causal):
    *tensors, upstream = inputs(13, 13)
    assert_all_same(*both_ways(layer_of(spec), tensors, upstream, key_mask=mask_of(mask), causal=causal))


@specs
@pytest.mark.parametrize(("n_q", "q_start"), [(4, 9), (1, 12), (7, 3), (5, 20), (20, 2), (17, 0), (1, 0)], ids=str)
@pytest.mark.parametrize("mask", ["none", "holes"])
def test_queries_stand_where_they_are_said_to(spec, n_q, q_start, mask):
    *tensors, upstream = inputs(n_q, 13)
    options = {"key_mask": mask_of(mask), "causal": True, "q_start": q_start}
    assert_all_same(*both_ways(layer_of(spec), tensors, upstream, **options))


@specs
@either_way
@pytest.mark.parametrize("n", [1, 2, 3, 21])
def test_any_length_works(spec, causal, n):
    *tensors, upstream = inputs(n, n)
    assert_all_same(*both_ways(layer_of(spec), tensors, upstream, causal=causal))


def test_a_convolution_is_that_of_torch():
    n = 31
    _, k, v, _ = inputs(n, n)
    for spec in ("compressed", "compressed(groups=1, kernel=4)"):
        layer = layer_of(spec)
        count, groups = 9, 1 if "groups" in spec else G
        for weight, x in ((layer.key_weight, k), (layer.value_weight, v)):
            flat = x.transpose(2, 3).flatten(1, 2)
            wanted = torch.nn.functional.conv1d(flat, weight, stride=3, groups=groups)[:, :, :count]
            found = layer._compress(k, v, None, count)[0 if x is k else 1]
            torch.testing.assert_close(found.transpose(2, 3).flatten(1, 2), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mask", ["none", "right", "holes"])
@pytest.mark.parametrize("groups", ["'heads'", 1])
@either_way
def test_with_stride_one_and_the_identity_it_is_dense_attention(mask, groups, causal):
    q, k, v, upstream = inputs(13, 13)
    layer = layer_of(f"compressed(stride=1, groups={groups}, null=False)")
    with torch.no_grad():
        for weight in (layer.key_weight, layer.value_weight):
            each = torch.eye(weight.shape[1], dtype=weight.dtype)
            weight.copy_(each.repeat(len(weight) // len(each), 1)[..., None])
    seen, key_mask = oracles.dense(oracles.causal() if causal else oracles.full(), 13, 13), mask_of(mask)
    seen = seen if key_mask is None else seen & key_mask[:, None, None]
    wanted = all_gradients(lambda q, k, v, _: oracles.attention(q, k, v, seen), (q, k, v), {}, upstream)
    actual = all_gradients(lambda q, k, v, _: layer(q, k, v, key_mask, causal), (q, k, v), {}, upstream)
    assert_all_same(actual, wanted)


@specs
def test_only_finished_groups_are_seen(spec):
    """Which token reaches which query: those of groups whose last tap stands at or before it."""
    n, layer = 26, layer_of(spec)
    stride, kernel = layer.spec.stride, layer.spec.taps
    q, k, v, _ = inputs(n, n, batch=1)
    weights = implied_weights(layer, {"q": q, "k": k, "v": v}, causal=True)
    position = torch.arange(n)
    last = torch.div(position - kernel + 1, stride, rounding_mode="floor") * stride + kernel - 1
    last = last.masked_fill(position < kernel - 1, -1)
    assert torch.equal((weights > 0)[0].any(0), position[None] <= last[:, None])
    seen, null = weights.sum(-1)[..., kernel - 1 :], layer.null_key is not None
    assert (seen < 1).all() if null else stride < kernel or torch.allclose(seen, torch.ones_like(seen))


def test_the_first_queries_see_the_null_key_and_get_zeros():
    q, k, v, upstream = inputs(13, 13)
    layer = layer_of("compressed")
    found = all_gradients(lambda *x: run(layer, *x, causal=True), (q, k, v), dict(layer.named_parameters()), upstream)
    assert not found["out"][:, :, :2].any()
    assert not found["q"][:, :, :2].any()
    assert found["null_key"].any()
    without = layer_of("compressed(null=False)")(q, k, v, causal=True)
    assert not without[:, :, :2].any()
    assert not torch.allclose(without[:, :, 2:], found["out"][:, :, 2:])


def test_an_all_true_mask_is_no_mask_and_outputs_depend_on_the_input():
    """Known defect of a peer (reference 2B): it hides what the mask shows, so that only the null key is left."""
    q, k, v, _ = inputs(13, 13)
    layer = layer_of("compressed")
    out = layer(q, k, v, torch.ones(B, 13, dtype=torch.bool))
    assert torch.equal(out, layer(q, k, v))
    assert not torch.allclose(out, layer(q, k + 1, v))
    assert not torch.allclose(out, layer(q, k, v + 1))


@either_way
def test_a_group_with_padding_holds_its_real_tokens_and_no_more(causal):
    """Known defect of peers: what stands behind the mask gets into the last group."""
    n, real = 13, 7  # two groups, and one token of the third
    q, k, v, _ = inputs(n, n)
    layer, key_mask = layer_of("compressed"), (torch.arange(n) < real).expand(B, n)
    padded = layer(q, k, v, key_mask, causal)[:, :, :real]
    alone = layer(q[:, :, :real], k[:, :, :real], v[:, :, :real], causal=causal)
    torch.testing.assert_close(padded, alone, rtol=0, atol=1e-12)
    weights = implied_weights(layer, {"q": q, "k": k, "v": v}, key_mask=key_mask, causal=causal)
    assert not weights[..., real:].any()
    assert weights[:, :, :real, real - 1].any() == (not causal)


@either_way
def test_left_padding_does_not_leak(causal):
    """Known defect of a peer: it pads on the left to whole groups, and its padding is seen."""
    q, k, v, _ = inputs(13, 13)
    layer, key_mask = layer_of("compressed"), mask_of("left")
    before = layer(q, k, v, key_mask, causal)
    for value in (1e6, torch.nan):
        hidden = ~key_mask[:, None, :, None]
        assert torch.equal(
            layer(q, k.masked_fill(hidden, value), v.masked_fill(hidden, value), key_mask, causal), before
        )
    # Whole groups of padding in front change nothing but places.
    shift = 6
    whole = torch.arange(13) >= torch.tensor([[shift], [shift]])
    moved = layer(q, k, v, whole, causal)[:, :, shift:]
    torch.testing.assert_close(moved, layer(*(x[:, :, shift:] for x in (q, k, v)), causal=causal), rtol=0, atol=1e-12)


@either_way
def test_scores_are_scaled_by_the_head_dim(causal):
    """Known defect of a peer: by the width of the model."""
    q, k, v, _ = inputs(12, 12)
    layer = layer_of("compressed(stride=4, null=False)")
    keys, values, _ = layer._compress(k, v, None, 3)
    seen = torch.arange(12)[:, None] >= 4 * torch.arange(3) + 3 if causal else torch.ones(12, 3, dtype=torch.bool)
    torch.testing.assert_close(
        layer(q, k, v, causal=causal), oracles.attention(q, keys, values, seen), rtol=0, atol=1e-12
    )


@specs
def test_outputs_are_linear_in_the_values(spec):
    q, k, v, _ = inputs(13, 13)
    layer = layer_of(spec)
    for causal in (False, True):
        one, other = (layer(q, k, x, causal=causal) for x in (v, v.flip(2)))
        both = layer(q, k, 3 * v - v.flip(2), causal=causal)
        torch.testing.assert_close(both, 3 * one - other, rtol=0, atol=1e-12)


@specs
def test_its_weights_are_those_of_groups_shared_by_their_tokens(spec):
    q, k, v, _ = inputs(13, 13)
    layer = layer_of(spec)
    before, weights = layer(q, k, v), implied_weights(layer, {"q": q, "k": k, "v": v})
    count = layer.spec.count(13, None)
    keys = layer._with_null(*layer._compress(k, v, None, count))[0]
    of_groups = oracles.attention(
        q,
        keys,
        torch.eye(keys.shape[2], dtype=q.dtype).expand(B, G, -1, -1),
        oracles.dense(oracles.full(), 13, keys.shape[2]),
    )[..., keys.shape[2] - count :]
    start = layer.spec.stride * torch.arange(count)[:, None]
    covered = (torch.arange(13) >= start) & (torch.arange(13) < start + layer.spec.taps)
    torch.testing.assert_close(weights, of_groups @ covered.double() / layer.spec.taps, rtol=0, atol=1e-12)
    assert torch.equal(layer(q, k, v), before)


@specs
@either_way
def test_where_all_keys_are_hidden_there_are_zeros_and_no_gradient(spec, causal):
    q, k, v, upstream = inputs(33, 33)
    layer, hidden = layer_of(spec), torch.zeros(B, 33, dtype=torch.bool)
    options = {"key_mask": hidden, "causal": causal}
    found = all_gradients(lambda *x: run(layer, *x, **options), (q, k, v), dict(layer.named_parameters()), upstream)
    assert not any(each.any() for each in found.values())


@pytest.mark.parametrize("spec", ["compressed", "compressed(stride=2, kernel=4, null=False)"])
@either_way
@pytest.mark.parametrize(("batch", "n_q", "n_k"), [(B, 0, 0), (B, 0, 5), (B, 5, 0), (0, 5, 5)], ids=str)
def test_nothing_gives_nothing(spec, causal, batch, n_q, n_k):
    q, k, v, upstream = inputs(n_q, n_k, batch=batch)
    layer = layer_of(spec)
    found = all_gradients(lambda *x: run(layer, *x, causal=causal), (q, k, v), dict(layer.named_parameters()), upstream)
    assert found["out"].shape == upstream.shape
    assert not any(each.any() for each in found.values())


@pytest.mark.parametrize("groups", ["heads", 1])
def test_heads_keep_apart_or_mix(groups):
    q, k, v, _ = inputs(13, 13, groups=H)
    changed = k.clone()
    changed[:, 0] += 1
    layer = MECHANISMS["compressed"](groups=groups).build(H, D, value_dim=E).double()
    same = (layer(q, k, v) == layer(q, changed, v)).all(-1).all(-1).all(0)
    assert same.tolist() == [False] + [groups == "heads"] * (H - 1)
