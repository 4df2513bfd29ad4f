"""A model in a folder loads elsewhere as it was, or fails with what is wrong."""

import json
import pickle
import subprocess
import sys

import pytest
import torch

from saccade.models import (
    ClassifierSettings,
    LanguageModel,
    LanguageModelSettings,
    Seq2Seq,
    Seq2SeqSettings,
    SequenceClassifier,
)
from saccade.models.pretrained import tokenizer_of

SIZES = {"width": 12, "heads": 3, "layers": 2, "hidden": 17}
SHARED = ("linformer(rank=3, max_length=19, sharing='layerwise')",) * 2
TOKENS = torch.arange(10).view(2, 5) % 7


def classifier():
    return SequenceClassifier(7, 3, ClassifierSettings(mechanism=SHARED, **SIZES))


def language_model():
    return LanguageModel(7, LanguageModelSettings(mechanism=("local(left=3)", "routing(clusters=2)"), **SIZES))


def seq2seq():
    return Seq2Seq(7, Seq2SeqSettings(decoder_mechanism="linear", **SIZES))


def out(model):
    return model(TOKENS, TOKENS) if isinstance(model, Seq2Seq) else model(TOKENS)


@pytest.fixture(params=[classifier, language_model, seq2seq], ids=["classifier", "language_model", "seq2seq"])
def model(request):
    return request.param().eval()


@pytest.fixture
def folder(tmp_path):
    language_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_is_loaded_as_it_was_saved(model, tmp_path):
    model.train().save_pretrained(tmp_path / "new" / "model")
    loaded = type(model).from_pretrained(str(tmp_path / "new" / "model"))
    assert not loaded.training
    assert loaded.settings == model.settings
    assert torch.equal(out(loaded), out(model.eval()))
    assert sorted(path.name for path in (tmp_path / "new" / "model").iterdir()) == ["config.json", "model.safetensors"]


def test_what_layers_share_they_share_again(tmp_path):
    classifier().save_pretrained(tmp_path)
    first, second = (layer.attention.layer for layer in SequenceClassifier.from_pretrained(tmp_path).encoder.layers)
    assert second.matrices()[0] is first.E


def test_a_folder_loads_in_a_process_of_its_own_from_another_place(folder, tmp_path):
    moved = folder.rename(tmp_path / "elsewhere")
    code = f"""
import torch
from saccade.models import LanguageModel
torch.save(LanguageModel.from_pretrained({str(moved)!r})(torch.arange(10).view(2, 5) % 7), {str(tmp_path / "out")!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert torch.equal(torch.load(tmp_path / "out"), LanguageModel.from_pretrained(moved)(TOKENS))


def test_a_second_save_replaces_the_first(folder):
    other = language_model()
    other.save_pretrained(folder)
    assert torch.equal(LanguageModel.from_pretrained(folder).embedding.weight, other.embedding.weight)


def test_a_tokenizer_goes_with_the_model(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    language_model().save_pretrained(tmp_path, tokenizer)
    assert tokenizer_of(tmp_path).encode("b c a").ids == [1, 2, 0]
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer\.json must be a tokenizer of the library tokenizers: "):
        tokenizer_of(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no saved model in .*: tokenizer\.json is missing"):
        tokenizer_of(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"no saved model in .*model: {name} is missing"):
        LanguageModel.from_pretrained(folder)


def test_another_class_is_refused(folder):
    with pytest.raises(
        ValueError, match=r"config\.json: class must be Seq2Seq, got 'LanguageModel'; load it as what it"
    ):
        Seq2Seq.from_pretrained(folder)


def change(folder, table, name, value):
    configuration = json.loads((folder / "config.json").read_text())
    configuration[table][name] = value
    (folder / "config.json").write_text(json.dumps(configuration))


@pytest.mark.parametrize(
    ("table", "name", "value", "message"),
    [
        ("sizes", "vocabulary_size", 8, r"safetensors: embedding\.weight must be of shape \(8, 12\), got \(7, 12\)"),
        ("settings", "layers", 1, r"config\.json must be the configuration of a LanguageModel: mechanism must be one"),
        ("settings", "hiden", 17, r"setting must be one of .*, got 'hiden' \(did you mean 'hidden'\?\)"),
        ("sizes", "classes", 3, r"config\.json must be the configuration of a LanguageModel: .*classes"),
        ("settings", "mechanism", "full", r"weights of the model that is configured: it has no encoder.*centroids"),
        ("settings", "position", "learned", r"weights of the model that is configured: position\..* is missing"),
    ],
)
def test_weights_that_do_not_fit_the_configuration_are_refused(folder, table, name, value, message):
    change(folder, table, name, value)
    with pytest.raises(ValueError, match=message):
        LanguageModel.from_pretrained(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"class": "LanguageModel"}', "\xff"])
def test_a_damaged_configuration_is_refused(folder, content):
    (folder / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json must be the configuration of a saved model: "):
        LanguageModel.from_pretrained(folder)


def test_weights_that_were_cut_or_are_something_else_are_refused_and_never_unpickled(folder):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    for damaged in (b"", content[:9], content[: len(content) // 2], pickle.dumps({"a": 1})):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model\.safetensors must be weights in the format safetensors, whole: "):
            LanguageModel.from_pretrained(folder)


def test_a_full_disk_leaves_what_was_there(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "model.safetensors.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"could not write .*model\.safetensors: No space left on device"):
        language_model().save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
