"""Extra global tokens in front of an encoder, next to the same written out by hand."""

import copy
import pickle

import pytest
import torch
from torch import nn

from saccade import Axial, Edges, Global, Grid, Local, PerHead, Random, Segments, Strided
from saccade.attention import MECHANISMS, Mechanism, to_mechanism
from saccade.attention.patterns import big_bird
from saccade.attention.record import Record
from saccade.checking import check
from saccade.nn import Encoder
from saccade.nn.encoder import EncoderLayer

WIDTH, HEADS, LAYERS, N = 12, 3, 2, 20
PATTERNS = {
    "local": Local(2, 1),
    "blocks": Local(1, block=3),
    "strided": Strided(5) | Local(1),
    "random": Random(1, block=4, seed=3),
    "last": Global(1, last=2) | Local(1),
    "big_bird": big_bird(block=3, random_blocks=1),
    "per_head": PerHead([Local(1), Strided(4), Segments(torch.arange(N) // 7)]),
    "grid": Grid(4, 5, 1),
    "axial": Axial(4, 5),
    "edges": Edges(torch.tensor([[0, 3, 7, 19], [5, 3, 2, 0]])),
    "segments": Segments(torch.stack([torch.arange(N) // 6, torch.arange(N) // 9])),
}


def shaken(module):
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.5)
    return module.double().eval()


def encoder(mechanism="full", extra_tokens=3, **options):
    return shaken(Encoder(WIDTH, HEADS, LAYERS, 17, mechanism, extra_tokens=extra_tokens, **options))


def mask(*lengths, n=N):
    return torch.arange(n) < torch.tensor(lengths)[:, None]


def seen_by_hand(pattern, extra, layer, causal):
    """Who sees whom among extra tokens and sequence: all that an extra token is part of, and the pattern's own."""
    own = pattern.reseeded(layer)
    own = (own.causal() if causal else own).bind(N, N, lengths=(N, N), heads=HEADS).dense()
    seen = torch.ones(2, HEADS, extra + N, extra + N, dtype=torch.bool)
    seen[:, :, extra:, extra:] = own
    return seen.tril() if causal else seen


@pytest.mark.parametrize("extra", [1, 4])
@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize("name", PATTERNS)
def test_every_pattern_stands_behind_extra_tokens(name, causal, extra):
    pattern = PATTERNS[name]
    moved = to_mechanism(pattern).behind(extra)
    for layer in (0, 1):
        built = moved.build(HEADS, 4, layer=layer)
        bound = (built.causal_pattern if causal else built.pattern).bind(
            extra + N, extra + N, lengths=(extra + N,) * 2, heads=HEADS
        )
        found = bound.dense().expand(2, HEADS, -1, -1) if bound.dense().ndim == 2 else bound.dense()
        assert torch.equal(found.expand(2, HEADS, -1, -1), seen_by_hand(pattern, extra, layer, causal))


@pytest.mark.parametrize("causal", [False, True], ids=["both", "causal"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("mechanism", ["full", "linear", *PATTERNS])
def test_it_equals_vectors_written_in_front(mechanism, padded, causal):
    """The same layers with a pattern that is written out, on a sequence that begins with the vectors."""
    norm = "post" if causal else "pre"
    extra, pattern = 3, PATTERNS.get(mechanism)
    ours = encoder(pattern or mechanism, extra, norm=norm)
    by_hand = mechanism if pattern is None else pattern.shifted(extra) | Global(extra)
    layers = [EncoderLayer(WIDTH, HEADS, 17, by_hand, norm, 0.0, "gelu", i).double() for i in range(LAYERS)]
    x = torch.randn(2, N, WIDTH, dtype=torch.float64)
    key_mask = mask(N, 13) if padded else None
    y = torch.cat([ours.extra.expand(2, -1, -1), x], 1)
    if padded:
        key_mask_of_all = torch.cat([torch.ones(2, extra, dtype=torch.bool), key_mask], 1)
        y = y.masked_fill(~key_mask_of_all[..., None], 0)
    for mine, other in zip(ours.layers, layers, strict=True):
        other.load_state_dict(mine.state_dict())
        y = other(y, key_mask_of_all if padded else None, causal)
    expected = ours.norm(y)[:, extra:]
    real = torch.ones(2, N, dtype=torch.bool) if key_mask is None else key_mask
    torch.testing.assert_close(ours(x, key_mask, causal)[real], expected[real], rtol=0, atol=1e-12)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_without_extra_tokens_nothing_changes(mechanism):
    torch.manual_seed(3)
    plain = Encoder(WIDTH, HEADS, LAYERS, 17, mechanism)
    torch.manual_seed(3)
    none = Encoder(WIDTH, HEADS, LAYERS, 17, mechanism, extra_tokens=0)
    assert none.extra is None
    assert [layer.attention.mechanism for layer in none.layers] == [to_mechanism(mechanism)] * LAYERS
    assert list(none.state_dict()) == list(plain.state_dict())
    x = torch.randn(2, N, WIDTH)
    assert torch.equal(none(x, mask(N, 7)), plain(x, mask(N, 7)))


def test_the_other_weights_start_as_without_them():
    torch.manual_seed(3)
    plain = Encoder(WIDTH, HEADS, LAYERS).state_dict()
    torch.manual_seed(3)
    ours = Encoder(WIDTH, HEADS, LAYERS, extra_tokens=200)
    state = ours.state_dict()
    assert set(state) - set(plain) == {"extra"}
    assert all(torch.equal(state[name], plain[name]) for name in plain)
    assert state["extra"].shape == (200, WIDTH)
    assert state["extra"].std().item() == pytest.approx(nn.Embedding(200, WIDTH).weight.std().item(), rel=0.1)


def test_a_window_of_one_hears_of_far_tokens_through_them():
    x = torch.randn(1, N, WIDTH, dtype=torch.float64)
    other = x.clone()
    other[:, -1] = torch.randn(WIDTH, dtype=torch.float64)
    for extra, hears in ((0, False), (1, True)):
        ours = encoder("local(left=1)", extra)
        assert torch.equal(ours(x)[:, 0], ours(other)[:, 0]) is not hears


@pytest.mark.parametrize("mechanism", ["full", "linear", "Local(2)"])
def test_gradients_reach_the_vectors_and_are_those_of_each_example_alone(mechanism):
    ours = encoder(mechanism)
    x, upstream = (torch.randn(3, N, WIDTH, dtype=torch.float64) for _ in range(2))
    lengths = (N, 7, 1)
    key_mask = mask(*lengths)
    upstream = upstream * key_mask[..., None]
    (together,) = torch.autograd.grad(ours(x, key_mask), ours.extra, upstream)
    alone = [
        torch.autograd.grad(ours(x[i : i + 1, :n]), ours.extra, upstream[i : i + 1, :n])[0]
        for i, n in enumerate(lengths)
    ]
    assert (together != 0).all()
    torch.testing.assert_close(together, sum(alone), rtol=0, atol=1e-10)


@pytest.mark.parametrize("mechanism", ["full", "linear", "Local(2)", "big_bird(block=4)"])
def test_padding_teaches_them_nothing(mechanism):
    """NaN behind the mask reaches no gradient, and an example that is all padding none but through its own outputs."""
    ours = encoder(mechanism)
    key_mask = mask(N, 6, 0)
    x = torch.randn(3, N, WIDTH, dtype=torch.float64).masked_fill(~key_mask[..., None], float("nan"))
    out = ours(x, key_mask)
    assert out.isfinite().all()
    (grad,) = torch.autograd.grad(out[key_mask].sum(), ours.extra)
    two = ours(x[:2, :], key_mask[:2])
    (wanted,) = torch.autograd.grad(two[key_mask[:2]].sum(), ours.extra)
    assert torch.equal(grad, wanted)


PROBES = ("prefix_causality", "padding", "batch", "hidden_nan", "empty_rows")


@pytest.mark.parametrize("mechanism", ["full", "linear", "local(left=3)", "longformer(window=4)"])
def test_neither_later_tokens_nor_padding_nor_company_get_through_them(mechanism):
    report = check(shaken(Encoder(4, 1, 1, 5, mechanism, extra_tokens=2)), on="x", width=4, probes=PROBES)
    assert [(each.probe, each.status) for each in report.results] == [(probe, "passed") for probe in PROBES]


def test_extra_tokens_come_first_in_recorded_weights():
    ours, record = encoder("Local(1)", 2), Record("weights")
    ours(torch.randn(1, 5, WIDTH, dtype=torch.float64), record=record)
    seen = record["weights"][0][0, 0] > 0
    assert seen.shape == (7, 7)
    assert seen[:2].all()
    assert seen[:, :2].all()
    assert torch.equal(seen[2:, 2:], Local(1).dense(5, 5))


def test_copies_pickles_and_states():
    ours = encoder("Local(2)")
    x = torch.randn(2, N, WIDTH, dtype=torch.float64)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(other(x), ours(x))
        assert other.extra is not ours.extra
    fresh = Encoder(WIDTH, HEADS, LAYERS, 17, "Local(2)", extra_tokens=3).double()
    fresh.load_state_dict(ours.state_dict())
    assert torch.equal(fresh(x), ours(x))


def test_odd_inputs():
    assert encoder()(torch.zeros(0, 5, WIDTH, dtype=torch.float64)).shape == (0, 5, WIDTH)
    assert encoder()(torch.zeros(2, 0, WIDTH, dtype=torch.float64)).shape == (2, 0, WIDTH)
    assert encoder().bfloat16()(torch.zeros(2, 5, WIDTH, dtype=torch.bfloat16)).dtype == torch.bfloat16
    with torch.device("meta"):
        assert Encoder(WIDTH, HEADS, 1, extra_tokens=2).extra.is_meta


@pytest.mark.parametrize(
    ("name", "moved"),
    [
        ("full", "full"),
        ("linear", "linear"),
        ("local(left=2)", "Local(2) | Global(3)"),
        ("Grid(4, 5, 1)", "Shifted(Grid(4, 5, 1), 3) | Global(3)"),
    ],
)
def test_what_stands_behind_prints_as_what_it_is(name, moved):
    spec = to_mechanism(name)
    assert str(spec.behind(3)) == moved
    assert to_mechanism(str(spec.behind(3))) == spec.behind(3)
    assert spec.behind(0) is spec


def test_the_layers_know_what_was_chosen():
    ours = encoder(["full", Local(2)])
    assert [str(each) for each in ours.mechanisms] == ["full", "Local(2)"]
    assert ours.layers[1].attention.mechanism == to_mechanism(Local(2) | Global(3))


class Alone(MECHANISMS["linear"]):
    """A mechanism that says nothing of extra tokens."""

    name = "alone"
    behind = Mechanism.behind


def test_what_cannot_be_is_refused(unchecked):
    for value in (-1, 1.5, "4", True):
        with pytest.raises(ValueError, match=f"^extra_tokens must be a whole number, at least 0, got {value!r}$"):
            encoder(extra_tokens=value)
    message = "mechanism must be one in which all see all, such as full or linear, or a pattern, .*got 'alone'"
    with pytest.raises(ValueError, match=message):
        Encoder(WIDTH, HEADS, 1, mechanism=Alone(), extra_tokens=1)
    Encoder(WIDTH, HEADS, 1, mechanism=Alone())
