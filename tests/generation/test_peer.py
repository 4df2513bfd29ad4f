"""The same weights in Hugging Face's own loop: the same tokens, and scores as far as its fp32 goes."""

import pytest
import torch
from toy_models import rows_of

from saccade.generation import Beam, Greedy, Recomputed, SpecialTokens, generate

transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'saccade[hf]'")

VOCABULARY, LENGTH = 23, 12


@pytest.fixture(scope="module")
def peer():
    sizes = {"n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.6}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.GPT2Config(vocab_size=VOCABULARY, eos_token_id=2, pad_token_id=0, bos_token_id=1, **sizes)
        return transformers.GPT2LMHeadModel(config).double().eval()


def theirs(peer, prompts, **options):
    """What their loop writes behind the prompts, without what it fills up with, and their scores."""
    options = {"max_new_tokens": LENGTH, "do_sample": False, "bad_words_ids": [[0]], **options}
    mask = torch.ones_like(prompts)
    out = peer.generate(prompts, attention_mask=mask, return_dict_in_generate=True, output_scores=True, **options)
    rows = [tuple(row[prompts.shape[1] :].tolist()) for row in out.sequences]
    return [row[: row.index(2) + 1] if 2 in row else row for row in rows], getattr(out, "sequences_scores", None)


def prompts():
    return torch.randint(3, VOCABULARY, (8, 4), generator=torch.Generator().manual_seed(1))


def ours(peer, method):
    return generate(Recomputed(lambda tokens: peer(tokens).logits), method, prompts(), SpecialTokens(pad=0, eos=2))


@pytest.mark.parametrize("min_length", [0, 4])
def test_greedy(peer, min_length):
    out = ours(peer, Greedy(max_length=LENGTH, min_length=min_length))
    assert rows_of(out) == theirs(peer, prompts(), min_new_tokens=min_length)[0]
    assert len(set(out.lengths.tolist())) > 2


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 2.0])
@pytest.mark.parametrize(("stop", "early_stopping"), [("full", True), ("exact", "never")])
def test_beam(peer, length_penalty, stop, early_stopping):
    method = Beam(width=4, results=3, max_length=LENGTH, length_penalty=length_penalty, stop=stop)
    options = {"num_beams": 4, "num_return_sequences": 3, "early_stopping": early_stopping}
    rows, scores = theirs(peer, prompts(), length_penalty=length_penalty, **options)
    out = ours(peer, method)
    assert rows_of(out) == rows
    torch.testing.assert_close(out.scores.float(), scores.float(), rtol=0, atol=1e-5)
