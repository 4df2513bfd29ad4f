"""One page of documentation for each mechanism, made from its docstring, claims, cost, and a picture of its weights."""
