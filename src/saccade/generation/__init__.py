"""Decoding: from a model and a prompt to tokens.

```python
from saccade.generation import Beam, SpecialTokens, generate

out = generate(model, Beam(width=5), prompts, SpecialTokens(pad=0, eos=2, never=(1, 3)))
out.tokens, out.lengths, out.scores
```

A decoding method is one file and one line in `METHODS`.
"""

from saccade.generation.beam import Beam
from saccade.generation.greedy import Greedy
from saccade.generation.loop import generate
from saccade.generation.method import Generated, Method, Request, Snapshot, SpecialTokens
from saccade.generation.recomputed import Recomputed
from saccade.generation.sampling import Sampling
from saccade.generation.stream import Stream
from saccade.generation.windowed import Windowed

METHODS: dict[str, type[Method]] = {method.name: method for method in (Greedy, Sampling, Beam)}
"""THE LIST of decoding methods, by name: every option of each has a default."""

__all__ = [
    "METHODS",
    "Beam",
    "Generated",
    "Greedy",
    "Method",
    "Recomputed",
    "Request",
    "Sampling",
    "Snapshot",
    "SpecialTokens",
    "Stream",
    "Windowed",
    "generate",
]
