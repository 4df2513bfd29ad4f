"""The loop, whatever the method: batches, caches, traces, and what is refused."""

from dataclasses import FrozenInstanceError, fields, is_dataclass

import pytest
import torch
from toy_models import SPECIAL, Recurrent, Table, ragged, rows_of

from saccade.generation import METHODS, Beam, Greedy, Sampling, SpecialTokens, generate

DRAW = torch.Generator().manual_seed(7)
PROMPTS = [(1, *torch.randint(2, 7, (n,), generator=DRAW).tolist()) for n in (0, 3, 1, 0, 6, 2, 2, 9, 1, 5)]
SEEDS = torch.randint(2**60, (10,), generator=DRAW)
CASES = [
    Greedy(max_length=12),
    Greedy(max_length=12, min_length=4),
    Sampling(max_length=12),
    Sampling(max_length=12, temperature=0.7, top_k=4, top_p=0.8),
    Sampling(max_length=12, results=3),
    Beam(max_length=12, width=3, results=2),
    Beam(max_length=12, width=4, length_penalty=0.6, penalty="gnmt", stop="full"),
    Beam(max_length=12, width=1, length_penalty=0.0),
]


@pytest.fixture(params=CASES, ids=repr)
def method(request):
    return request.param


def decoded(model, method, prompts=PROMPTS, rows=slice(None), trace=False, stream=None):
    prompts, lengths = ragged(*prompts)
    sources = torch.linspace(-1, 1, 50).view(10, 5).to(model.embedding.dtype)[rows]
    return generate(
        model,
        method,
        prompts[rows],
        SPECIAL,
        prompt_lengths=lengths[rows],
        source=sources,
        seeds=SEEDS[rows],
        trace=trace,
    )


def assert_same(out, expected):
    for name in ("tokens", "lengths", "ended", "near_ties"):
        assert torch.equal(getattr(out, name), getattr(expected, name)), name
    torch.testing.assert_close(out.log_probs, expected.log_probs, rtol=0, atol=1e-12)
    torch.testing.assert_close(out.scores, expected.scores, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_with_states_and_without_is_the_same(method, seed):
    model = Recurrent(seed=seed)
    assert_same(decoded(model, method, stream=model.recomputed()), decoded(model, method))


def test_a_row_alone_is_as_in_the_batch(method):
    """In float64 exactly: the tokens, wherever the row stands, whoever else is there and whenever they are done."""
    lengths = set()
    for seed in (0, 2):
        model = Recurrent(seed=seed)
        together, backwards = decoded(model, method), decoded(model, method, rows=torch.arange(9, -1, -1))
        several = together.results
        lengths |= set(together.lengths.tolist())
        for row in (0, 3, 4, 7, 9):
            alone = decoded(model, method, rows=slice(row, row + 1))
            mine = slice(row * several, (row + 1) * several)
            assert rows_of(alone) == rows_of(together)[mine]
            assert rows_of(alone) == rows_of(backwards)[(9 - row) * several : (10 - row) * several]
            torch.testing.assert_close(alone.scores, together.scores[mine], rtol=0, atol=1e-12)
    assert len(lengths) > 3, "the toys have shown rows that end at different steps"


def test_at_fp32_a_row_differs_only_where_a_near_tie_is_counted(method):
    """Alone, in a batch, and in float64: all three round differently."""
    for seed in range(2):
        model, exact = Recurrent(seed=seed, dtype=torch.float32), decoded(Recurrent(seed=seed), method)
        together = decoded(model, method)
        assert together.log_probs.dtype == torch.float32
        several = exact.results
        for row in (0, 3, 7, 9):
            alone = decoded(model, method, rows=slice(row, row + 1))
            for result, place in enumerate(range(row * several, (row + 1) * several)):
                same = rows_of(alone)[result] == rows_of(together)[place] == rows_of(exact)[place]
                assert same or together.near_ties[place] > 0
        assert together.near_ties.float().mean() < 0.5


def test_log_probs_are_those_of_a_plain_forward(method):
    model = Recurrent(seed=2)
    out = decoded(model, method)
    sources = torch.linspace(-1, 1, 50).view(10, 5).double()
    for row, tokens in enumerate(rows_of(out)):
        prompt = PROMPTS[row // out.results]
        whole = torch.tensor([[*prompt, *tokens]])
        source = sources[row // out.results][None]
        log_probs = model.all_logits(whole, source)[0].log_softmax(-1)
        own = log_probs[len(prompt) - 1 : -1].gather(1, whole[0, len(prompt) :, None]).sum()
        assert out.log_probs[row].item() == pytest.approx(own.item(), abs=1e-12)


def test_the_trace_shows_every_step(method):
    out = decoded(Recurrent(seed=0), method, trace=True)
    assert len(out.trace) == out.steps + 1
    assert out.trace[0].lengths.tolist() == [0] * len(out.trace[0].lengths)
    assert not out.trace[0].done.any()
    assert out.trace[-1].done.all()
    for before, after in zip(out.trace, out.trace[1:], strict=False):
        assert (after.done >= before.done).all()
        if not isinstance(method, Beam):
            assert ((after.lengths - before.lengths) <= 1).all()
            assert (after.lengths[before.done] == before.lengths[before.done]).all()
    if isinstance(method, Beam):
        last = out.trace[-1].tokens
        assert torch.equal(last, out.tokens[:: out.results, : last.shape[1]])
    else:
        assert torch.equal(out.trace[-1].tokens, out.tokens)
    assert decoded(Recurrent(seed=0), method).trace == ()


def test_steps_and_passes(method):
    """A step is one pass but for the last; a prompt that goes on costs passes, too."""
    model = Recurrent(seed=0)
    out = decoded(model, method)
    passes = [call for call in model.calls if call[0] != "reorder"]
    assert len(passes) == out.steps == int(out.passes.max())
    if not isinstance(method, Beam):
        forced = torch.tensor([len(prompt) - 1 for prompt in PROMPTS]).repeat_interleave(out.results)
        assert torch.equal(out.passes, forced + out.lengths)


def test_no_prompt_at_all(method):
    model = Recurrent()
    out = generate(model, method, torch.zeros(0, 3).long(), SPECIAL)
    assert out.tokens.shape == (0, 0)
    assert out.scores.shape == out.lengths.shape == out.passes.shape == (0,)
    assert model.calls == []


def test_no_gradient_is_kept(method):
    model = Recurrent()
    model.output = torch.nn.Parameter(model.output)
    assert not decoded(model, method).scores.requires_grad


def test_prompts_may_be_of_any_whole_type(method):
    model = Recurrent(seed=1)
    prompts, lengths = ragged(*PROMPTS)
    small = generate(model, method, prompts.short(), SPECIAL, prompt_lengths=lengths.int(), seeds=SEEDS)
    assert_same(small, generate(model, method, prompts, SPECIAL, prompt_lengths=lengths, seeds=SEEDS))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_no_distribution(method, value):
    """At once, or only in one row of a later step."""
    word = "NaN" if value != value else r"\+inf"
    with pytest.raises(ValueError, match=f"logits must be scores of a distribution.*{word} in row 0"):
        generate(Table([0.0, 0, 0, value]), method, torch.ones(3, 1).long(), SPECIAL)
    broken = Recurrent(seed=3)
    broken.embedding[5] = value
    if value != value:
        with pytest.raises(ValueError, match="NaN in row"):
            generate(broken, method, torch.tensor([[1, 3, 3], [1, 3, 5], [1, 4, 3]]), SPECIAL)


def test_rows_that_cannot_go_on(method):
    nothing = -float("inf")
    with pytest.raises(
        ValueError, match=r"logits must be above -inf for a token that is allowed, got '-inf for all in row 0"
    ):
        generate(Table([0.0, 0, nothing, nothing]), method, torch.ones(2, 1).long(), SPECIAL)
    with pytest.raises(ValueError, match="-inf only in row 0"):
        generate(Table([nothing] * 4), method, torch.ones(2, 1).long(), SPECIAL)


def test_vocabularies_that_do_not_hold_what_they_must(method):
    with pytest.raises(ValueError, match="eos must be below the 4 tokens that the model scores, got 4"):
        generate(Table([0.0] * 4), method, torch.ones(1, 1).long(), SpecialTokens(0, 4))
    with pytest.raises(ValueError, match="never must be fewer than all 3 tokens that the model scores"):
        generate(Table([0.0] * 3), method, torch.ones(1, 1).long(), SpecialTokens(0, None, (1, 2)))


def test_a_model_in_training_mode(method):
    with pytest.raises(ValueError, match="model must be in evaluation mode"):
        decoded(Recurrent().train(), method)


@pytest.mark.usefixtures("unchecked")
def test_inputs_that_do_not_belong_together(method):
    model, prompts = Recurrent(), torch.ones(3, 4).long()
    for options, message in (
        ({"prompts": prompts[0]}, r"prompts must be of shape \[batch, length\], not empty"),
        ({"prompts": prompts[:, :0]}, r"prompts must be of shape \[batch, length\], not empty, got \(3, 0\)"),
        ({"prompt_lengths": torch.tensor([1, 0, 3])}, "prompt_lengths must be one number from 1 to 4"),
        ({"prompt_lengths": torch.tensor([1, 5, 3])}, "prompt_lengths must be one number from 1 to 4"),
        ({"prompt_lengths": torch.tensor([1, 2])}, "prompt_lengths must be one number from 1 to 4 for each of the 3"),
        ({"seeds": torch.tensor([1, 2])}, r"seeds must be one number for each of the 3 prompts, got \(2,\)"),
        ({"source_lengths": torch.ones(4).long()}, "source_lengths must be one number for each of the 3 prompts"),
    ):
        options = {"prompts": prompts, **options}
        with pytest.raises(ValueError, match=message):
            generate(model, method, special=SPECIAL, **options)
    with pytest.raises(ValueError, match="source_lengths must be given where max_ratio is not 0, got None"):
        generate(model, type(method)(max_ratio=1.0), prompts, SPECIAL)


@pytest.mark.parametrize("name", METHODS)
def test_the_list(name):
    """Frozen specs with a default for every option, found by name."""
    method = METHODS[name]()
    assert method.name == name
    assert is_dataclass(method)
    assert method == METHODS[name]()
    assert hash(method) == hash(METHODS[name]())
    with pytest.raises(FrozenInstanceError):
        setattr(method, fields(method)[0].name, 3)


@pytest.mark.parametrize("ids", [(2, 2, ()), (0, 2, (1, 2)), (0, -1, ())])
def test_an_end_that_cannot_come(ids):
    with pytest.raises(ValueError, match="eos must be a token that may be generated, other than pad and never"):
        SpecialTokens(*ids)
