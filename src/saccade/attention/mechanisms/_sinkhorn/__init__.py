"""How `sinkhorn` computes: the balanced order of blocks, attention to them, and what decoding keeps."""
