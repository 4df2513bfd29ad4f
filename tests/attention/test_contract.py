"""The contract: every mechanism of THE LIST keeps every claim it makes, as `saccade check` sees it and beyond."""

import pytest
import torch

import oracles
from saccade import Global, Local, Strided
from saccade.attention import MECHANISMS, to_mechanism
from saccade.checking import check
from saccade.claims import PROBES

H, D = 3, 5
SMALL = {
    "full": {},
    "sparse": {"pattern": Local(5, 1) | Global(2) | Strided(7, steps=3)},
    "local": {"left": 7, "right": 4},
    "strided": {"stride": 6},
    "sparse_transformer": {"stride": 5},
    "longformer": {"window": 8},
    "big_bird": {"block": 8, "random_blocks": 2},
    "efficient": {},
    "linear": {},
    "rfa": {"features": 64},
    "performer": {"features": 16},
    "linformer": {"rank": 6, "max_length": 2200},
    "compressed": {"stride": 4, "kernel": 5},
    "sinkhorn": {"block": 8},
    "mixed": {"parts": (("local(left=7, right=4)", 2), ("linear", 1))},
    "lsh": {"bucket": 4, "rounds": 3, "causal_buckets": 6},
    "routing": {"clusters": 4},
    "synthesizer": {"max_length": 1440},
}
"""Options small enough that a short input shows the mechanism at work, for those whose defaults are not; the defaults
are tried as well."""

MORE = {
    "full_cosine": "full(score='cosine')",
    "full_additive": "full(score='additive', hidden=4)",
    "full_relu": "full(weights='relu')",
    "full_top_k": "full(weights='top_k', top_k=3)",
    "linear_relu": "linear(feature='relu')",
    "linear_dpfp": "linear(feature='dpfp', nu=2)",
    "linear_taylor": "linear(feature='taylor')",
    "linear_hedgehog": "linear(feature='hedgehog')",
    "rfa_arccos": "rfa(features=8, kernel='arccos', pool=1)",
    "mixed_full_sparse": "mixed([(full, 2), (Local(5, 1) | Global(2) | Strided(7, steps=3), 1)])",
    "mixed_relu": "mixed([(linear, 1), (full(weights='relu'), 1), (mixed([(strided(stride=6), 1)]), 1)])",
    "synthesizer_positions": "synthesizer('random+fixed+factorised_random', max_length=1440)",
    "synthesizer_mixed": "synthesizer('factorised_dense+dot', max_length=1440)",
}
"""Further forms of a mechanism whose claims differ, or which compute otherwise."""

GROUPED = ("compressed", "sinkhorn", "mixed")
"""Whose states hold more than tokens: the rest of a group, sums over blocks, states of other parts."""

SPECS = [
    *(pytest.param(kind(), id=name) for name, kind in MECHANISMS.items()),
    *(pytest.param(MECHANISMS[name](**options), id=f"{name}_small") for name, options in SMALL.items() if options),
    *(pytest.param(to_mechanism(text), id=name) for name, text in MORE.items()),
]


def inputs(n_q, n_k, value_dim, batch=2):
    generator = torch.Generator().manual_seed(31)
    shapes = (batch, H, n_q, D), (batch, H, n_k, D), (batch, H, n_k, value_dim)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


def implied_weights(layer, n_q, n_k, **options):
    """Attention is linear in the values: the identity as values returns the weights of any mechanism."""
    q, k, _ = inputs(n_q, n_k, 1)
    identity = torch.eye(n_k, dtype=torch.float64).expand(2, H, n_k, n_k)
    return layer(q, k, identity, **options)


@pytest.mark.parametrize("name", [*MECHANISMS, *MORE])
def test_every_probe_that_a_claim_calls_for_passes(name):
    """`check` runs each probe in evaluation and in training."""
    spec = to_mechanism(MORE[name]) if name in MORE else MECHANISMS[name](**SMALL.get(name, {}))
    report = check(spec.build(heads=H, head_dim=D), claims=spec.claims, width=D)
    # What a probe needs is a claim, or an argument that layers take: where keys are others, queries may come in chunks.
    given = {"key_mask": True, "q_start": spec.claims.cross}
    called_for = {
        probe.name
        for probe in PROBES
        if all(given[need] if need in given else getattr(spec.claims, need) for need in probe.needs)
    }
    failures = [(result.probe, result.violation, result.where) for result in report.failed]
    assert not failures
    assert {result.probe for result in report.results} == {probe.name for probe in PROBES}
    assert {result.probe for result in report.results if result.status == "passed"} == called_for


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize("n", [1, 2, 63])
def test_claim_normalised(spec, causal, n):
    if not spec.claims.normalised or (causal and not spec.claims.causal):
        pytest.skip("not claimed")
    mask = torch.arange(n) < torch.tensor([[n], [max(1, n - 20)]])
    layer = spec.build(heads=H, head_dim=D, value_dim=n)
    weights = implied_weights(layer, n, n, key_mask=mask, causal=causal)
    total = weights.sum(-1)
    sees_something = total > 0.5
    assert (weights >= 0).all()
    torch.testing.assert_close(total[sees_something], torch.ones_like(total[sees_something]), rtol=0, atol=1e-12)
    assert not weights[~sees_something].any()
    assert not weights.masked_select(~mask[:, None, None]).any()
    assert sees_something[0].all(), "in a sequence without padding every query sees at least itself"
    if causal:
        assert not weights.triu(1).any()


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
def test_claim_exact(spec, causal):
    """The weights of a dense softmax over exactly the pairs that have any weight at all."""
    if not spec.claims.exact or (causal and not spec.claims.causal):
        pytest.skip("not claimed")
    n = 45
    weights = implied_weights(spec.build(heads=H, head_dim=D, value_dim=n), n, n, causal=causal)
    q, k, v = inputs(n, n, 11)
    wanted = oracles.attention(q, k, v, weights > 0)
    actual = spec.build(heads=H, head_dim=D, value_dim=11)(q, k, v, causal=causal)
    torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-12)
    identity = torch.eye(n, dtype=torch.float64).expand(2, H, n, n)
    torch.testing.assert_close(weights, oracles.attention(q, k, identity, weights > 0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(("n_q", "n_k"), [(5, 67), (67, 5), (1, 67), (67, 1)])
def test_claim_cross(spec, n_q, n_k):
    if not spec.claims.cross:
        pytest.skip("not claimed")
    q, k, v = (tensor.requires_grad_() for tensor in inputs(n_q, n_k, 7))
    out = spec.build(heads=H, head_dim=D, value_dim=7)(q, k, v)
    out.sum().backward()
    assert out.shape == (2, H, n_q, 7)
    assert all(tensor.isfinite().all() for tensor in (out, q.grad, k.grad, v.grad) if tensor is not None)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("n", [1, 2, 63, 250, 1000])
@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
def test_claim_any_length_with_value_dims_other_than_key_dims(spec, n, causal):
    if not spec.claims.any_length or (causal and not spec.claims.causal):
        pytest.skip("not claimed")
    q, k, v = (tensor.requires_grad_() for tensor in inputs(n, n, 7, batch=1))
    out = spec.build(heads=H, head_dim=D, value_dim=7)(q, k, v, causal=causal)
    out.sum().backward()
    assert out.shape == (1, H, n, 7)
    assert [x.grad is not None for x in (q, k)] == [name in spec.inputs for name in "qk"]
    assert all(tensor.isfinite().all() for tensor in (out, q.grad, k.grad, v.grad) if tensor is not None)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("n", [7, 66, 130])
def test_claim_causal_means_that_a_step_equals_the_whole(spec, n):
    if not (spec.claims.causal and spec.claims.cross):
        pytest.skip("not claimed")
    q, k, v = inputs(n, n, 7)
    layer = spec.build(heads=H, head_dim=D, value_dim=7)
    whole = layer(q, k, v, causal=True)
    for i in {0, 1, n // 2, n - 2, n - 1}:
        step = layer(q[:, :, i, None], k[:, :, : i + 1], v[:, :, : i + 1], causal=True, q_start=i)
        torch.testing.assert_close(step, whole[:, :, i, None], rtol=0, atol=1e-12)


@pytest.mark.parametrize("spec", SPECS)
def test_claim_streaming(spec):
    n, cut = 66, 40
    q, k, v = inputs(n, n, 7)
    layer = spec.build(heads=H, head_dim=D, value_dim=7).eval()  # decoding draws no noise
    if not spec.claims.streaming:
        with pytest.raises(NotImplementedError, match="does not claim streaming"):
            layer.initial_state(2)
        return
    out, state = layer.prefill(q[:, :, :cut], k[:, :, :cut], v[:, :, :cut])
    outs = [out]
    for i in range(cut, n):
        out, state = layer.step(q[:, :, i, None], k[:, :, i, None], v[:, :, i, None], state)
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs, 2), layer(q, k, v, causal=True), rtol=0, atol=1e-12)


@pytest.mark.parametrize("spec", SPECS)
def test_claim_state_size(spec):
    """O(1) from the first token on, O(window) from a full window on; O(n) as many numbers for each token, or group."""
    assert bool(spec.claims.state_size) == spec.claims.streaming
    if not spec.claims.streaming:
        pytest.skip("not claimed")
    layer = spec.build(heads=H, head_dim=D)
    sizes = {n: numbers(layer.prefill(*inputs(n, n, D))[1]) for n in (0, 1, 480, 960, 1440)}
    growth = {sizes[960] - sizes[480], sizes[1440] - sizes[960]}  # 480: whole groups of any usual size
    assert {
        "O(1)": set(sizes.values()) == {sizes[0]},
        "O(window)": growth == {0} and sizes[1] < sizes[480] < 480 * sizes[1],
        "O(n)": len(growth) == 1 and 0 < max(growth) <= 480 * sizes[1],
    }[spec.claims.state_size]
    if spec.claims.state_size == "O(n)" and spec.name not in GROUPED:
        assert sizes[1440] == 3 * sizes[480] == 1440 * sizes[1]


def numbers(state):
    """How many a state holds, with the states within it."""
    return sum(numbers(leaf) if isinstance(leaf, tuple) else leaf.numel() for leaf in state)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
def test_hidden_keys_leave_no_trace_in_any_parameter_or_input(spec, causal):
    if causal and not spec.claims.causal:
        pytest.skip("not claimed")
    n, real = 70, 41
    mask = torch.arange(n)[None].expand(2, n) < real
    q, k, v = inputs(n, n, 7)
    poison = torch.tensor([torch.nan, torch.inf], dtype=torch.float64)[torch.arange(n) % 2, None]
    hidden = ~mask[:, None, :, None]
    layer = spec.build(heads=H, head_dim=D, value_dim=7).eval()  # or else both calls draw noise of their own
    clean = layer(q, k, v, key_mask=mask, causal=causal)
    poisoned = [torch.where(hidden, poison, tensor).requires_grad_() for tensor in (k, v)]
    if not spec.claims.cross:  # what is hidden is hidden as a query, too
        poisoned.append(q := torch.where(hidden, poison, q).requires_grad_())
    out = layer(q, *poisoned[:2], key_mask=mask, causal=causal)
    shown = real if not spec.claims.cross else n
    out[:, :, :shown].sum().backward()
    assert torch.equal(out[:, :, :shown], clean[:, :, :shown])
    read = dict(zip("kvq", poisoned, strict=False))
    for name, leaf in read.items():
        assert (leaf.grad is not None) == (name in spec.inputs)
    for leaf in (leaf for name, leaf in read.items() if name in spec.inputs):
        assert leaf.grad.isfinite().all()
        assert not leaf.grad[:, :, real:].any()
