import pytest
import torch
from evidence_cases import banded, softmax_weights

from saccade.attention import to_mechanism
from saccade.bench.evidence.candidates import candidates, pattern_of
from saccade.bench.evidence.kept_weight import KeptWeight


def kept_of(mechanism, *examples):
    kept = KeptWeight([to_mechanism(mechanism)])
    for each in examples:
        kept.add(each)
    return kept.results[0]


def test_what_is_kept_is_the_weight_on_the_mask():
    examples = [softmax_weights(2, 3, n, n, seed=n) for n in (5, 8)]
    found = kept_of("local(left=2, right=1)", *examples)
    rows, best, pairs = [], [], 0
    for weights in examples:
        n = weights.shape[-1]
        for q in range(n):
            keys = [k for k in range(n) if q - 2 <= k <= q + 1]
            pairs += len(keys)
            rows.append(weights[:, :, q, keys].sum(-1))
            best.append(weights[:, :, q].topk(len(keys)).values.sum(-1))
    assert found.pairs == pytest.approx(pairs / (25 + 64))
    torch.testing.assert_close(found.kept, torch.stack(rows).mean(0))
    torch.testing.assert_close(found.best, torch.stack(best).mean(0))
    assert found.mean == pytest.approx(found.kept.mean().item())


def test_layers_are_held_against_their_own_draws():
    spec = to_mechanism("Random(1, block=2)")
    weights = softmax_weights(2, 3, 16, 16)
    found = kept_of(spec, weights)
    for layer in range(2):
        mask = pattern_of(spec, layer).dense(16, 16)
        torch.testing.assert_close(found.kept[layer], (weights[layer] * mask).sum(-1).mean(-1))


def test_heads_are_held_against_their_own_draws():
    spec = to_mechanism("big_bird(block=2, per_head=True)")
    weights = softmax_weights(1, 3, 32, 32)
    mask = pattern_of(spec).dense(32, 32, heads=3)[0]
    assert not torch.equal(mask[0], mask[1])
    torch.testing.assert_close(kept_of(spec, weights).kept[0], (weights[0] * mask).sum(-1).mean(-1))


def test_no_pattern_keeps_more_than_the_heaviest_keys():
    kept = KeptWeight(candidates())
    kept.add(softmax_weights(2, 3, 96, 96))
    assert all((each.best >= each.kept - 1e-5).all() for each in kept.results)


def test_most_comes_first_and_among_equals_the_cheapest():
    kept = KeptWeight([to_mechanism(f"local(left={left})") for left in (9, 2, 4, 6)])
    kept.add(banded(40, 4))
    assert [each.mechanism.left for each in kept.results] == [4, 6, 9, 2]


def test_only_the_size_of_a_weight_counts_and_queries_count_alike():
    weights = torch.tensor([[4.0, -4.0], [0.0, 1.0]])[None, None]
    assert kept_of("local(left=0)", weights).kept.item() == pytest.approx((0.5 + 1) / 2)


def test_a_query_that_sees_nothing_is_not_counted():
    weights = torch.tensor([[0.0, 0.0], [0.25, 0.75]])[None, None]
    found = kept_of("local(left=0)", weights)
    assert found.kept.item() == pytest.approx(0.75)
    assert found.best.item() == pytest.approx(0.75)


def test_a_query_to_which_the_pattern_shows_nothing_keeps_nothing():
    weights = torch.tensor([[0.5, 0.5], [0.25, 0.75]])[None, None]
    found = kept_of("Local(0) & Global(1)", weights)
    mask = pattern_of(found.mechanism).dense(2, 2)
    assert mask.tolist() == [[True, False], [False, False]]
    assert found.kept.item() == found.best.item() == pytest.approx(0.25)
