"""Mixtures: each part on its heads, as it would be alone."""

import logging
from dataclasses import replace

import pytest
import torch
from mechanism_cases import B, D, E, G, H, assert_same, inputs, with_gradients
from torch import nn

from saccade import Causal, Global, Local, Random
from saccade.attention import MECHANISMS, AttentionLayer, after_step, reorder, to_mechanism
from saccade.attention.mechanisms.mixed import MixedState, shares
from saccade.attention.record import Record
from saccade.attention.weights import implied_weights
from saccade.checking.stream import leaves
from saccade.nn import Encoder, MultiHeadAttention

mixed = MECHANISMS["mixed"]
PARTS = {
    "default": ("local", "linear"),
    "patterns": (Local(3) | Global(2), Causal()),
    "scores": ("full(weights='relu')", "full(score='cosine')"),
    "same": ("big_bird(block=4, random_blocks=1)", "big_bird(block=4, random_blocks=1)"),
    "nested": ("mixed([(local(left=2), 1), (full, 1)])", "local(left=4)"),
}


def mixture(name):
    """Four of the heads, on two key heads, and two on one."""
    first, second = PARTS[name]
    return mixed([(first, 4), (second, 2)])


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize("masked", [False, True], ids=["all", "holes"])
def test_each_part_does_on_its_heads_what_it_does_alone(name, causal, masked):
    n = 33
    q, k, v, upstream = inputs(n, n)
    options = {"key_mask": torch.arange(n) % 7 != torch.tensor([[3], [5]]) if masked else None, "causal": causal}
    whole = mixture(name).build(H, D, G, E, layer=2)
    first = to_mechanism(PARTS[name][0]).build(4, D, 2, E, layer=2)
    second = to_mechanism(PARTS[name][1]).build(2, D, 1, E, layer=2 + 4 * 2**16)

    def alone(q, k, v):
        left = first(q[:, :4], k[:, :2], v[:, :2], **options)
        return torch.cat([left, second(q[:, 4:], k[:, 2:], v[:, 2:], **options)], 1)

    wanted = with_gradients(alone, q, k, v, upstream=upstream)
    assert_same(with_gradients(lambda *qkv: whole(*qkv, **options), q, k, v, upstream=upstream), wanted)


def test_parts_of_one_kind_draw_differently():
    layer = mixed([("big_bird(block=4)", 1), ("big_bird(block=4)", 1)]).build(2, D)
    first, second = (part.pattern for part in layer.parts)
    assert first == MECHANISMS["big_bird"](block=4).build(1, D).pattern
    assert first != second
    other = mixed([("big_bird(block=4)", 1), ("big_bird(block=4)", 1)]).build(2, D, layer=1)
    assert len({first, second, *(part.pattern for part in other.parts)}) == 4


@pytest.mark.parametrize("name", PARTS)
def test_steps_from_any_state_equal_the_whole(name):
    n, cut = 20, 13
    q, k, v, _ = inputs(n, n)
    layer = mixture(name).build(H, D, G, E)
    whole = layer(q, k, v, causal=True)
    out, state = layer.prefill(q[:, :, :cut], k[:, :, :cut], v[:, :, :cut])
    torch.testing.assert_close(out, whole[:, :, :cut], rtol=0, atol=1e-12)
    empty = layer.initial_state(B, torch.float64)
    assert isinstance(state, MixedState)
    assert [leaf.dtype for leaf in leaves(state)] == [leaf.dtype for leaf in leaves(empty)]
    order = torch.tensor([1, 0, 1])
    before, moved = [leaf.clone() for leaf in leaves(state)], reorder(state, order)
    for i in range(cut, n):
        step = [x[:, :, i, None] for x in (q, k, v)]
        out, state = layer.step(*step, state)
        other, moved = layer.step(*(x[order] for x in step), moved)
        torch.testing.assert_close(out, whole[:, :, i, None], rtol=0, atol=1e-12)
        torch.testing.assert_close(other, out[order], rtol=0, atol=1e-12)
    _, again = layer.prefill(q[:, :, :cut], k[:, :, :cut], v[:, :, :cut])
    assert all(torch.equal(one, two) for one, two in zip(before, leaves(again), strict=True))
    first, _ = layer.step(*(x[:, :, :1] for x in (q, k, v)), empty)
    torch.testing.assert_close(first, whole[:, :, :1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("counts", "heads", "kv_heads", "wanted"),
    [
        ((4, 4), 8, 8, (4, 4)),
        ((4, 4), 8, 2, (4, 4)),
        ((6, 2), 8, 4, (6, 2)),
        ((4, 4), 16, 16, (8, 8)),
        ((4, 4), 2, 2, (1, 1)),
        ((4, 4), 3, 3, (2, 1)),
        ((4, 4), 1, 1, (1, 0)),
        ((4, 4), 6, 3, (4, 2)),
        ((7, 1), 4, 4, (3, 1)),
        ((1, 1, 1), 2, 2, (1, 1, 0)),
        ((3, 2, 1), 12, 12, (6, 4, 2)),
        ((100, 1), 3, 3, (2, 1)),
        ((3,), 5, 1, (5,)),
    ],
    ids=str,
)
def test_heads_are_shared_out(counts, heads, kv_heads, wanted):
    assert shares(counts, heads, kv_heads) == wanted
    layer = mixed([("full", count) for count in counts]).build(heads, D, kv_heads)
    assert layer.heads == tuple(each for each in wanted if each)
    assert sum(layer.kv_heads) == kv_heads


def test_shares_that_are_not_the_counts_are_logged(caplog):
    with caplog.at_level(logging.INFO, "saccade"):
        mixed().build(8, D)
        assert not caplog.records
        mixed().build(3, D)
    assert "of 3 heads the parts get [2, 1]" in caplog.text


@pytest.mark.parametrize(
    ("heads", "kv_heads", "message"),
    [
        (8, 1, r"parts must be of whole key heads, 8 heads each, got \(4, 4\)"),
        (16, 1, "kv_heads must be at least 2, one for each part, got 1"),
        (0, None, "heads must be at least 1, got 0"),
        (8, 3, "kv_heads must be a divisor of the 8 heads, got 3"),
    ],
    ids=str,
)
def test_heads_that_cannot_be_shared_out_are_refused(heads, kv_heads, message):
    for call in (mixed().build, lambda *sizes: mixed().cost(9, 9, *sizes)):
        with pytest.raises(ValueError, match=message):
            call(heads, D, kv_heads)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((), r"parts must be pairs of a mechanism and a number of heads, got \(\)"),
        ("local", "parts must be pairs of a mechanism and a number of heads, got 'local'"),
        (("local", 4), "each of parts must be a mechanism and a number of heads, got 'local'"),
        ((("local",),), r"each of parts must be a mechanism and a number of heads, got \('local',\)"),
        ((("local", 0),), "heads of a part must be a whole number, at least 1, got 0"),
        ((("local", 1.5),), "heads of a part must be a whole number, at least 1, got 1.5"),
        ((("local", True),), "heads of a part must be a whole number, at least 1, got True"),
        ((("locl", 1),), "mechanism must be one of .*got 'locl' .*did you mean 'local'"),
        (((3, 1),), "mechanism must be a name, an expression, a pattern or a spec, got 3"),
    ],
    ids=str,
)
def test_what_is_no_mixture_is_refused(unchecked, parts, message):
    with pytest.raises(ValueError, match=message):
        mixed(parts)


def test_the_spec_is_the_same_however_its_parts_are_written():
    spec = mixed([("local(left=3)", 2), (Local(3) | Global(2), 1)])
    assert spec == mixed(((MECHANISMS["local"](3), 2), ("Local(3) | Global(2)", 1)))
    assert repr(spec) == "mixed(parts=((local(left=3), 2), (Local(3) | Global(2), 1)))"
    assert repr(mixed([("local", 4), ("linear", 4)])) == "mixed"
    for text in (repr(spec), "mixed([('local(left=3)', 2), [Local(3) | Global(2), 1]])"):
        assert to_mechanism(text) == spec
        assert hash(to_mechanism(text)) == hash(spec)


def test_claims_are_the_conjunction():
    assert mixed([("full", 1), ("Local(3)", 1)]).claims.exact
    assert not mixed([("full", 1), ("linear", 1)]).claims.exact
    assert not mixed([("full", 1), ("full(weights='relu')", 1)]).claims.normalised
    assert mixed([("full", 1), ("linear", 1)]).claims.unordered
    sizes = [("linear", "O(1)"), ("local", "O(window)"), ("full", "O(n)")]
    for i, (one, _) in enumerate(sizes):
        for j, (other, _) in enumerate(sizes):
            assert mixed([(one, 1), (other, 1)]).claims.state_size == sizes[max(i, j)][1]


def test_cost_is_the_sum_of_the_parts():
    whole = mixed([("local", 4), ("linear", 2)]).cost(300, 300, 6, D, 3, E, causal=True)
    parts = [to_mechanism(name).cost(300, 300, h, D, g, E, True) for name, h, g in (("local", 4, 2), ("linear", 2, 1))]
    for name in ("flops", "pairs", "bytes", "wasted", "kept"):
        assert getattr(whole, name) == sum(getattr(part, name) for part in parts)


class Shared(AttentionLayer):
    """Means of the values, for a mechanism without keys; tells a loss, and counts calls of `after_step`."""

    steps = 0

    def forward(self, q, k, v, key_mask=None, causal=False, q_start=0, record=None):
        assert k is None
        if record is not None:
            record.add("losses", q.square().mean())
        means = v.mean(2, keepdim=True).repeat_interleave(q.shape[1] // v.shape[1], 1)
        return means.expand(*q.shape[:3], -1)

    def after_step(self):
        self.steps += 1


def shared_spec(**claims):
    """A stand-in: `local`, but for its layer, inputs and claims."""
    kind = MECHANISMS["local"]

    class SharedSpec(kind):
        inputs = ("q", "v")

        @property
        def claims(self):
            return replace(super().claims, shared_qk=True, **claims)

        def build(self, *sizes):
            return Shared()

    return SharedSpec()


def test_a_part_that_reads_no_keys_gets_none():
    q, k, v, _ = inputs(9, 9)
    both = mixed([(shared_spec(), 4), ("full", 2)])
    assert both.inputs == ("q", "k", "v")
    assert not both.claims.shared_qk
    out = both.build(H, D, G, E)(q, k, v)
    torch.testing.assert_close(out[:, 4:], MECHANISMS["full"]().build(2, D, 1, E)(q[:, 4:], k[:, 2:], v[:, 2:]))
    alone = mixed([(shared_spec(), 4), (shared_spec(), 2)])
    assert alone.inputs == ("q", "v")
    assert alone.claims.shared_qk
    layer = alone.build(H, D, G, E)
    assert torch.equal(layer(q, None, v), layer(q, k, v))


def test_a_part_that_does_not_stream_makes_a_mixture_that_does_not():
    spec = mixed([(shared_spec(streaming=False, state_size=""), 4), ("full", 2)])
    assert not spec.claims.streaming
    assert spec.claims.state_size == ""
    with pytest.raises(NotImplementedError, match="does not claim streaming"):
        spec.build(H, D, G, E).initial_state(1)


def test_steps_losses_and_weights_reach_the_parts():
    attention = MultiHeadAttention(12, 6, mixed([(shared_spec(), 2), ("linear", 4)]))
    x = torch.randn(2, 9, 12)
    record = Record("losses", "weights")
    out = attention(x, record=record)
    assert torch.equal(attention(x), out)
    assert len(record["losses"]) == 1
    (weights,) = record["weights"]
    torch.testing.assert_close(weights[:, :2], torch.full((2, 2, 9, 9), 1 / 9))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 6, 9))
    after_step(nn.Sequential(attention))
    assert attention.layer.parts[0].steps == 1, "once, not once more because it is a module of its own"
    attention.layer.after_step()
    assert attention.layer.parts[0].steps == 2


def test_implied_weights_are_those_of_the_parts():
    q, k, v, _ = inputs(11, 11)
    layer = mixed([("local(left=1)", 4), ("full", 2)]).build(H, D, G, E)
    weights = implied_weights(layer, {"q": q, "k": k, "v": v})
    assert torch.equal((weights[:, :4] > 0)[0, 0], Local(1).dense(11, 11))
    assert (weights[:, 4:] > 0).all()


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda q, k, v: (q[:, :3], k, v), ValueError, "q must be of shape .* with 6 heads"),
        (lambda q, k, v: (q, k[:, :1], v[:, :1]), ValueError, "k must be of shape .* with 3 heads"),
        (lambda q, k, v: (q, k, v[0]), ValueError, "v must be of shape"),
        (lambda q, k, v: (q, None, v), TypeError, "k must be a tensor .*got 'NoneType'"),
        (lambda q, k, v: (q, k[:, :, :3], v), ValueError, "v's heads and length must be"),
    ],
)
def test_inputs_with_other_heads_are_refused(unchecked, change, kind, message):
    q, k, v, _ = inputs(9, 9)
    with pytest.raises(kind, match=message):
        mixture("default").build(H, D, G, E)(*change(q, k, v))


def test_states_of_others_are_refused(unchecked):
    q, k, v, _ = inputs(1, 1)
    layer = mixture("default").build(H, D, G, E)
    alone = MECHANISMS["linear"]().build(H, D, G, E).initial_state(B, torch.float64)
    for state in (alone, MixedState(()), None):
        with pytest.raises(TypeError, match="state must be a MixedState of 2 parts from initial_state"):
            layer.step(q, k, v, state)


def test_a_random_pattern_is_told_its_layer():
    spec = mixed([(Random(2, block=4), 1), ("full", 1)])
    assert spec.build(2, D, layer=3).parts[0].pattern == Random(2, block=4).reseeded(3)


def test_extra_tokens_stand_before_every_part():
    spec = mixed([("local(left=2)", 4), ("linear", 2)])
    assert spec.behind(0) == spec
    assert spec.behind(3) == mixed([(to_mechanism("local(left=2)").behind(3), 4), ("linear", 2)])
    with pytest.raises(ValueError, match="to stand behind extra tokens, got 'lsh'"):
        mixed([("local", 1), ("lsh", 1)]).behind(1)


def test_parts_share_over_layers_what_they_share_alone():
    spec = mixed([("linformer(rank=4, max_length=20, sharing='layerwise')", 2), ("local", 1)])
    encoder = Encoder(21, 3, 3, mechanism=spec)
    layers = [each.attention.layer for each in encoder.layers]
    assert all(layer.parts[0].matrices()[0] is layers[0].parts[0].E for layer in layers)
    with pytest.raises(ValueError, match=r"first must be a MixedLayer with the heads \(2, 1\)"):
        layers[1].share_with(MECHANISMS["full"]().build(3, 7))


def test_weights_of_a_part_that_mixes_values_are_those_it_has_alone():
    layer = mixed([("compressed(stride=2)", 1), ("full", 1)]).build(2, D)
    q, k, v = (torch.randn(1, 2, 9, D) for _ in range(3))
    weights = implied_weights(layer, {"q": q, "k": k, "v": v})
    for head, part in enumerate(layer.parts):
        given = {name: x[:, head, None] for name, x in (("q", q), ("k", k), ("v", v))}
        torch.testing.assert_close(weights[:, head, None], implied_weights(part, given))


def test_parts_that_read_no_queries_need_none():
    kinds = [(MECHANISMS["synthesizer"](kind, max_length=20), 2) for kind in ("random", "fixed")]
    encoder = Encoder(16, 4, 1, mechanism=MECHANISMS["mixed"](parts=kinds))
    assert encoder(torch.randn(1, 5, 16)).shape == (1, 5, 16)


def test_a_part_that_reads_no_queries_keeps_to_one_sequence():
    layer = to_mechanism("mixed([(synthesizer('random', max_length=20), 1), (linear, 1)])").build(2, 4)
    q, k, v = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 10, 4), torch.randn(1, 2, 10, 4)
    with pytest.raises(ValueError, match="k's length must be q's, 3, as queries and keys are one sequence, got 10"):
        layer(q, k, v)
