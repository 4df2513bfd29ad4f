"""Gated random feature attention against the recurrence of its paper, and its gates at their extremes."""

import pytest
import torch
from mechanism_cases import B, D, G, H, inputs
from rfa_cases import MASKS, N, as_oracle, mask_of, rfa

import oracles_rfa
from counting import counted_flops, kept_bytes
from saccade.attention import MECHANISMS, reorder, to_mechanism
from saccade.attention.gates_from_keys import GatesFromKeys
from saccade.attention.mechanisms import _feature_map, _scaled_sums
from saccade.bench.show import look
from saccade.checking import check
from saccade.nn import MultiHeadAttention


def gated(**options):
    return rfa(gate=True, **options)


def logits(n, dtype=torch.float64, size=2.0, batch=B):
    generator = torch.Generator().manual_seed(n)
    return (size * torch.randn(batch, G, n, 1, generator=generator, dtype=torch.float64)).to(dtype)


def both_ways(layer, tensors, upstream, **options):
    """Output and gradients of q, k, v, the gates and the scales: of the layer, and of the oracle."""
    found = []
    for call in (
        lambda q, k, v, gate, sigma: layer(q, k, v, causal=True, gate=gate, **options),
        lambda q, k, v, gate, sigma: oracles_rfa.rfa_gated(
            q, k, v, gate, **(as_oracle(layer) | {"sigma": sigma}), **options
        ),
    ):
        leaves = [*(x.detach().clone().requires_grad_() for x in tensors), layer.sigma]
        out = call(*leaves)
        found.append((out.detach(), *torch.autograd.grad(out, leaves, upstream, materialize_grads=True)))
    return found


def assert_all_same(actual, wanted, tolerance=1e-12):
    names = ("out", "dq", "dk", "dv", "dgate", "dsigma")
    for name, one, other in zip(names, actual, wanted, strict=True):
        error, size = (one - other).abs().max().item(), max(1.0, other.abs().max().item())
        assert error <= tolerance * size, f"{name} is off by {error:.2e} of {size:.2e}"


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("n_q", "q_start"), [(13, 0), (4, 9), (5, 20), (20, 2)], ids=str)
def test_it_equals_the_recurrence_of_its_paper(mask, n_q, q_start):
    q, k, v, upstream = inputs(n_q, N)
    found = both_ways(gated(), (q, k, v, logits(N)), upstream, key_mask=mask_of(mask), q_start=q_start)
    assert_all_same(*found)


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 129, 200])
def test_chunks_equal_the_recurrence(n):
    q, k, v, upstream = inputs(n, n)
    key_mask = torch.arange(n)[None] % 7 != torch.tensor([[3], [8]])
    assert_all_same(*both_ways(gated(kernel="arccos"), (q, k, v, logits(n)), upstream, key_mask=key_mask), 1e-11)
    assert_all_same(*both_ways(gated(), (q, k, v, logits(n)), upstream, key_mask=key_mask), 1e-10)


@pytest.mark.parametrize(("rows", "chunk"), [(64, 64), (5, 5), (128, 32)], ids=str)
def test_any_cut_gives_the_same(monkeypatch, rows, chunk):
    n = 129
    q, k, v, upstream = inputs(n, n)
    layer, gate = gated(kernel="arccos"), logits(n)
    _, wanted = both_ways(layer, (q, k, v, gate), upstream)
    monkeypatch.setattr(_feature_map, "ROWS", rows)
    monkeypatch.setattr(_feature_map, "CHUNK", chunk)
    monkeypatch.setattr(_scaled_sums, "CHUNK", chunk)
    assert_all_same(both_ways(layer, (q, k, v, gate), upstream)[0], wanted, 1e-11)


def test_gradcheck():
    q, k, v, _ = inputs(5, 7, batch=1)
    mask, layer = torch.arange(7)[None] != 3, gated(features=12)
    leaves = [tensor.requires_grad_() for tensor in (q, k, v, logits(7, batch=1))]
    assert torch.autograd.gradcheck(
        lambda q, k, v, gate, _: layer(q, k, v, key_mask=mask, causal=True, q_start=1, gate=gate),
        [*leaves, layer.sigma],
        fast_mode=True,
    )


@pytest.mark.parametrize("mask", ["none", "holes", "empty"])
def test_steps_and_prefills_equal_the_whole(mask):
    q, k, v, _ = inputs(N, N)
    gate, key_mask, layer = logits(N), mask_of(mask), gated()
    whole = layer(q, k, v, key_mask, causal=True, gate=gate)
    for cut in (0, 1, 7, N):

        def span(start, end):
            hidden = None if key_mask is None else key_mask[:, start:end]
            return [x[:, :, start:end] for x in (q, k, v)], {"key_mask": hidden, "gate": gate[:, :, start:end]}

        given, options = span(0, cut)
        out, state = layer.prefill(*given, **options)
        outs = [out]
        for t in range(cut, N):
            given, options = span(t, t + 1)
            kept = [leaf.clone() for leaf in state]
            out, new = layer.step(*given, state, **options)
            assert all(torch.equal(*pair) for pair in zip(state, kept, strict=True))
            outs, state = [*outs, out], new
        torch.testing.assert_close(torch.cat(outs, 2), whole, rtol=0, atol=1e-11)
    again = reorder(state, torch.tensor([1, 1, 0]))
    assert torch.equal(again.s[2], state.s[0])


def test_gradients_flow_through_prefill_and_steps():
    n, cut = 12, 8
    tensors = [x.requires_grad_() for x in (*inputs(n, n)[:3], logits(n))]
    q, k, v, gate = tensors
    layer = gated()
    wanted = torch.autograd.grad(layer(q, k, v, causal=True, gate=gate)[:, :, cut:].sum(), tensors)
    _, state = layer.prefill(*(x[:, :, :cut] for x in (q, k, v)), gate=gate[:, :, :cut])
    outs = []
    for t in range(cut, n):
        out, state = layer.step(*(x[:, :, t, None] for x in (q, k, v)), state, gate=gate[:, :, t, None])
        outs.append(out)
    found = torch.autograd.grad(torch.cat(outs, 2).sum(), tensors)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", ["open", "shut", "mixed", "runs"])
def test_gates_that_are_fully_open_or_shut_leave_everything_finite_and_right(dtype, kind):
    n = 200
    q, k, v, upstream = inputs(n, n)
    sign = {
        "open": torch.ones(n),
        "shut": -torch.ones(n),
        "mixed": torch.where(torch.arange(n) % 3 == 0, 1.0, -1.0),
        "runs": torch.where(torch.arange(n) // 70 % 2 == 0, 1.0, -1.0),
    }[kind]
    gate = (100 * sign)[None, None, :, None].expand(B, G, n, 1).double()
    layer = gated(kernel="arccos")
    _, wanted = both_ways(layer, (q, k, v, gate), upstream)
    leaves = [x.to(dtype).requires_grad_() for x in (q, k, v, gate)]
    out = layer(*leaves[:3], causal=True, gate=leaves[3])
    found = (out.detach(), *torch.autograd.grad(out, leaves, upstream.to(dtype)))
    # The gradient of a gate is a difference of sums that are as large as the other gradients.
    size = max(1.0, *(each.abs().max().item() for each in wanted))
    for one, other in zip(found, wanted, strict=False):
        assert one.isfinite().all()
        assert (one.double() - other).abs().max() <= (1e-14 if dtype == torch.float64 else 1e-6) * size


def test_an_open_gate_forgets_nothing_and_a_shut_one_everything():
    q, k, v, _ = inputs(30, 30)
    layer = gated(kernel="arccos", least_weight=1e-12)
    q, k = q.abs(), k.abs()
    shut = layer(q, k, v, causal=True, gate=torch.full((B, G, 30, 1), -60.0, dtype=torch.float64))
    given = {name: value for name, value in as_oracle(layer).items() if name != "least"}
    phi_q, phi_k = (oracles_rfa.all_features(x, **given) for x in (q, k))
    own = (phi_q * phi_k.repeat_interleave(H // G, 1)).sum(-1)
    sees = own > 1e-6
    torch.testing.assert_close(shut[sees], v.repeat_interleave(H // G, 1)[sees], rtol=1e-9, atol=1e-9)
    # Nearly open, all tokens weigh the same: it is the form without a gate.
    plain = rfa(kernel="arccos", least_weight=1e-30)
    wide = torch.full((B, G, 30, 1), 40.0, dtype=torch.float64)
    opened = gated(kernel="arccos", least_weight=1e-30)(q, k, v, causal=True, gate=wide)
    torch.testing.assert_close(opened, plain(q, k, v, causal=True), rtol=0, atol=1e-9)


def test_a_hundred_thousand_tokens_stay_right_in_single_precision(unchecked):
    """Sums of log g fall without bound: only differences within a chunk may ever be rounded to single precision."""
    n = 100_000
    generator = torch.Generator().manual_seed(0)
    layer = MECHANISMS["rfa"](features=4, kernel="arccos", gate=True).build(1, 3, value_dim=2)
    q, k, v = (torch.randn(1, 1, n, dim, generator=generator) for dim in (3, 3, 2))
    gate = (3 * torch.randn(1, 1, n, 1, generator=generator)).requires_grad_()
    out = layer(q, k, v, causal=True, gate=gate)
    (to_gate,) = torch.autograd.grad(out[:, :, -500:].sum(), gate)
    last = [x[:, :, -2000:].detach() for x in (q, k, v, gate)]  # what came before is forgotten
    last[3] = last[3].requires_grad_()
    wanted = layer.double()(*(x.double() for x in last[:3]), causal=True, gate=last[3].double())
    (expected,) = torch.autograd.grad(wanted[:, :, -500:].sum(), last[3])
    assert out.isfinite().all()
    torch.testing.assert_close(out[:, :, -1000:].double(), wanted[:, :, -1000:], rtol=0, atol=2e-3)
    torch.testing.assert_close(to_gate[:, :, -1000:], expected[:, :, -1000:], rtol=0, atol=2e-3)


def test_what_is_hidden_changes_nothing_and_its_gate_may_be_anything():
    q, k, v, upstream = inputs(N, N)
    mask = torch.tensor(MASKS["holes"])
    layer, gate = gated(), logits(N)
    clean = layer(q, k, v, mask, causal=True, gate=gate)
    poison = torch.where(mask[:, None, :, None], gate, torch.nan).requires_grad_()
    leaves = [torch.where(mask[:, None, :, None], x, torch.inf).requires_grad_() for x in (k, v)]
    out = layer(q, *leaves, mask, causal=True, gate=poison)
    assert torch.equal(out, clean)
    for gradient in torch.autograd.grad(out, [*leaves, poison], upstream):
        assert gradient.isfinite().all()
        assert not gradient.masked_select(~mask[:, None, :, None]).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sums_are_kept_in_single_precision(dtype):
    q, k, v, _ = inputs(150, 150, dtype)
    layer, gate = gated(kernel="arccos"), logits(150, dtype)
    out = layer(q, k, v, causal=True, gate=gate)
    wanted = layer(*(x.double() for x in (q, k, v)), causal=True, gate=gate.double())
    assert out.dtype == dtype
    assert (out.double() - wanted).abs().max() <= torch.finfo(dtype).eps * wanted.abs().max()


def test_every_probe_passes_with_gates_that_are_read_off_the_keys():
    spec = MECHANISMS["rfa"](features=32, gate=True)
    report = check(GatesFromKeys(spec.build(3, 5)), claims=spec.claims, width=5)
    assert report.passed, [(result.probe, result.where) for result in report.failed]
    unclaimed = {result.probe for result in report.results if result.status == "not claimed"}
    assert unclaimed == {"permutation", "weights"}


def test_attention_with_several_heads_makes_a_projection_of_its_own_for_the_gate():
    attention = MultiHeadAttention(12, 6, "rfa(features=16, gate=True)", kv_heads=3).double()
    assert attention.projections["gate"].weight.shape == (3, 12)
    x = torch.randn(2, 20, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    attention(x, causal=True).sum().backward()
    assert attention.projections["gate"].weight.grad.any()
    with pytest.raises(ValueError, match=r"causal must be True, as rfa\(features=16, gate=True\) has no other form"):
        attention(x)
    probes = ["prefix_causality", "padding", "chunk", "hidden_nan", "gradients"]
    report = check(attention, on="x", claims=attention.mechanism.claims, causal=True, width=12, probes=probes)
    assert report.passed, [(result.probe, result.where) for result in report.failed]


def test_what_does_not_belong_to_a_gate_is_refused(unchecked):
    q, k, v, _ = inputs(5, 5)
    layer = gated()
    with pytest.raises(ValueError, match=r"causal must be True, as rfa.* has no other form, got False"):
        layer(q, k, v, gate=logits(5))
    for gate in (None, 3.0):
        with pytest.raises(TypeError, match=r"gate must be a tensor \[b g k 1\] of logits, .* got '(NoneType|float)'"):
            layer(q, k, v, causal=True, gate=gate)
    with pytest.raises(TypeError, match="gate must be"):
        layer.step(*(x[:, :, :1] for x in (q, k, v)), layer.initial_state(B, torch.float64))
    with pytest.raises(ValueError, match=r"gate must be of shape \(2, 3, 5, 1\), torch.float64 on cpu, got"):
        layer(q, k, v, causal=True, gate=logits(4))
    with pytest.raises(ValueError, match="gate must be of shape"):
        layer(q, k, v, causal=True, gate=logits(5).float())
    with pytest.raises(ValueError, match="causal must be True, as"):
        layer.spec.cost(5, 5, H, D)
    with pytest.raises(ValueError, match="a part must be one that reads q, k, v alone, without gate, got"):
        to_mechanism("mixed([(rfa(gate=True), 1), (full, 1)])")


def test_without_a_gate_one_may_be_given_all_the_same():
    q, k, v, _ = inputs(5, 5)
    assert torch.equal(rfa()(q, k, v, gate=logits(5)), rfa()(q, k, v))
    assert MECHANISMS["rfa"]().inputs == ("q", "k", "v")
    assert MECHANISMS["rfa"](gate=True).inputs == ("q", "k", "v", "gate")


@pytest.mark.parametrize(("n", "kv_heads"), [(200, 2), (200, 6), (1024, 2)])
def test_operations_and_what_is_kept_are_those_that_torch_counts(n, kv_heads):
    spec = MECHANISMS["rfa"](features=12, gate=True)
    layer, shapes = spec.build(6, 8, kv_heads), ((6, 8), (kv_heads, 8), (kv_heads, 8), (kv_heads, 1))
    q, k, v, gate = (torch.randn(1, heads, n, dim, requires_grad=True) for heads, dim in shapes)
    cost = spec.cost(n, n, 6, 8, kv_heads=kv_heads, causal=True)

    def work():
        return layer(q, k, v, causal=True, gate=gate)

    assert counted_flops(work) == cost.computed
    assert kept_bytes(work, layer.parameters()) == cost.kept


def test_a_gated_form_can_be_shown():
    weights = look("rfa(gate=True)", 64, causal=True, heads=1).weights
    assert not weights.triu(1).any()
    with pytest.raises(ValueError, match="causal must be True"):
        look("rfa(gate=True)", 64)


@pytest.mark.parametrize("logit", [-torch.inf, torch.inf, -1e38, 1e38])
def test_a_gate_may_be_shut_or_open_for_good(logit):
    q, k, v, _ = inputs(150, 150, torch.float32)
    gate = logits(150, torch.float32).detach()
    gate[:, :, 70:73] = logit
    given = [x.clone().requires_grad_() for x in (q, k, v, gate)]
    out = gated()(*given[:3], causal=True, gate=given[3])
    out.sum().backward()
    assert all(x.isfinite().all() for x in (out, *(each.grad for each in given)))
    if logit < 0:  # nothing from before is left
        moved = [torch.cat([x[:, :, :60] + 1, x[:, :, 60:]], 2) for x in (q, k, v)]
        again = gated()(*moved, causal=True, gate=gate)
        torch.testing.assert_close(again[:, :, 73:], out[:, :, 73:], rtol=1e-6, atol=1e-6)
