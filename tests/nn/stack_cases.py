"""Every mechanism of the list, small enough to be seen at work on a few tokens, and modules with biases."""

from torch import nn

from saccade.attention import MECHANISMS, to_mechanism

SMALL = {
    "sparse": "sparse(pattern=Local(4, 1) | Global(2, rows=False))",
    "local": "local(left=3, right=2)",
    "strided": "strided(stride=5)",
    "sparse_transformer": "sparse_transformer(stride=4)",
    "longformer": "longformer(window=6)",
    "big_bird": "big_bird(block=4, random_blocks=1)",
    "lsh": "lsh(bucket=3, rounds=2, causal_buckets=4)",
    "routing": "routing(clusters=3, window=4)",
    "sinkhorn": "sinkhorn(block=5, gumbel=0)",
    "linformer": "linformer(rank=4, max_length=60)",
    "compressed": "compressed(stride=2, kernel=3)",
    "rfa": "rfa(features=16)",
    "performer": "performer(features=12)",
    "synthesizer": "synthesizer(max_length=60)",
    "mixed": "mixed([('local(left=3)', 1), (linear, 1)])",
}
SPECS = {name: to_mechanism(SMALL.get(name, name)) for name in MECHANISMS} | {
    "rfa_gate": to_mechanism("rfa(features=16, gate=True)")
}
STREAMING = [name for name, spec in SPECS.items() if spec.claims.streaming]
CROSS = [name for name, spec in SPECS.items() if spec.claims.cross and not spec.claims.causal_only]


def shaken(module):
    """In float64 and evaluation, with biases and scales away from zero and one, where a lost one would show."""
    for weight in module.parameters():
        if weight.ndim == 1:
            nn.init.normal_(weight, 0.5, 0.3)
    return module.double().eval()
