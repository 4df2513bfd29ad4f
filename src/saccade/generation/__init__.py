"""Decoding: from a model and a prompt to tokens."""
