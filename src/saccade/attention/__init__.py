"""Attention: pure functions and mechanisms on queries, keys and values; no model, no data."""

from saccade.attention.dispatch import attend

__all__ = ["attend"]
