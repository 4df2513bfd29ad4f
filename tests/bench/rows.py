"""Rows as a comparison would have found them."""

import torch

from saccade.bench.report import Comparison, Row


def row(mechanism, right, seconds=1.0, megabytes=100, examples=400):
    """A finished row that labelled the examples in the range `right` right, in rounds that differ by 1 %."""
    answers = torch.zeros(examples, dtype=torch.bool)
    answers[right.start : right.stop] = True
    return Row(
        mechanism,
        "done",
        parameters=12_345,
        peak_bytes=megabytes * 10**6,
        step_seconds=tuple(seconds * (1 + turn / 100) for turn in range(7)),
        inference_seconds=(0.25,) * 7,
        training_seconds=31.0,
        loss=0.5,
        right=answers,
    )


def comparison(*rows, baseline="full", majority_share=0.2):
    return Comparison(tuple(rows), baseline, majority_share, {"data": "stdlib"}, {"data": {"seed": 3}})
