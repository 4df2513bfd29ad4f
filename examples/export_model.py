"""Export a classifier: one graph for every batch and every length, saved, loaded again, and run.

python examples/export_model.py
"""

import importlib.util
import tempfile
from pathlib import Path

import torch
from torch.export import Dim

from saccade.models.classifier import ClassifierSettings, SequenceClassifier

torch.manual_seed(0)
settings = ClassifierSettings(mechanism=("local(left=16)", "full"), width=32, heads=4, layers=2, hidden=64)
model = SequenceClassifier(vocabulary_size=50, classes=3, settings=settings).eval()


def texts(batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids, and which of them are real: the first text is shorter."""
    lengths = torch.full((batch, 1), length)
    lengths[0] = max(1, length // 2)
    return torch.randint(50, (batch, length)), torch.arange(length) < lengths


batch, length = Dim("batch", min=1, max=1024), Dim("length", min=1, max=4096)
shapes = {"tokens": {0: batch, 1: length}, "key_mask": {0: batch, 1: length}}
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "classifier.pt2"
    torch.export.save(torch.export.export(model, texts(3, 83), dynamic_shapes=shapes), path)
    loaded = torch.export.load(path).module()  # a process that loads it must `import saccade` for its operators
    print(f"one graph of {path.stat().st_size / 1000:.0f} kB for every batch and length")
    for size in ((1, 1), (2, 40), (4, 700)):
        given = texts(*size)
        print(f"batch {size[0]}, length {size[1]:3}: off by {(loaded(*given) - model(*given)).abs().max():.0e}")

if all(importlib.util.find_spec(name) for name in ("onnxscript", "onnxruntime")):
    import onnxruntime

    # ONNX has no operator for a window, so this model sees everything; `docs/export.md` says what else works.
    settings = ClassifierSettings(mechanism="full", width=32, heads=4, layers=1, hidden=64)
    model = SequenceClassifier(vocabulary_size=50, classes=3, settings=settings).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "classifier.onnx"
        torch.onnx.export(model, texts(3, 83), path, dynamo=True, dynamic_shapes=shapes, verbose=False)
        session = onnxruntime.InferenceSession(path)
        given = texts(2, 300)
        names = [each.name for each in session.get_inputs()]
        (out,) = session.run(None, {name: x.numpy() for name, x in zip(names, given, strict=True)})
        print(f"ONNX, batch 2, length 300: off by {(torch.from_numpy(out) - model(*given)).abs().max():.0e}")
