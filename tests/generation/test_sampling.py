"""Sampling: the distribution that is drawn from, exactly; and draws that no other row changes."""

import math

import pytest
import torch
from toy_models import SPECIAL, Recurrent, Table, ragged, rows_of

import oracles_generation as oracle
from saccade.generation import Greedy, Sampling, SpecialTokens, generate
from saccade.generation.sampling import candidates, look_up, uniform

ENDLESS = SpecialTokens(pad=0, never=(1,))
OPTIONS = [
    {},
    {"temperature": 0.3},
    {"temperature": 5.0},
    {"top_k": 1},
    {"top_k": 4},
    {"top_k": 99},
    {"top_p": 0.1},
    {"top_p": 0.75},
    {"top_p": 1.0, "top_k": 10},
    {"temperature": 1.7, "top_k": 5, "top_p": 0.6},
]


def distribution(log_probs, **options):
    """The candidates' probabilities at their tokens' places."""
    probabilities, tokens = candidates(log_probs, **options)
    return torch.zeros(log_probs.shape, dtype=torch.float64).scatter(1, tokens, probabilities)


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
def test_the_distribution_is_the_one_of_the_papers(options):
    """Of random logits, of few values with many ties, and with tokens that may not come."""
    draw = torch.Generator().manual_seed(3)
    logits = torch.stack([torch.randn(10, generator=draw) * 2, torch.randint(3, (10,), generator=draw).float()])
    log_probs = torch.cat([logits, torch.zeros(1, 10)]).double().log_softmax(-1)
    log_probs[0, 3] = log_probs[1, :4] = -math.inf
    got = distribution(log_probs, **options)
    expected = torch.tensor([oracle.truncated(row, **options) for row in log_probs.tolist()], dtype=torch.float64)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(got.sum(-1), torch.ones(3).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("top_p", "kept"), [(1e-9, 1), (0.4999, 1), (0.5, 1), (0.5001, 2), (0.75, 2), (0.76, 3), (0.9, 4)]
)
def test_the_nucleus_is_the_smallest_set_that_reaches_p(top_p, kept):
    """Of 1/2, 1/4, 1/8 and 1/8: two tokens have 3/4, so they are enough for 0.75 and not for more."""
    share = distribution(torch.tensor([[0.125, 0.5, 0.125, 0.25]]).log(), top_p=top_p)
    assert share.count_nonzero() == kept
    assert [share[0, token].item() > 0 for token in (1, 3, 0, 2)] == [place < kept for place in range(4)]


def test_ties_at_the_border_go_to_the_lower_tokens():
    share = distribution(torch.zeros(1, 50), top_k=7)
    assert share[0].nonzero()[:, 0].tolist() == list(range(7))
    share = distribution(torch.zeros(1, 50), top_p=0.13)
    assert share[0].nonzero()[:, 0].tolist() == list(range(7))


@pytest.mark.parametrize("temperature", [1e-3, 1e-12, 1e-300, 5e-324])
def test_a_temperature_towards_zero_is_greedy(temperature):
    log_probs = torch.randn(20, 9).double().log_softmax(-1)
    share = distribution(log_probs, temperature=temperature)
    assert torch.equal(share.argmax(-1), log_probs.argmax(-1))
    assert (share.max(-1).values > 1 - 1e-9).all() or temperature == 1e-3


def test_a_temperature_of_zero_is_greedy_exactly():
    prompts, lengths = ragged((1,), (1, 4, 5), (1, 3))
    model = Recurrent(seed=1)
    before = torch.random.get_rng_state()
    sampled = generate(
        model, Sampling(temperature=0.0, top_k=3, max_length=9), prompts, SPECIAL, prompt_lengths=lengths
    )
    assert torch.equal(torch.random.get_rng_state(), before), "nothing is drawn"
    greedy = generate(model, Greedy(max_length=9), prompts, SPECIAL, prompt_lengths=lengths)
    assert rows_of(sampled) == rows_of(greedy)
    assert torch.equal(sampled.near_ties, greedy.near_ties)


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
def test_draws_come_as_often_as_they_should(options):
    """20 000 draws: each token's count within five standard deviations, and never one of no probability."""
    logits, rows = torch.tensor([3.0, 2.0, 0.0, 1.5, 1.4, 1.0, 0.5, 1.4, -2.0]), 20_000
    out = generate(Table(logits), Sampling(max_length=1, **options), torch.ones(rows, 1).long(), SPECIAL)
    log_probs = logits.double().log_softmax(-1)
    log_probs[:2] = -math.inf
    share = torch.tensor(oracle.truncated(log_probs.tolist(), **options), dtype=torch.float64)
    counts = out.tokens[:, 0].bincount(minlength=9)
    assert ((counts - rows * share).abs() <= 5 * (rows * share * (1 - share)).sqrt() + 1e-9).all()
    expected = logits.log_softmax(-1)[out.tokens[:, 0]]
    assert torch.equal(out.log_probs, expected), "the model's own, before anything is cut"


def test_every_step_draws_anew():
    """Two equal tokens, three steps: each of the eight rows comes as often as the others."""
    out = generate(Table([0.0, 0.0]), Sampling(max_length=3), torch.zeros(8_000, 1).long(), SpecialTokens(-1))
    counts = (out.tokens * torch.tensor([4, 2, 1])).sum(1).bincount(minlength=8)
    assert ((counts - 1000).abs() <= 5 * (8_000 / 8 * 7 / 8) ** 0.5).all()


def test_numbers_are_uniform_and_independent():
    """Over rows of neighbouring seeds, and over the steps of one row."""
    for seeds, steps in (
        (torch.arange(100_000), torch.zeros(100_000).long()),
        (torch.full((100_000,), 5), torch.arange(100_000)),
        (torch.arange(100_000) // 316, torch.arange(100_000) % 316),
    ):
        numbers = uniform(seeds, steps)
        assert (numbers >= 0).all()
        assert (numbers < 1).all()
        assert numbers.mean().item() == pytest.approx(1 / 2, abs=5e-3)
        assert numbers.var().item() == pytest.approx(1 / 12, abs=2e-3)
        counts = (numbers * 100).long().bincount(minlength=100)
        assert (counts - 1000).square().sum() / 1000 < 100 + 5 * 200**0.5, "chi squared"
        pairs = torch.stack([numbers[:-1], numbers[1:]])
        assert abs(torch.corrcoef(pairs)[0, 1]) < 0.016


def test_a_number_falls_to_the_token_whose_share_it_is_in():
    shares = torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]], dtype=torch.float64)
    for number, token, distance in (
        (0.0, 1, 0.0),
        (0.2, 1, 0.05),
        (0.25, 3, 0.0),
        (0.45, 3, 0.2),
        (0.74, 3, 0.01),
        (0.75, 4, 0.0),
        (1 - 2**-53, 4, 0.0),
        (1.0, 4, 0.0),
    ):
        place, near = look_up(shares, torch.tensor([number], dtype=torch.float64))
        assert place.item() == token
        assert near.item() == pytest.approx(distance, abs=1e-12)


def test_sums_that_round_give_every_number_to_somebody():
    """A third of a million shares that do not sum to one."""
    shares = torch.full((2, 333_333), 3e-6).double()
    shares[:, -1000:] = 0
    place, _ = look_up(shares / shares.sum(-1, keepdim=True), torch.tensor([1 - 2**-53, 1.0]).double())
    assert place.tolist() == [332_332, 332_332]


def test_a_seed_decides_all_that_a_row_draws():
    model, method = Recurrent(seed=0), Sampling(max_length=12)
    prompts, seeds = torch.ones(5, 1).long(), torch.tensor([3, 4, 3, 5, 4])
    rows = rows_of(generate(model, method, prompts, ENDLESS, seeds=seeds))
    assert rows[0] == rows[2]
    assert rows[1] == rows[4]
    assert len(set(rows)) == 3
    assert rows == rows_of(generate(model, method, prompts, ENDLESS, seeds=seeds))


def test_several_results_of_one_seed_are_the_same_of_however_many():
    model, prompts = Recurrent(seed=0), torch.tensor([[1, 3], [1, 4]])
    seeds = torch.tensor([8, 9])
    rows = {
        results: rows_of(generate(model, Sampling(max_length=12, results=results), prompts, ENDLESS, seeds=seeds))
        for results in (1, 2, 4)
    }
    assert rows[4][0:2] + rows[4][4:6] == rows[2]
    assert rows[4][0::4] == rows[1]
    assert len(set(rows[4])) > 4


def test_without_seeds_the_generator_decides(generator):
    model, method, prompts = Recurrent(seed=0), Sampling(max_length=12), torch.ones(4, 1).long()
    state = generator.get_state()
    first = rows_of(generate(model, method, prompts, ENDLESS, generator=generator))
    assert rows_of(generate(model, method, prompts, ENDLESS, generator=generator)) != first
    generator.set_state(state)
    assert rows_of(generate(model, method, prompts, ENDLESS, generator=generator)) == first
    torch.manual_seed(11)
    first = rows_of(generate(model, method, prompts, ENDLESS))
    assert rows_of(generate(model, method, prompts, ENDLESS)) != first
    torch.manual_seed(11)
    assert rows_of(generate(model, method, prompts, ENDLESS)) == first


def test_what_draws_nothing_leaves_the_generator_alone():
    before = torch.random.get_rng_state()
    generate(Recurrent(), Greedy(max_length=3), torch.ones(4, 1).long(), SPECIAL)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_draws_near_a_border_are_counted():
    """Of two equal tokens, about 2e-4 of all draws are within 1e-4 of the other's share; at the outer ends as well."""
    out = generate(Table([0.0, 0.0]), Sampling(max_length=1), torch.zeros(50_000, 1).long(), SpecialTokens(-1))
    assert 5 <= out.near_ties.sum() <= 45
    sure = generate(Table([0.0]), Sampling(max_length=1), torch.zeros(100, 1).long(), SpecialTokens(-1))
    assert sure.near_ties.sum() == 0


@pytest.mark.usefixtures("unchecked")
def test_options_that_cannot_be():
    for options, message in (
        ({"temperature": -0.1}, "temperature must be at least 0 and finite, got -0.1"),
        ({"temperature": math.inf}, "temperature must be at least 0 and finite, got inf"),
        ({"temperature": math.nan}, "temperature must be at least 0 and finite, got nan"),
        ({"top_k": 0}, "top_k must be a whole number, at least 1, got 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1, got 1.1"),
        ({"results": 0}, "results must be a whole number, at least 1, got 0"),
        ({"max_length": -1}, "max_length must be a whole number"),
    ):
        with pytest.raises(ValueError, match=message):
            Sampling(**options)
