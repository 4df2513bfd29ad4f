"""Convert a softmax language model to other attention, and see how much of its quality fine-tuning brings back.

python examples/convert_model.py

Makes a small GPT-2 of transformers, trains it on the bytes of Python's standard library, and converts copies of it: all
weights stay, only who looks at whom changes. Some two minutes on two cores; `--steps 1000 --tune 400 --length 256` is
better and slower.
"""

import argparse
import copy
import sysconfig
from pathlib import Path

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from saccade.integrations.transformers import register

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=300, help="steps of training the softmax model")
parser.add_argument("--tune", type=int, default=100, help="steps of fine-tuning each conversion")
parser.add_argument("--width", type=int, default=96)
parser.add_argument("--layers", type=int, default=3)
parser.add_argument("--length", type=int, default=128, help="bytes in an example")
parser.add_argument("--batch", type=int, default=16)
asked = parser.parse_args()


def read(megabytes: int = 4) -> tuple[Tensor, Tensor]:
    """Bytes of the standard library to train on, and others, of other files, to test on."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    train, test = bytearray(), bytearray()
    for number, file in enumerate(files):
        (test if number % 10 == 0 else train).extend(file.read_bytes())
    limit = megabytes * 2**20
    first, second = (torch.frombuffer(part[:limit], dtype=torch.uint8).long() for part in (train, test))
    return first, second


def examples(text: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Pieces of the text from anywhere."""
    starts = torch.randint(len(text) - asked.length, (count, 1), generator=generator)
    return text[starts + torch.arange(asked.length)]


def train(model: GPT2LMHeadModel, text: Tensor, steps: int, rate: float, seed: int) -> None:
    """Next-byte prediction by AdamW, the rate rising and falling again."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=max(steps, 2), pct_start=0.1)
    model.train()
    for _ in range(steps):
        batch = examples(text, asked.batch, generator)
        optimizer.zero_grad()
        model(batch, labels=batch, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def loss(model: GPT2LMHeadModel, text: Tensor) -> float:
    """Bits a byte on the same 96 pieces."""
    batches = examples(text, 96, torch.Generator().manual_seed(0)).split(16)
    model.eval()
    return sum(model(batch, labels=batch, use_cache=False).loss.item() for batch in batches) / len(batches) / 0.6931


torch.manual_seed(0)
train_text, test_text = read()
config = GPT2Config(
    vocab_size=256,
    n_positions=asked.length,
    n_embd=asked.width,
    n_layer=asked.layers,
    n_head=4,
    attn_pdrop=0.0,  # mechanisms without a softmax have no weights to drop
    bos_token_id=0,
    eos_token_id=0,
)
softmax = GPT2LMHeadModel(config)
train(softmax, train_text, asked.steps, 2e-3, seed=1)
before = loss(softmax, test_text)
longer = copy.deepcopy(softmax)
train(longer, train_text, asked.tune, 1e-3, seed=2)
best = loss(longer, test_text)

window = max(1, asked.length // 16)
print(f"{'attention':16} {'trained':>8} {'converted':>10} {'fine-tuned':>11} {'regained':>9}   bits a byte")
print(f"{'softmax':16} {before:8.3f} {'-':>10} {best:11.3f} {'-':>9}   trained on for as many steps")
for name in ("linear", f"local(left={window})", f"local(left={window // 4})"):
    model = copy.deepcopy(softmax)
    model.set_attn_implementation(register(name))
    converted = loss(model, test_text)
    train(model, train_text, asked.tune, 1e-3, seed=2)
    tuned = loss(model, test_text)
    regained = (converted - tuned) / (converted - best)
    print(f"{name:16} {before:8.3f} {converted:10.3f} {tuned:11.3f} {regained:9.0%}")
