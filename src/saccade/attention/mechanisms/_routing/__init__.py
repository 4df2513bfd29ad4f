"""How `routing` computes: who is in which cluster, attention among gathered rows, and what decoding keeps."""
