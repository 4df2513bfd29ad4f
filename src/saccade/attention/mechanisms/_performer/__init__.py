"""How `performer` computes: random directions, positive features, and sums of them that never overflow."""
