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
        ("patience", -1, "patience must be at least 0, got -1"),
        ("patience", 2, "patience must be 0, as validate_every is 0, got 2"),
        ("average", -1, "average must be at least 0, got -1"),
        ("average", 6, "average must be at most the number of checkpoints, 5, got 6"),
        ("ema", 1.0, r"ema must be at least 0 and below 1, got 1\.0"),
        ("ema", math.nan, "ema must be at least 0 and below 1, got nan"),
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


def test_two_means_of_weights_are_refused():
    with pytest.raises(ValueError, match="average must be 0, as ema is another mean of weights, got 2"):
        TrainingSettings(average=2, ema=0.9)
