"""Leaks of the future at single positions: the seams of some chunk size, or where a buffer ends."""

import pytest
import torch

from saccade.checking import check


def leaking_where(leaks):
    """Softmax attention in which the queries that `leaks` names also see the next key."""

    def attention(q, k, v, key_mask=None, causal=False):
        i, j = torch.arange(q.shape[2])[:, None], torch.arange(k.shape[2])
        seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
        if causal:
            seen = (i >= j) | ((j == i + 1) & leaks(j))
        if key_mask is not None:
            seen = seen & key_mask[:, None, None]
            k, v = (x.masked_fill(~key_mask[:, None, :, None], 0) for x in (k, v))
        scores = (q @ k.mT).masked_fill(~seen, -torch.inf)
        return scores.softmax(-1).masked_fill(~seen, 0) @ v

    return attention


@pytest.mark.parametrize("chunk", [10, 80, 300, 512])
def test_a_leak_at_the_seams_of_chunks_is_found(chunk):
    report = check(leaking_where(lambda j: j % chunk == 0), probes=["prefix_causality"])
    assert not report.passed


def test_a_leak_at_one_position_is_found():
    report = check(leaking_where(lambda j: j == 21), probes=["prefix_causality"])
    assert "position 20" in report.results[0].where


def test_no_leak_is_no_alarm():
    assert check(leaking_where(lambda j: j < 0), probes=["prefix_causality"]).passed
