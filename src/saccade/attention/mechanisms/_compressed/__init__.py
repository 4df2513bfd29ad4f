"""How `compressed` computes: groups of tokens that stand in the place of tokens, and attention to them."""
