import math

import pytest

from saccade.training import TrainingSettings


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", 0, "steps must be at least 1, got 0"),
        ("batch_size", 0, "batch_size must be at least 1, got 0"),
        ("accumulate", 0, "accumulate must be at least 1, got 0"),
        ("log_every", 0, "log_every must be at least 1, got 0"),
        ("checkpoint_every", -1, "checkpoint_every must be at least 0, got -1"),
        ("validate_every", -1, "validate_every must be at least 0, got -1"),
        ("seed", -1, "seed must be at least 0, got -1"),
        ("learning_rate", 0.0, "learning_rate must be positive and finite, got 0.0"),
        ("learning_rate", math.nan, "learning_rate must be positive and finite, got nan"),
        ("warmup", 1.5, "warmup must be a share of the steps, from 0 to 1, got 1.5"),
        ("weight_decay", -0.1, "weight_decay must be at least 0 and finite, got -0.1"),
        ("clip", 0.0, r"clip must be positive \(inf clips nothing\), got 0.0"),
        ("clip", math.nan, "clip must be positive"),
        ("precision", "bf61", r"precision must be one of bf16, fp32, got 'bf61' \(did you mean 'bf16'\?\)"),
        (
            "decay",
            "cosin",
            r"decay must be one of cosine, inverse_sqrt, linear, got 'cosin' \(did you mean 'cosine'\?\)",
        ),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(unchecked, name, value, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**{name: value})
