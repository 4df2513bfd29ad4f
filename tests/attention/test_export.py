"""`torch.export` with a batch and a length that vary: what the probe `export` does not see."""

import importlib.util
import os
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn
from torch.export import Dim

from saccade import Local, Segments
from saccade.attention import MECHANISMS, dispatch, to_mechanism
from saccade.attention.dispatch import attend
from saccade.models.classifier import ClassifierSettings, SequenceClassifier
from saccade.nn import Encoder

H, D, N = 2, 4, 83
CONVERTED = [("full", True), ("compressed", True), ("efficient", False)]
"""To ONNX; it takes seconds for each."""
if os.environ.get("ONNX") == "all":
    CONVERTED += [
        (text, causal)
        for text in (
            *("full(score='cosine')", "linear", "linear(feature='relu')", "linear(feature='dpfp')"),
            *("linear(feature='taylor')", "linear(feature='hedgehog')", "efficient", "performer(features=8)"),
            *("rfa(features=8)", "synthesizer(max_length=400)", "linformer(max_length=400)"),
            *("synthesizer('random+fixed+factorised_random', max_length=400)", "rfa(features=8, gate=True)"),
            "synthesizer('factorised_dense+dot', max_length=400)",
        )
        for causal in (False, True)
        if causal or "gate" not in text
    ]
INSTALLED = all(importlib.util.find_spec(name) for name in ("onnxscript", "onnxruntime"))


class Bound(nn.Module):
    """A layer whose setting of `causal` is fixed."""

    def __init__(self, text, causal, dtype=torch.float64):
        super().__init__()
        self.reads, self.causal = to_mechanism(text).inputs, causal
        self.layer = to_mechanism(text).build(H, D, 1).to(dtype).eval()

    def forward(self, q, k, v, key_mask=None):
        gate = {"gate": k.sum(-1, keepdim=True)} if "gate" in self.reads else {}
        return self.layer(q, k, v, key_mask, self.causal, **gate)


def inputs(b, n, dtype=torch.float64):
    generator = torch.Generator().manual_seed(n)
    return [torch.randn(b, h, n, D, generator=generator, dtype=torch.float64).to(dtype) for h in (H, 1, 1)]


def mask(b, n, hidden=0):
    """The first example is shorter, the last one may be hidden altogether."""
    lengths = torch.full((b, 1), n)
    lengths[0], lengths[b - 1 :] = n // 2 + 1, n * (1 - hidden)
    return torch.arange(n) < lengths


def axes(masked):
    b, n = Dim("b", min=1, max=64), Dim("n", min=1, max=2000)
    return ({0: b, 2: n},) * 3 + (({0: b, 1: n},) if masked else ())


def test_patterns_that_carry_a_tensor_and_scores_made_in_chunks_do_not_claim_to_be_exportable():
    assert to_mechanism(Local(3)).claims.exportable
    assert not to_mechanism(Segments(torch.arange(9) // 3)).claims.exportable
    assert to_mechanism("full(score='cosine')").claims.exportable
    for text in ("full(score='additive')", "full(weights='relu')", "full(weights='top_k')", "lsh"):
        assert not to_mechanism(text).claims.exportable
    assert {name for name, kind in MECHANISMS.items() if kind().claims.exportable} >= {
        *("full", "sparse", "local", "strided", "sparse_transformer", "longformer", "big_bird"),
        *("linear", "linformer", "compressed", "mixed", "efficient", "performer", "rfa", "synthesizer"),
    }


def test_an_exported_window_chooses_its_backend_for_the_length_at_hand(monkeypatch):
    program = torch.export.export(Bound("local(left=4)", False), tuple(inputs(2, N)), dynamic_shapes=axes(False))
    chosen, choose = [], dispatch._choose
    monkeypatch.setattr(dispatch, "_choose", lambda *args: chosen.append(choose(*args)) or chosen[-1])
    for n in (64, 1500):
        program.module()(*inputs(1, n))
    assert chosen == ["dense", "blockwise"]


def test_queries_and_keys_may_have_different_lengths():
    b, n_q, n_k = Dim("b"), Dim("n_q"), Dim("n_k", max=4096)
    q, k, v = inputs(2, N)
    shapes = {0: b, 2: n_q}, {0: b, 2: n_k}, {0: b, 2: n_k}
    for text in ("full", "linear", "linformer", "local"):
        layer = Bound(text, False)
        program = torch.export.export(layer, (q[:, :, :30].contiguous(), k, v), dynamic_shapes=shapes).module()
        longer = inputs(1, 200)
        given = longer[0][:, :, :7], *longer[1:]
        torch.testing.assert_close(program(*given), layer(*given), rtol=0, atol=1e-12)


@pytest.mark.parametrize("option", ["dropout", "bias"])
def test_what_a_graph_cannot_do_is_refused(option):
    class Call(nn.Module):
        def forward(self, q, k, v):
            options = {"dropout": {"dropout": 0.1}, "bias": {"bias": torch.zeros(1, 1, N, N, dtype=q.dtype)}}
            return attend(q, k, v, Local(3), **options[option])

    with pytest.raises(ValueError, match=f"{option} must be .* under torch.export"):
        torch.export.export(Call(), tuple(inputs(2, N)))


def test_a_model_loaded_in_a_new_process_gives_the_same(tmp_path):
    settings = ClassifierSettings(
        ("big_bird(block=4)", "compressed"), width=8, heads=2, hidden=8, position="learned", extra_tokens=0
    )
    model = SequenceClassifier(9, 2, settings).double().eval()
    b, n = Dim("b", min=1), Dim("n", min=1, max=2048)
    shapes = {"tokens": {0: b, 1: n}, "key_mask": {0: b, 1: n}}
    given = torch.arange(3 * N).view(3, N) % 9, mask(3, N)
    torch.export.save(torch.export.export(model, given, dynamic_shapes=shapes), tmp_path / "model.pt2")
    other = torch.arange(2 * 150).view(2, 150) % 9, mask(2, 150, hidden=1)
    torch.save((other, model(*other).detach()), tmp_path / "wanted.pt")
    script = (
        "import sys, torch, saccade\n"
        "given, wanted = torch.load(sys.argv[2])\n"
        "out = torch.export.load(sys.argv[1]).module()(*given)\n"
        "torch.testing.assert_close(out, wanted, rtol=0, atol=1e-12)\n"
    )
    command = [sys.executable, "-c", script, tmp_path / "model.pt2", tmp_path / "wanted.pt"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_an_encoder_with_extra_tokens_serves_every_length():
    settings = ClassifierSettings("full", width=8, heads=2, layers=1, hidden=8, pooling="first", extra_tokens=2)
    model = SequenceClassifier(9, 2, settings).double().eval()
    b, n = Dim("b", min=1), Dim("n", min=1)
    program = torch.export.export(
        model, (torch.arange(3 * N).view(3, N) % 9, mask(3, N)), dynamic_shapes=({0: b, 1: n}, {0: b, 1: n})
    ).module()
    for size in (1, 1), (2, 300):
        given = torch.arange(size[0] * size[1]).view(size) % 9, mask(*size)
        torch.testing.assert_close(program(*given), model(*given), rtol=0, atol=1e-12)


@pytest.mark.skipif(not INSTALLED, reason="onnxscript and onnxruntime are not installed")
@pytest.mark.parametrize(("text", "causal"), CONVERTED)
def test_onnx_gives_the_same_at_other_lengths_and_zeros_where_nothing_is_seen(text, causal, tmp_path):
    import onnxruntime

    layer, path = Bound(text, causal, torch.float32), tmp_path / "layer.onnx"
    given = *inputs(3, N, torch.float32), mask(3, N)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about its own code
        torch.onnx.export(layer, given, path, dynamo=True, dynamic_shapes=axes(True), verbose=False)
    session = onnxruntime.InferenceSession(path)
    names = [each.name for each in session.get_inputs()]
    for b, n in ((1, 1), (2, 7), (2, 300)):
        given = *inputs(b, n, torch.float32), mask(b, n, hidden=b - 1)
        (out,) = session.run(None, {name: x.numpy() for name, x in zip(names, given, strict=True)})
        torch.testing.assert_close(torch.from_numpy(out), layer(*given), rtol=0, atol=1e-5)


@pytest.mark.parametrize("text", ["linear(feature='hedgehog')", "rfa(features=8)", "efficient"])
def test_features_of_queries_that_come_from_parameters_are_exported_with_gradients_on(text):
    encoder = Encoder(width=8, heads=2, layers=1, mechanism=text).double().eval()
    x = torch.randn(2, N, 8, dtype=torch.float64)
    program = torch.export.export(encoder, (x,), dynamic_shapes=({0: Dim("b"), 1: Dim("n")},))
    other = torch.randn(3, 20, 8, dtype=torch.float64)
    torch.testing.assert_close(program.module()(other), encoder(other), rtol=0, atol=1e-12)
