"""How `lsh` computes: hashing, sorting, and softmax among sorted rows."""
