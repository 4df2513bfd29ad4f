# pyright: reportMissingImports=false
"""What `saccade check` finds in other libraries: one table, peer by probe, with the largest violation and where.

    pip install --no-deps -r benchmarks/requirements.txt
    python benchmarks/leaks.py

Peers that are not installed are named at the end. Each is called as its documentation says, small, with a key
mask if it takes one. Causal forms are checked as such, others for padding. Half a minute on one core.
"""

import argparse
import contextlib
import logging
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

from saccade import check
from saccade.attention import to_mechanism
from saccade.checking import Report

WIDTH, HEADS, BLOCK = 16, 2, 16
SMALL = {
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "intermediate_size": WIDTH,
    "num_hidden_layers": 1,
    "hidden_dropout_prob": 0.0,  # Big Bird makes a new layer, with dropout, in the middle of a call
    "attention_probs_dropout_prob": 0.0,
}
PROBES = ("prefix_causality", "padding", "batch", "lengths")


class Masked(nn.Module):
    """A module on x behind the signature of `check`, its mask under the name that it has there."""

    def __init__(self, inner: nn.Module, mask: str) -> None:
        super().__init__()
        self.inner = inner
        self.mask = mask

    def forward(self, x: torch.Tensor, key_mask: torch.Tensor | None = None) -> Any:
        """What the inner module gives."""
        return self.inner(x, **({} if key_mask is None else {self.mask: key_mask}))


class Unmasked(nn.Module):
    """A module on x without a mask, for causal forms, whose padding stands behind."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> Any:
        """What the inner module gives."""
        return self.inner(x)


def reformer(causal: bool) -> nn.Module:
    """Reformer's layer: buckets by hash, cut into chunks after a sort."""
    from reformer_pytorch import LSHSelfAttention

    return LSHSelfAttention(WIDTH, heads=HEADS, bucket_size=BLOCK, n_hashes=2, causal=causal)


def routing(causal: bool) -> nn.Module:
    """Routing Transformer's layer; its centroids start from the first batch it sees, here before the check."""
    from routing_transformer.routing_transformer import SelfAttention

    layer = SelfAttention(WIDTH, 1, 256, HEADS, 0, 64, causal=causal, shared_qk=causal)
    layer(torch.randn(2, 256, WIDTH))
    return layer


def performer(causal: bool) -> nn.Module:
    """Performer's layer: random features of exponentials."""
    from performer_pytorch import SelfAttention

    return SelfAttention(WIDTH, heads=HEADS, dim_head=WIDTH // HEADS, nb_features=32, causal=causal)


def linformer(causal: bool) -> nn.Module:
    """Linformer's layer: keys and values projected along the sequence. There is no causal form."""
    from linformer import LinformerSelfAttention

    return LinformerSelfAttention(WIDTH, 1024, k=32, heads=HEADS)


def memory_compressed(causal: bool) -> nn.Module:
    """Memory-compressed attention: a strided convolution over keys and values."""
    from memory_compressed_attention import MemoryCompressedAttention

    return MemoryCompressedAttention(WIDTH, heads=HEADS, causal=causal)


def sinkhorn(causal: bool) -> nn.Module:
    """Sinkhorn Transformer's layer: blocks matched with blocks."""
    from sinkhorn_transformer.sinkhorn_transformer import SinkhornSelfAttention

    return SinkhornSelfAttention(WIDTH, BLOCK, 1024, heads=HEADS, causal=causal)


def linear(causal: bool) -> nn.Module:
    """Linear attention."""
    from linear_attention_transformer.linear_attention_transformer import SelfAttention

    return SelfAttention(WIDTH, HEADS, causal=causal)


def local(causal: bool, autopad: bool = False) -> Callable[..., Any]:
    """Windows of local-attention, on q, k and v."""
    from local_attention import LocalAttention

    layer = LocalAttention(BLOCK, causal=causal, autopad=autopad)
    if causal:
        return lambda q, k, v: layer(q, k, v)
    return lambda q, k, v, key_mask=None: layer(q, k, v, mask=key_mask)


def big_bird(causal: bool) -> nn.Module:
    """One layer of Hugging Face's Big Bird."""
    from transformers import BigBirdConfig, BigBirdModel

    config = BigBirdConfig(vocab_size=2, max_position_embeddings=2048, block_size=BLOCK, num_random_blocks=2, **SMALL)
    model = BigBirdModel(config, add_pooling_layer=False)
    return Embedded(model)


def nystromformer(causal: bool) -> nn.Module:
    """One layer of Hugging Face's Nystromformer, with fewer landmarks than tokens."""
    from transformers import NystromformerConfig, NystromformerModel

    config = NystromformerConfig(
        vocab_size=2, max_position_embeddings=2048, segment_means_seq_len=128, num_landmarks=16, **SMALL
    )
    return Embedded(NystromformerModel(config))


class MultiHead(nn.Module):
    """torch's own layer as self-attention, its mask the other way around."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: torch.Tensor, key_mask: torch.Tensor | None = None) -> torch.Tensor:
        """The output without the weights."""
        return self.inner(x, x, x, key_padding_mask=None if key_mask is None else ~key_mask, need_weights=False)[0]


def multihead(causal: bool) -> nn.Module:
    """Full attention in torch."""
    return MultiHead()


class Embedded(nn.Module):
    """A Hugging Face model on embeddings instead of tokens."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """The hidden states of the last layer."""
        mask = None if attention_mask is None else attention_mask.long()
        return self.model(inputs_embeds=x, attention_mask=mask).last_hidden_state


@dataclass(frozen=True)
class Peer:
    """A library and how to check it.

    Attributes:
        package: its name on the package index.
        build: gives its layer, causal or not.
        mask: what the layer calls its key mask.
        forms: which forms there are: causal, not causal.
        on: what the layer takes.
        probes: what it is checked with.
    """

    package: str
    build: Callable[[bool], Any]
    mask: str = "input_mask"
    forms: tuple[bool, ...] = (True, False)
    on: str = "x"
    probes: tuple[str, ...] = PROBES

    def check(self, causal: bool) -> Report:
        """The probes on one of its forms, built from a fixed seed."""
        torch.manual_seed(0)
        target = self.build(causal)
        if self.on == "x":
            target = Unmasked(target) if causal else Masked(target, self.mask)
        return check(target, on=self.on, causal=causal, probes=self.probes, width=WIDTH if self.on == "x" else None)


PEERS = {
    "reformer-pytorch": Peer("reformer-pytorch", reformer),
    "routing-transformer": Peer("routing-transformer", routing),
    "performer-pytorch": Peer("performer-pytorch", performer, mask="mask"),
    "linformer": Peer("linformer", linformer, forms=(False,)),
    "memory-compressed-attention": Peer("memory-compressed-attention", memory_compressed),
    "sinkhorn-transformer": Peer("sinkhorn-transformer", sinkhorn),
    "HF Big Bird": Peer("transformers", big_bird, mask="attention_mask", forms=(False,)),
    "HF Nystromformer": Peer(
        "transformers", nystromformer, mask="attention_mask", forms=(False,), probes=("padding", "lengths")
    ),
    "torch MultiheadAttention": Peer(
        "torch", multihead, mask="key_mask", forms=(False,), probes=(*PROBES, "empty_rows")
    ),
    "linear-attention-transformer": Peer("linear-attention-transformer", linear),
    "local-attention": Peer("local-attention", local, on="qkv"),
    "local-attention, autopad": Peer("local-attention", partial(local, autopad=True), on="qkv"),
}
OURS = ("full", "local(left=16)", "big_bird(block=16)", "linear")


def main() -> None:
    """Check every peer that is installed, then our own layers, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[*PEERS, *OURS], action="append", help="check these alone; repeat at will")
    only = parser.parse_args().only or [*PEERS, *OURS]
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    begin, rows, missing = time.perf_counter(), [], []
    with contextlib.redirect_stdout(sys.stderr):  # some peers print while they are imported
        for name in only:
            try:
                rows += peer_rows(name) if name in PEERS else our_rows(name)
            except ImportError as error:
                missing.append(f"{PEERS[name].package}: {error}")
    print_table(rows)
    print(f"\ntorch {torch.__version__}, {time.perf_counter() - begin:.0f} s")
    if missing:
        print("\nnot checked, as they cannot be imported:", *missing, sep="\n  ")
        print("install them with: pip install --no-deps -r benchmarks/requirements.txt")


def peer_rows(name: str) -> list[tuple[str, ...]]:
    """The rows of one library: those of its causal form, then of the other."""
    peer = PEERS[name]
    try:
        label = f"{name} {version(peer.package)}"
    except PackageNotFoundError as error:
        raise ImportError(f"{peer.package} is not installed") from error
    forms = {True: "causal", False: "not causal"}
    return [row for causal in peer.forms for row in report_rows(label, forms[causal], peer.check(causal))]


def our_rows(name: str) -> list[tuple[str, ...]]:
    """The rows of one of our own layers, held to its claims by the same probes."""
    spec = to_mechanism(name)
    report = check(spec.build(heads=HEADS, head_dim=8), claims=spec.claims, probes=PROBES)
    return report_rows(f"saccade {name}", "both", report)


def report_rows(label: str, form: str, report: Report) -> list[tuple[str, ...]]:
    """A row for each probe that ran."""
    return [
        (label, form, each.probe, each.status, number(each.violation), " ".join(each.where.split()))
        for each in report.results
        if each.status != "not claimed"
    ]


def number(violation: float | None) -> str:
    """Two digits of a violation; a dash where there is none to speak of."""
    return "-" if violation is None else f"{violation:.0e}"


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Aligned columns, in the form of Markdown."""
    rows = [("peer", "form", "probe", "status", "violation", "where"), *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = ["| " + " | ".join([*map(str.ljust, row[:-1], widths), row[-1]]) + " |" for row in rows]
    print("\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]))


if __name__ == "__main__":
    main()
