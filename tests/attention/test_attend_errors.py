"""Bad inputs: each is refused, by name, in the one form that errors have, whatever backend was asked for."""

import math

import pytest
import torch

from saccade import Full, Local, attend
from saccade.attention.mechanisms import MECHANISMS

B, H, G, Q, K, D, E = 2, 6, 3, 5, 11, 7, 13


@pytest.fixture(autouse=True)
def _as_users_run_it(unchecked):
    """The messages are ours to give: beartype and jaxtyping are not there outside of tests."""


def inputs(**changes):
    return {"q": torch.ones(B, H, Q, D), "k": torch.ones(B, G, K, D), "v": torch.ones(B, G, K, E), **changes}


BAD_TENSORS = {
    "q_list": ({"q": [[1.0]]}, TypeError, r"q must be a tensor \[b h q d\], got"),
    "k_none": ({"k": None}, TypeError, r"k must be a tensor \[b g k d\], got"),
    "v_number": ({"v": 3.0}, TypeError, r"v must be a tensor \[b g k e\], got"),
    "q_three_axes": ({"q": torch.ones(B, Q, D)}, ValueError, r"q must be of shape \[b h q d\], got \(2, 5, 7\)"),
    "k_five_axes": ({"k": torch.ones(1, B, G, K, D)}, ValueError, r"k must be of shape .*\(1, 2, 3, 11, 7\)"),
    "v_scalar": ({"v": torch.tensor(1.0)}, ValueError, r"v must be of shape .*\(\)"),
    "q_whole": ({"q": torch.ones(B, H, Q, D).long()}, ValueError, "q must be floating point.*int64"),
    "k_bool": ({"k": torch.ones(B, G, K, D) > 0}, ValueError, "k must be floating point.*bool"),
    "k_double": ({"k": torch.ones(B, G, K, D).double()}, ValueError, "k must be .*float32, got torch.float64"),
    "v_half": ({"v": torch.ones(B, G, K, E).half()}, ValueError, "v must be .*float32, got torch.float16"),
    "k_elsewhere": ({"k": torch.ones(B, G, K, D, device="meta")}, ValueError, "k must be on q's device cpu.*meta"),
    "v_elsewhere": ({"v": torch.ones(B, G, K, E, device="meta")}, ValueError, "v must be on q's device cpu.*meta"),
    "k_batch": ({"k": torch.ones(3, G, K, D)}, ValueError, "k must be .*batch size 2, got .*3"),
    "v_batch": ({"v": torch.ones(1, G, K, E)}, ValueError, "v must be .*batch size 2, got .*1"),
    "k_dim": ({"k": torch.ones(B, G, K, 8)}, ValueError, "k's last axis must be .*7, got 8"),
    "v_length": ({"v": torch.ones(B, G, 12, E)}, ValueError, r"v's heads and length must be .*\(3, 12\)"),
    "v_heads": ({"v": torch.ones(B, 6, K, E)}, ValueError, r"v's heads and length must be .*\(6, 11\)"),
    "heads": (
        {"k": torch.ones(B, 4, K, D), "v": torch.ones(B, 4, K, E)},
        ValueError,
        "key heads must be a divisor of the 6 query heads, got 4",
    ),
    "more_key_heads": (
        {"k": torch.ones(B, 12, K, D), "v": torch.ones(B, 12, K, E)},
        ValueError,
        "key heads must be a divisor of the 6 query heads, got 12",
    ),
    "no_key_heads": (
        {"k": torch.ones(B, 0, K, D), "v": torch.ones(B, 0, K, E)},
        ValueError,
        "key heads must be a divisor of the 6 query heads, got 0",
    ),
    "no_dim": ({"q": torch.ones(B, H, Q, 0), "k": torch.ones(B, G, K, 0)}, ValueError, "must be .*got"),
    "mask_float": ({"key_mask": torch.ones(B, K)}, TypeError, "key_mask must be a boolean tensor.*float32"),
    "mask_whole": ({"key_mask": torch.ones(B, K).long()}, TypeError, "key_mask must be a boolean .*int64"),
    "mask_list": ({"key_mask": [[True] * K] * B}, TypeError, "key_mask must be a boolean tensor.*list"),
    "mask_short": (
        {"key_mask": torch.ones(B, 10, dtype=torch.bool)},
        ValueError,
        r"key_mask must be of shape \[b k\] = \(2, 11\).*\(2, 10\)",
    ),
    "mask_of_queries": ({"key_mask": torch.ones(B, Q, dtype=torch.bool)}, ValueError, "key_mask must be of shape"),
    "mask_of_one_example": ({"key_mask": torch.ones(K, dtype=torch.bool)}, ValueError, r"key_mask must be .*\(11,\)"),
    "mask_broadcast": ({"key_mask": torch.ones(1, K, dtype=torch.bool)}, ValueError, r"key_mask must be .*\(1, 11\)"),
    "mask_of_pairs": (
        {"key_mask": torch.ones(B, 1, Q, K, dtype=torch.bool)},
        ValueError,
        "key_mask must be of shape",
    ),
    "mask_elsewhere": (
        {"key_mask": torch.ones(B, K, dtype=torch.bool, device="meta")},
        ValueError,
        "key_mask must be of shape .* on cpu, got .*meta",
    ),
    "q_start_negative": ({"q_start": -1}, ValueError, "q_start must be a whole number, at least 0, got -1"),
    "q_start_fraction": ({"q_start": 1.5}, (TypeError, ValueError), "q_start must be .*got 1.5"),
    "q_start_bool": ({"q_start": True}, (TypeError, ValueError), "q_start must be .*got True"),
    "q_start_none": ({"q_start": None}, (TypeError, ValueError), "q_start must be .*got None"),
}

BAD_OPTIONS = {
    "pattern_text": ({"pattern": "causal"}, TypeError, "pattern must be a pattern.*got 'causal'"),
    "pattern_class": ({"pattern": Full}, TypeError, "pattern must be a pattern.*got"),
    "pattern_mask": ({"pattern": torch.ones(Q, K, dtype=torch.bool)}, TypeError, "pattern must be a pattern"),
    "pattern_none": ({"pattern": None}, TypeError, "pattern must be a pattern.*got None"),
    "scale_nan": ({"scale": math.nan}, ValueError, "scale must be .*got nan"),
    "scale_inf": ({"scale": math.inf}, ValueError, "scale must be .*got inf"),
    "scale_text": ({"scale": "1"}, (TypeError, ValueError), "scale must be .*got '1'"),
    "dropout_one": ({"dropout": 1.0}, ValueError, "dropout must be .*got 1.0"),
    "dropout_negative": ({"dropout": -0.1}, ValueError, "dropout must be .*got -0.1"),
    "dropout_nan": ({"dropout": math.nan}, ValueError, "dropout must be .*got nan"),
    "dropout_text": ({"dropout": "0.1"}, (TypeError, ValueError), "dropout must be .*got '0.1'"),
    "dropout_none": ({"dropout": None}, (TypeError, ValueError), "dropout must be .*got None"),
    "backend_near": ({"backend": "blockwize"}, ValueError, "backend must be one of auto, .*did you mean 'blockwise'"),
    "backend_far": ({"backend": "xyz"}, ValueError, "backend must be one of auto, blockwise, .*, reference, got"),
    "backend_none": ({"backend": None}, (TypeError, ValueError), "backend must be .*got None"),
    "bias_axes": ({"bias": torch.ones(Q, K)}, ValueError, r"bias must be .*\(2, 6, 5, 11\), got .*\(5, 11\)"),
    "bias_shape": ({"bias": torch.ones(B, G, Q, K)}, ValueError, r"bias must be .*got .*\(2, 3, 5, 11\)"),
    "bias_bool": ({"bias": torch.ones(B, H, Q, K) > 0}, (TypeError, ValueError), "bias must be floating .*bool"),
    "bias_list": ({"bias": [[0.0]]}, (TypeError, ValueError), "bias must be"),
    "bias_elsewhere": ({"bias": torch.ones(B, H, Q, K, device="meta")}, ValueError, "bias must be .*meta"),
}


@pytest.mark.parametrize("backend", ["auto", "reference", "dense", "blockwise"])
@pytest.mark.parametrize("name", BAD_TENSORS)
def test_inputs_that_do_not_belong_together_are_refused(name, backend):
    changes, error, message = BAD_TENSORS[name]
    with pytest.raises(error, match=message):
        attend(**inputs(pattern=Local(2), backend=backend) | changes)


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_options_that_mean_nothing_are_refused(name):
    changes, error, message = BAD_OPTIONS[name]
    with pytest.raises(error, match=message):
        attend(**inputs(**changes))


def test_the_good_inputs_are_good():
    """Otherwise everything above could be refused for one and the same reason."""
    mask = torch.ones(B, K, dtype=torch.bool)
    out = attend(**inputs(pattern=Local(2), key_mask=mask, q_start=6, scale=0.5, dropout=0.1))
    assert out.shape == (B, H, Q, E)
    assert attend(**inputs(bias=torch.ones(1, H, 1, K))).shape == (B, H, Q, E)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("name", BAD_TENSORS)
def test_every_mechanism_refuses_the_same_inputs(name, mechanism):
    changes, error, message = BAD_TENSORS[name]
    spec = MECHANISMS[mechanism]()
    if "k" not in spec.inputs and (set(changes) == {"k"} or name in ("v_heads", "v_length")):
        pytest.skip("keys are not read")
    layer = spec.build(heads=H, head_dim=D, kv_heads=G, value_dim=E)
    good = inputs() if spec.claims.cross else inputs(q=torch.ones(B, H, K, D))
    with pytest.raises(error, match=message):
        layer(**good | changes)
