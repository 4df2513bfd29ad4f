"""How `full` computes with other scores and weights than those of torch: chunk by chunk of queries."""
