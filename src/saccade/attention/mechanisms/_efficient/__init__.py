"""How `efficient` computes: its features for all positions at once, and its running softmax in chunks."""
