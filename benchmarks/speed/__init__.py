"""The sections of `benchmarks/attention.py`."""
