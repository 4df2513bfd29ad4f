"""Beam search against every continuation there is, and against a search that is written out and never stops early."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_models import SPECIAL, Recurrent, Table, ragged, rows_of

import oracles_generation as oracle
from saccade.generation import Beam, Greedy, SpecialTokens, generate
from saccade.generation.hypotheses import penalty_of

PROMPTS = [(1,), (1, 4, 2), (1, 3), (1, 2)]
BARE = SpecialTokens(pad=-1, eos=0)
"""Of a vocabulary of `eos` and words only."""


def assert_found(out, row, expected):
    """The results of a prompt are these, in this order."""
    found = range(row * out.results, row * out.results + len(expected))
    assert [rows_of(out)[place] for place in found] == [tokens for tokens, _, _ in expected]
    for place, (_, log_prob, score) in zip(found, expected, strict=True):
        assert out.log_probs[place].item() == pytest.approx(log_prob, abs=1e-12)
        assert out.scores[place].item() == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize("penalty", ["power", "gnmt"])
@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0, 2.5, -0.5])
def test_a_wide_beam_is_exhaustive_search(penalty, exponent):
    """As wide as there are continuations, up to 4 of 3 tokens: the best of all, in order, by their scores."""
    model, prompts = Recurrent(vocabulary=3), [(1,), (1, 2, 0), (2, 2)]
    padded, lengths = ragged(*prompts)
    method = Beam(max_length=4, width=81, results=20, length_penalty=exponent, penalty=penalty)
    out = generate(model, method, padded, BARE, prompt_lengths=lengths)
    for row, prompt in enumerate(prompts):
        every = oracle.every_result(model.following(), prompt, 4, eos=0)
        assert len(every) == 31
        assert math.fsum(math.exp(log_prob) for _, log_prob in every) == pytest.approx(1)
        assert_found(out, row, oracle.best_results(every, 20, exponent, penalty))


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    limit=st.integers(1, 4),
    words=st.integers(1, 3),
    exponent=st.sampled_from([0.0, 0.6, 1.0, -1.0]),
    min_length=st.integers(0, 2),
    has_end=st.booleans(),
)
def test_exhaustive_whatever_the_model(seed, limit, words, exponent, min_length, has_end):
    model, eos = Recurrent(vocabulary=words + 1, width=3, seed=seed), 0 if has_end else None
    min_length = min(min_length, limit)
    method = Beam(max_length=limit, min_length=min_length, width=(words + 1) ** limit, length_penalty=exponent)
    out = generate(model, method, torch.tensor([[1]]), SpecialTokens(-1, eos))
    every = oracle.every_result(model.following(), (1,), limit, eos=eos, min_length=min_length)
    assert_found(out, 0, oracle.best_results(every, 1, exponent))


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize(("exponent", "penalty"), [(0.0, "power"), (1.0, "power"), (0.6, "gnmt"), (-0.5, "power")])
def test_stopping_early_loses_nothing(width, exponent, penalty):
    """The oracle searches on to the limit; all that it finds is found, in its order."""
    prompts, lengths = ragged(*PROMPTS)
    method = Beam(max_length=7, width=width, results=width, length_penalty=exponent, penalty=penalty)
    for seed in range(3):
        model = Recurrent(seed=seed)
        out = generate(model, method, prompts, SPECIAL, prompt_lengths=lengths)
        for row, prompt in enumerate(PROMPTS):
            assert_found(
                out, row, oracle.beam_search(model.following(), prompt, 7, width, exponent, penalty, (0, 1), 2)
            )


def test_the_exact_stop_is_early_where_it_can_be():
    """Without a length penalty, the first end that beats all that live is the best there will be."""
    table = torch.tensor([-9.0, -9, 5, 1, 0])
    out = generate(Table(table), Beam(width=3, length_penalty=0.0, max_length=50), torch.tensor([[1]]), SPECIAL)
    assert rows_of(out) == [(2,)]
    assert out.steps == 1
    out = generate(
        Table(table), Beam(width=3, results=3, length_penalty=0.0, max_length=50), torch.tensor([[1]]), SPECIAL
    )
    assert rows_of(out) == [(2,), (3, 2), (4, 2)]
    assert out.steps == 2


def test_stopping_when_full_may_miss_a_better_one():
    """Behind an unsure start goes a sure way: per token the longer is better, but two are finished before it."""
    sure, end, unsure = [0.0, -30, 0], [0.0, 30, 0], [2.0, 2.0, 2.0]
    model, special = Table([unsure, unsure, sure, sure, sure, end]), SpecialTokens(-1, 1)
    outs = {
        stop: generate(model, Beam(width=2, stop=stop, max_length=20), torch.tensor([[0]]), special)
        for stop in ("exact", "full")
    }
    assert outs["full"].steps < outs["exact"].steps
    assert outs["full"].scores < outs["exact"].scores
    assert outs["full"].lengths < outs["exact"].lengths


@pytest.mark.parametrize("seed", range(4))
def test_a_beam_of_one_is_greedy_decoding(seed):
    """Without a length penalty; with one, it may go on behind the first end, and is never worse for it."""
    model = Recurrent(seed=seed)
    prompts, lengths = ragged(*PROMPTS)
    greedy = generate(model, Greedy(max_length=9), prompts, SPECIAL, prompt_lengths=lengths)
    one = generate(model, Beam(width=1, length_penalty=0.0, max_length=9), prompts, SPECIAL, prompt_lengths=lengths)
    for name in ("tokens", "lengths", "ended", "log_probs", "passes"):
        assert torch.equal(getattr(greedy, name), getattr(one, name)), name
    assert torch.equal(greedy.scores.double(), one.scores)
    one = generate(model, Beam(width=1, length_penalty=1.0, max_length=9), prompts, SPECIAL, prompt_lengths=lengths)
    assert (one.scores >= greedy.scores / greedy.lengths - 1e-12).all()


def test_results_come_best_first_and_are_different():
    prompts, lengths = ragged(*PROMPTS)
    out = generate(Recurrent(), Beam(width=6, results=6, max_length=8), prompts, SPECIAL, prompt_lengths=lengths)
    scores = out.scores.view(4, 6)
    assert (scores.diff(dim=1) <= 0).all()
    for row in range(4):
        assert len(set(rows_of(out)[6 * row : 6 * row + 6])) == 6
    fewer = generate(Recurrent(), Beam(width=6, results=1, max_length=8), prompts, SPECIAL, prompt_lengths=lengths)
    assert rows_of(fewer) == rows_of(out)[::6]


def test_more_results_than_there_are():
    out = generate(Table([0.0, 1.0]), Beam(width=5, results=5, max_length=2), torch.tensor([[1]]), BARE)
    assert rows_of(out) == [(1, 1), (1, 0), (0,), (), ()]
    assert out.scores[3:].tolist() == out.log_probs[3:].tolist() == [-math.inf] * 2
    assert (out.tokens[3:] == -1).all()
    assert out.ended.tolist() == [False, True, True, False, False]


def test_no_token_or_one():
    prompts, lengths = ragged(*PROMPTS)
    none = generate(Recurrent(), Beam(width=3, results=2, max_length=0), prompts, SPECIAL, prompt_lengths=lengths)
    assert none.tokens.shape == (8, 0)
    assert none.scores.tolist() == [0, -math.inf] * 4
    assert none.steps == 0
    one = generate(Recurrent(), Beam(width=3, max_length=1), prompts, SPECIAL, prompt_lengths=lengths)
    for row, prompt in enumerate(PROMPTS):
        every = oracle.every_result(Recurrent().following(), prompt, 1, (0, 1), 2)
        assert_found(one, row, oracle.best_results(every, 1, 1.0))


def test_a_row_that_may_get_nothing_among_others():
    prompts, sources = torch.tensor([[1], [1], [1]]), torch.tensor([4, 0, 2])
    out = generate(Recurrent(), Beam(width=3, max_length=0, max_ratio=1.0), prompts, SPECIAL, source_lengths=sources)
    assert rows_of(out)[1] == ()
    assert out.scores[1] == 0
    for row, limit in ((0, 4), (2, 2)):
        alone = generate(Recurrent(), Beam(width=3, max_length=limit), prompts[:1], SPECIAL)
        assert rows_of(alone)[0] == rows_of(out)[row]


def test_the_model_reads_only_what_is_still_searched():
    """As many rows as hypotheses live; states are not copied where every beam goes on in its place."""
    model = Recurrent(seed=3)
    out = generate(model, Beam(width=2, max_length=20, length_penalty=0.0), torch.ones(9, 2).long() * 3, SPECIAL)
    widths = [call[1] for call in model.calls if call[0] == "advance"]
    assert [width // 2 for width in widths] == [int((out.passes > step).sum()) for step in range(1, out.steps)]
    model.calls.clear()
    generate(model, Beam(width=1, max_length=5), torch.tensor([[1]]), SpecialTokens(0, None, (1,)))
    assert [call[0] for call in model.calls].count("reorder") == 1


def test_near_ties_at_the_border_are_counted():
    """Two live, and a third as good as the second; or two results as good as each other."""
    step = torch.tensor([[0.0, 0.0, -30, 5, 4, 4 - 5e-5]], dtype=torch.float64)
    out = generate(Table(step), Beam(width=2, max_length=1), torch.tensor([[1]]), SPECIAL)
    assert out.near_ties.tolist() == [1]
    out = generate(Table(step), Beam(width=3, max_length=1), torch.tensor([[1]]), SPECIAL)
    assert out.near_ties.tolist() == [0]
    out = generate(Table(step), Beam(width=3, results=2, max_length=1), torch.tensor([[1]]), SPECIAL)
    assert out.near_ties.tolist() == [1, 1]


def test_penalties_as_the_papers_have_them():
    lengths = torch.tensor([0, 1, 7, 30])
    assert penalty_of(lengths, "power", 0.5).tolist() == pytest.approx([1, 1, 7**0.5, 30**0.5])
    assert penalty_of(lengths, "gnmt", 0.6).tolist() == pytest.approx([1, 1, 2**0.6, (35 / 6) ** 0.6])
    assert penalty_of(lengths, "gnmt", 0.0).tolist() == [1] * 4


@pytest.mark.usefixtures("unchecked")
def test_options_that_cannot_be():
    for options, message in (
        ({"width": 0}, "width must be a whole number, at least 1, got 0"),
        ({"results": 0}, "results must be a whole number, at least 1, got 0"),
        ({"results": 6}, "results must be at most the width, 5, got 6"),
        ({"length_penalty": math.inf}, "length_penalty must be finite, got inf"),
        ({"length_penalty": math.nan}, "length_penalty must be finite, got nan"),
        ({"penalty": "gnm"}, r"penalty must be one of gnmt, power, got 'gnm' \(did you mean 'gnmt'\?\)"),
        ({"stop": "never"}, "stop must be one of exact, full, got 'never'"),
        ({"max_length": -1}, "max_length must be a whole number"),
    ):
        with pytest.raises(ValueError, match=message):
            Beam(**options)
