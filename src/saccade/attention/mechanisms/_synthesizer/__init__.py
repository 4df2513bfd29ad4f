"""How `synthesizer` computes: what its parts learn, their logits, and attention by them chunk by chunk of queries."""
