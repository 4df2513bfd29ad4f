"""Attention: pure functions and mechanisms on queries, keys and values; no model, no data."""

from saccade.attention.dispatch import attend
from saccade.attention.mechanism import AttentionLayer, Cost, Mechanism, after_step
from saccade.attention.mechanisms import MECHANISMS, to_mechanism
from saccade.attention.states import reorder

__all__ = ["MECHANISMS", "AttentionLayer", "Cost", "Mechanism", "after_step", "attend", "reorder", "to_mechanism"]
