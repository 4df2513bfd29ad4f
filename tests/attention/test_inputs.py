"""Inputs of mechanisms whose queries and keys are one sequence."""

import pytest
import torch

from saccade.attention import to_mechanism
from saccade.attention.inputs import validate_one_sequence


def tensors(n_q=5, n_k=5, heads=4, key_heads=2):
    return torch.randn(2, heads, n_q, 3), torch.randn(2, key_heads, n_k, 3), torch.randn(2, key_heads, n_k, 7)


def test_one_sequence_is_taken_and_two_are_refused():
    validate_one_sequence(*tensors(), torch.ones(2, 5, dtype=torch.bool), 0)
    with pytest.raises(ValueError, match="k's length must be q's, 4, as queries and keys are one sequence, got 5"):
        validate_one_sequence(*tensors(n_q=4), None, 0)
    with pytest.raises(ValueError, match="q_start must be 0, as queries and keys are one sequence, got 2"):
        validate_one_sequence(*tensors(), None, 2)


def test_with_shared_queries_and_keys_anything_goes_for_k():
    q, _, v = tensors()
    for k in (None, torch.zeros(1)):
        validate_one_sequence(q, k, v, None, 0, shared_qk=True)
    with pytest.raises(ValueError, match=r"v's heads and length must be k's, \(2, 5\), got \(2, 6\)"):
        validate_one_sequence(q, None, tensors(n_k=6)[2], None, 0, shared_qk=True)
    with pytest.raises(ValueError, match="key heads must be a divisor of the 4 query heads, got 3"):
        validate_one_sequence(q, None, tensors(key_heads=3)[2], None, 0, shared_qk=True)


@pytest.mark.parametrize("shared_qk", [False, True])
def test_what_every_call_owes_its_inputs_is_checked_too(shared_qk):
    q, k, v = tensors()
    with pytest.raises(ValueError, match=r"q must be of shape \[b h q d\]"):
        validate_one_sequence(q[0], k, v, None, 0, shared_qk)
    with pytest.raises(ValueError, match=r"v must be of shape \[b g k e\]"):
        validate_one_sequence(q, k, v[0], None, 0, shared_qk)
    with pytest.raises(TypeError, match="key_mask must be a boolean tensor"):
        validate_one_sequence(q, k, v, torch.ones(2, 5), 0, shared_qk)


@pytest.mark.parametrize(
    ("mechanism", "name", "sizes"),
    [
        ("routing", "q", "4 heads of 3"),
        ("sinkhorn(scores='linear')", "q", "4 heads of 3"),
        ("compressed", "k", "2 heads of 3"),
    ],
)
def test_what_has_weights_refuses_other_sizes_than_it_was_built_for(mechanism, name, sizes):
    layer = to_mechanism(mechanism).build(4, 3, 2, 7)
    layer(*tensors())
    with pytest.raises(ValueError, match=f"{name} must be of {sizes} numbers, for which the layer was built, got"):
        layer(*tensors(heads=2, key_heads=1))
