"""Compressed attention against the sums of its paper; causality by groups; and what others get wrong."""

import copy

import pytest
import torch
from low_rank_cases import all_gradients, assert_all_same, layer_of, mask_of, run
from mechanism_cases import B, D, E, G, H, build, inputs
from streaming_cases import decode, tokens
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import oracles
from oracles_low_rank import compressed
from saccade.attention import MECHANISMS, attend, to_mechanism
from saccade.attention.patterns import Full
from saccade.attention.weights import implied_weights

SPECS = {
    "default": "compressed",
    "no_null": "compressed(null=False)",
    "overlapping": "compressed(stride=2, kernel=5, groups=1)",
    "overlapping_no_null": "compressed(stride=3, kernel=4, null=False)",
    "each": "compressed(stride=1)",
    "long": "compressed(stride=20)",
}
specs = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
either_way = pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])


class Largest(TorchDispatchMode):
    """Inside this context, `bytes` is the size of the largest memory that an operation gives back."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        found = [x.untyped_storage().nbytes() for x in tree_leaves(result) if isinstance(x, Tensor)]
        self.bytes = max([self.bytes, *found])
        return result


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


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 7, 20])
@specs
def test_steps_equal_the_whole_from_any_cut(spec, cut):
    q, k, v = tokens(24)
    layer, key_mask = layer_of(spec), torch.arange(24) % 5 != torch.tensor([[1], [3]])
    for mask in (None, key_mask):
        before = [None if mask is None else mask[:, :cut], None if mask is None else mask[:, cut:]]
        out, state = layer.prefill(*(x[:, :, :cut] for x in (q, k, v)), before[0])
        rest, _ = decode(layer, *(x[:, :, cut:] for x in (q, k, v)), before[1], state)
        whole = layer(q, k, v, mask, causal=True)
        torch.testing.assert_close(torch.cat([out, rest], 2), whole, rtol=0, atol=1e-12)


@specs
def test_a_state_holds_finished_groups_and_the_tokens_that_are_left(spec):
    layer, batch = layer_of(spec), 3
    stride, kernel = layer.spec.stride, layer.spec.taps
    for n in (0, 1, 2, 3, 22, 60):
        state = layer.prefill(*tokens(n, batch=batch))[1]
        groups = len(range(kernel - 1, n, stride))
        kept = groups + n - stride * groups
        assert state.key_mask.shape == (batch, groups)
        assert sum(leaf.numel() for leaf in state) == batch * kept * (G * (D + E) + 1)


def test_a_state_that_does_not_belong_is_refused(unchecked):
    layer = build(MECHANISMS["compressed"]())
    q, k, v = tokens(1, torch.float32)
    state = layer.initial_state(B)
    with pytest.raises(TypeError, match="state must be a CompressedState from initial_state, prefill or step"):
        layer.step(q, k, v, ())
    with pytest.raises(ValueError, match=r"state\.rest_keys must be of shape"):
        layer.step(q, k, v, state._replace(rest_keys=state.rest_keys[:1]))
    with pytest.raises(ValueError, match="k of a step must be one token long, got 2"):
        layer.step(q, *(x.expand(-1, -1, 2, -1) for x in (k, v)), state)


@pytest.mark.parametrize("n", [100, 700])
def test_chunks_of_work_give_what_the_whole_gives(n):
    """Under a mask the causal form goes by tiles: many of them, and still the same."""
    q, k, v, upstream = inputs(n, n)
    layer = layer_of("compressed")
    seen = torch.arange(n)[:, None] >= 3 * torch.arange(-(-n // 3)) + 2
    key_mask = (torch.arange(n) // 3) % 7 != torch.tensor([[2], [5]])

    def plain(q, k, v, named, key_mask=None):
        keys, values, shown = layer._compress(k, v, key_mask, -(-n // 3))
        keys, values, shown = layer._with_null(keys, values, shown)
        allowed = torch.nn.functional.pad(seen, (1, 0), value=True)
        allowed = allowed if shown is None else allowed & shown[:, None, None]
        return oracles.attention(q, keys, values, allowed)

    for mask in (None, key_mask):
        hidden = torch.zeros(B, n, dtype=torch.bool) if mask is None else ~mask
        clean = [q, *(x.masked_fill(hidden[:, None, :, None], 0) for x in (k, v))]
        wanted = all_gradients(lambda *x, m=mask: plain(*x, m), clean, {}, upstream)
        actual = all_gradients(lambda *x, m=mask: layer(*x[:3], m, causal=True), clean, {}, upstream)
        for name in ("k", "v"):
            wanted[name] = wanted[name].masked_fill(hidden[:, None, :, None], 0)
        assert_all_same(actual, wanted, 1e-11)


@either_way
def test_no_array_over_pairs_is_made(unchecked, causal):
    n = 3000
    q, k, _, _ = inputs(n, n, torch.float32, batch=1)
    layer, v = MECHANISMS["compressed"]().build(H, D, G), k.clone()
    key_mask = torch.arange(n)[None] % 50 > 10
    with torch.no_grad(), Largest() as seen:
        layer(q, k, v, key_mask, causal)
    assert seen.bytes < 4 * n * (n // 3) / 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@either_way
def test_low_precision_is_that_of_plain_products(dtype, causal):
    n = 600
    q, k, v, _ = inputs(n, n, dtype)
    layer = build(MECHANISMS["compressed"](null=False))
    wanted = copy.deepcopy(layer).double()(q.double(), k.double(), v.double(), causal=causal)
    keys, values = (
        torch.nn.functional.conv1d(x.transpose(2, 3).flatten(1, 2), w.to(dtype), stride=3, groups=G)
        .unflatten(1, (G, -1))
        .transpose(2, 3)
        .repeat_interleave(H // G, 1)
        for x, w in ((k, layer.key_weight), (v, layer.value_weight))
    )
    seen = torch.arange(n)[:, None] >= 3 * torch.arange(n // 3) + 2 if causal else torch.ones(n, n // 3).bool()
    plain = (q @ keys.mT / D**0.5).masked_fill(~seen, -torch.inf).softmax(-1).nan_to_num() @ values
    out = layer(q, k, v, causal=causal)
    assert out.dtype == dtype
    assert (out.double() - wanted).abs().max() <= 2 * (plain.double() - wanted).abs().max()


@either_way
def test_gradcheck(causal):
    q, k, v, _ = inputs(7, 8, batch=1)
    layer, mask = layer_of("compressed(stride=2)"), torch.arange(8)[None] != 5
    leaves = [tensor.requires_grad_() for tensor in (q, k, v)]
    assert torch.autograd.gradcheck(
        lambda *qkv: layer(*qkv, key_mask=mask, causal=causal, q_start=1), leaves, fast_mode=True
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0}, "stride must be a whole number, at least 1, got 0"),
        ({"stride": True}, "stride must be a whole number, at least 1, got True"),
        ({"stride": 2.5}, "stride must be a whole number, at least 1, got 2.5"),
        ({"stride": "a"}, "stride must be a whole number, at least 1, got 'a'"),
        ({"kernel": 2}, "kernel must be a whole number, at least the stride of 3, or None, got 2"),
        ({"kernel": "a"}, "kernel must be a whole number, .*got 'a'"),
        ({"groups": 2}, "groups must be 'heads' or 1, got 2"),
        ({"groups": True}, "groups must be 'heads' or 1, got True"),
        ({"groups": "head"}, "groups must be 'heads' or 1, got 'head'"),
        ({"null": 1}, "null must be True or False, got 1"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        MECHANISMS["compressed"](**options)


@specs
@either_way
@pytest.mark.parametrize(("n_q", "n_k"), [(13, 13), (1, 1), (5, 13), (40, 13)], ids=str)
def test_pairs_are_counted_exactly(spec, causal, n_q, n_k):
    mechanism = to_mechanism(spec)
    stride, kernel = mechanism.stride, mechanism.taps
    groups, null = -(-n_k // stride), int(mechanism.null)
    wanted = 0
    for i in range(n_q):
        finished = sum(stride * j + kernel - 1 <= i for j in range(groups)) if causal else groups
        # Queries that see nothing but the null key get zeros without being computed, but for those of the first step.
        wanted += finished + null if finished or not causal or i > mechanism.first_place - 1 else 0
    cost = mechanism.cost(n_q, n_k, H, D, value_dim=E, causal=causal)
    assert cost.pairs == H * wanted
    assert cost.computed >= cost.flops


def test_it_is_dense_attention_over_a_third_of_the_keys():
    q, k, v, _ = inputs(300, 300)
    layer = layer_of("compressed(null=False)")
    keys, values, _ = layer._compress(k, v, None, 100)
    assert torch.equal(layer(q, k, v), attend(q, keys, values, Full()))
