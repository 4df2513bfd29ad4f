"""Measuring and comparing: cost, speed, memory, score, and the pictures of all that.

`cost`, `show` and `bench` need the core only; `compare` needs what training needs, and is imported where it is used.
"""

from saccade.bench.cost import cost

__all__ = ["cost"]
