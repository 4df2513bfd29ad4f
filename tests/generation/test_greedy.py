"""Greedy decoding, and what all methods share that follow one continuation of each prompt."""

import pytest
import torch
from toy_models import SPECIAL, Recurrent, Table, ragged, rows_of

import oracles_generation as oracle
from saccade.generation import Greedy, SpecialTokens, generate
from saccade.generation.ranking import best

PROMPTS = [(1,), (1, 4, 2, 5), (1, 3), (1, 2), (1, 6, 6), (1, 5, 5, 5, 3)]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("min_length", [0, 3])
def test_it_is_the_loop_that_the_oracle_writes_out(seed, min_length):
    """Prompts of different lengths, one with `eos` inside and one that ends on it; rows end at different steps."""
    model = Recurrent(seed=seed)
    prompts, lengths = ragged(*PROMPTS)
    method = Greedy(max_length=9, min_length=min_length)
    out = generate(model, method, prompts, SPECIAL, prompt_lengths=lengths)
    for row, prompt in enumerate(PROMPTS):
        tokens, log_prob = oracle.greedy(model.following(), prompt, 9, (0, 1), 2, min_length)
        assert rows_of(out)[row] == tokens
        assert out.log_probs[row].item() == pytest.approx(log_prob, abs=1e-12)
        assert out.ended[row] == (tokens[-1] == 2)
    assert torch.equal(out.scores, out.log_probs)
    assert out.tokens.shape == (6, out.lengths.max())
    assert out.results == 1


def test_the_toys_end_early_and_late():
    """So that the comparison above has seen rows that end by themselves and rows that are cut."""
    prompts, lengths = ragged(*PROMPTS)
    outs = [
        generate(Recurrent(seed=s), Greedy(max_length=9), prompts, SPECIAL, prompt_lengths=lengths) for s in range(6)
    ]
    every = torch.cat([out.lengths for out in outs])
    assert {1, 9} < set(every.tolist())
    assert torch.cat([out.ended for out in outs]).float().mean() > 0.2


def test_what_stands_behind_a_prompt_never_matters():
    prompts, lengths = ragged(*PROMPTS)
    other, _ = ragged(*PROMPTS, pad=6)
    model = Recurrent(seed=1)
    outs = [generate(model, Greedy(max_length=9), p, SPECIAL, prompt_lengths=lengths) for p in (prompts, other)]
    assert torch.equal(outs[0].tokens, outs[1].tokens)
    assert torch.equal(outs[0].scores, outs[1].scores)


def test_behind_the_end_of_a_row_stands_padding():
    out = generate(Recurrent(seed=0), Greedy(max_length=9), ragged(*PROMPTS)[0], SpecialTokens(-7, 2))
    behind = torch.arange(out.tokens.shape[1]) >= out.lengths[:, None]
    assert behind.any()
    assert (out.tokens[behind] == -7).all()
    assert (out.tokens[~behind] >= 0).all()


def test_rows_that_are_done_leave_the_batch():
    """The model reads ever fewer rows, and the rest come out as they would alone."""
    model = Recurrent(seed=3)
    prompts = torch.randint(3, 7, (40, 3), generator=torch.Generator().manual_seed(1))
    out = generate(model, Greedy(max_length=30), prompts, SPECIAL)
    widths = [call[1] for call in model.calls if call[0] == "advance"]
    assert widths[0] > widths[-1]
    assert widths == sorted(widths, reverse=True)
    waiting = [int((out.lengths > step).sum()) for step in range(1, out.steps)]
    assert all(4 * left > 3 * width for left, width in zip(waiting, widths, strict=True)), (
        "a quarter done, and still fed"
    )
    assert out.passes.tolist() == out.lengths.tolist()


def test_nothing_is_read_when_all_is_done():
    """Every row ends with its first token: the prompt is all that the model reads."""
    model = Recurrent(seed=0)
    calls = model.calls
    out = generate(model, Greedy(max_length=1), ragged(*PROMPTS)[0], SPECIAL)
    assert calls == [("start", 6, 5)]
    assert out.steps == 1
    out = generate(Table([0.0, 0.0, 9.0]), Greedy(), torch.tensor([[1], [1]]), SPECIAL)
    assert rows_of(out) == [(2,), (2,)]
    assert out.passes.tolist() == [1, 1]


def test_no_token_may_come():
    model = Recurrent()
    out = generate(model, Greedy(max_length=0), ragged(*PROMPTS)[0], SPECIAL)
    assert out.tokens.shape == (6, 0)
    assert out.lengths.tolist() == out.passes.tolist() == [0] * 6
    assert out.scores.tolist() == [0.0] * 6
    assert not out.ended.any()
    assert model.calls == []
    assert out.steps == 0


def test_a_limit_that_grows_with_the_source():
    """`eos` cannot come, so every row is as long as it may be; a row that may get none is not read at all."""
    model = Recurrent(seed=4)
    prompts, lengths = ragged((1,), (1, 3, 3), (1, 4), (1, 5))
    sources = torch.tensor([3, 5, 0, 7])
    for extra in (0, 2):
        method = Greedy(max_length=extra, max_ratio=1.5)
        special = SpecialTokens(0, never=(1,))
        out = generate(model, method, prompts, special, prompt_lengths=lengths, source_lengths=sources)
        assert out.lengths.tolist() == [4 + extra, 7 + extra, extra, 10 + extra]


@pytest.mark.parametrize("vocabulary", [1, 2])
def test_a_vocabulary_of_one(vocabulary):
    special = SpecialTokens(-1, 0, never=tuple(range(1, vocabulary)))
    out = generate(Table([0.5] * vocabulary), Greedy(), torch.tensor([[0]]), special)
    assert rows_of(out) == [(0,)]
    assert out.near_ties.tolist() == [0]
    out = generate(Table([0.5]), Greedy(max_length=4), torch.tensor([[0]]), SpecialTokens(-1))
    assert rows_of(out) == [(0, 0, 0, 0)]
    assert out.scores.tolist() == [0.0]


def test_a_tie_goes_to_the_lower_token():
    out = generate(Table([0.0, 0, 1, 3, 1, 3, 3]), Greedy(max_length=3), torch.ones(50, 1).long(), SPECIAL)
    assert (out.tokens == 3).all()
    assert (out.near_ties == 3).all()


@pytest.mark.parametrize(("gap", "near"), [(0.9e-4, 1), (1.1e-4, 0)])
def test_near_ties_are_counted(gap, near):
    """Only where the two best are near; what may never come is none of them."""
    table = torch.tensor([[5.0, 0, 0, 1, 1 + gap], [1.0, 1, 0, 2, 0], [2.0, 2, 2 - 1e-5, 0, 0]], dtype=torch.float64)
    out = generate(Table(table), Greedy(max_length=3), torch.ones(1, 1).long(), SPECIAL)
    assert rows_of(out) == [(4, 3, 2)]
    assert out.near_ties.tolist() == [near]


def test_the_best_of_a_row_as_a_stable_sort_has_them():
    draw = torch.Generator().manual_seed(5)
    for values in (3, 100, 10**6):
        scores = torch.randint(values, (17, 61), generator=draw).double()
        scores[torch.rand(17, 61, generator=draw) < 0.3] = -torch.inf
        order = scores.sort(dim=1, descending=True, stable=True)
        for count in (1, 2, 10, 60, 61, 70):
            best_values, places = best(scores, count)
            assert torch.equal(best_values, order.values[:, :count])
            assert torch.equal(places, order.indices[:, :count])


@pytest.mark.usefixtures("unchecked")
def test_limits_that_cannot_be():
    for options, message in (
        ({"max_length": -1}, "max_length must be a whole number, at least 0"),
        ({"min_length": 1.5}, "min_length must be a whole number, at least 0"),
        ({"min_length": 9, "max_length": 8}, "min_length must be at most max_length, 8, got 9"),
        ({"max_ratio": -0.5}, "max_ratio must be at least 0 and finite"),
        ({"max_ratio": float("inf")}, "max_ratio must be at least 0 and finite"),
    ):
        with pytest.raises(ValueError, match=message):
            Greedy(**options)
    assert Greedy(min_length=9, max_length=8, max_ratio=1.0)
