"""How `rfa` computes: unit vectors, random directions and their features, sums, and gates that let them fade."""
