import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from evidence_cases import banded, of_rank, softmax_weights, weighed
from torch import nn

from saccade.attention import MECHANISMS, to_mechanism
from saccade.attention.record import Record
from saccade.bench.evidence.gather import RunEvidence, evenly, look_into, record_weights, weigh
from saccade.bench.evidence.report import advice, conclusion, facts, percent, promising, to_dict
from saccade.bench.evidence.show_run import show_run
from saccade.data import DataSettings
from saccade.models import ClassifierSettings, SequenceClassifier
from saccade.tasks import train
from saccade.tasks.classification import Recipe, load
from saccade.training import TrainingSettings

LISTOPS = DataSettings(
    source="listops", train_size=31, validation_size=11, test_size=13, min_length=4, max_length=19, max_depth=3
)
MODEL = ClassifierSettings(width=12, heads=3, layers=2, hidden=17)
RECIPE = Recipe(data=LISTOPS, model=MODEL, training=TrainingSettings(steps=2, batch_size=5))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evidence") / "run"
    train(RECIPE, folder, quiet=True)
    return folder


def of_a_run(*examples, mechanisms=(), own="full"):
    found = weighed(*examples, mechanisms=mechanisms)
    layers = examples[0].shape[0]
    return RunEvidence(*(vars(found).values()), Path("runs/a b"), "test", (to_mechanism(own),) * layers)


# Reading a run


def test_examples_of_a_run_are_read_without_padding(run):
    model, split = load(run)
    found = look_into(run, examples=5)
    chosen = evenly(split.sequences, 5)
    assert found.lengths == tuple(len(each) for each in chosen)
    assert len(set(found.lengths)) > 1
    longest = max(found.lengths)
    tokens = torch.zeros(5, longest, dtype=torch.long)
    for row, each in zip(tokens, chosen, strict=True):
        row[: len(each)] = each
    key_mask = torch.arange(longest) < torch.tensor(found.lengths)[:, None]
    record = Record("weights")
    with torch.no_grad():
        model(tokens, key_mask, record=record)
    padded = torch.stack(record["weights"])
    real = (key_mask[:, :, None] & key_mask[:, None])[:, None]
    expected = (padded * real).sum(1) / real.sum(0)
    torch.testing.assert_close(found.means.mean, expected.nan_to_num())


def test_length_and_number_of_examples_are_limits(run):
    done = []
    found = look_into(run, examples=100, length=7, split="validation", on_example=done.append)
    assert len(found.lengths) == 11
    assert max(found.lengths) == 7
    assert done == list(range(1, 12))
    assert found.split == "validation"


@pytest.mark.parametrize("name", MECHANISMS)
def test_any_mechanism_can_be_looked_into(name):
    model = SequenceClassifier(17, 5, replace(MODEL, mechanism=name)).eval()
    sequences = [torch.randint(17, (n,), dtype=torch.int16) for n in (9, 13)]
    found = weigh(record_weights(model, sequences), [to_mechanism("local(left=2)")], [9, 13])
    assert found.means.mean.shape == (2, 3, 13, 13)
    assert 0 < found.kept[0].mean <= 1
    if name == "linear":
        # A product of queries and keys of 4 dims each.
        assert (found.spectra.rank <= 4).all()


def test_extra_tokens_are_cut_off_and_told(tmp_path):
    """With the tokens written out by hand: the rows and columns of the sequence alone are weighed."""
    recipe = replace(RECIPE, model=replace(MODEL, mechanism="local(left=2)", extra_tokens=4))
    train(recipe, tmp_path / "run", quiet=True)
    found = look_into(tmp_path / "run", examples=1)
    model, split = load(tmp_path / "run")
    record = Record("weights")
    with torch.no_grad():
        model(split.sequences[0][None].long(), record=record)
    n = len(split.sequences[0])
    assert [tuple(each.shape) for each in record["weights"]] == [(1, 3, 4 + n, 4 + n)] * 2
    whole = torch.cat(record["weights"])
    torch.testing.assert_close(found.means.mean, whole[:, :, 4:, 4:])
    at = torch.arange(n)
    assert torch.equal(found.means.mean[0, 0] > 0, (at[:, None] - at).abs() <= 2)
    assert found.visited == to_mechanism("local(left=2)").cost(n, n, heads=1, head_dim=1).pairs / n**2
    assert "of local(left=2) (" in facts(found)
    assert "of the pairs; 4 extra tokens left out)" in facts(found)
    assert to_dict(found)["extra_tokens"] == 4
    assert all(each.pairs < found.visited for each in [promising(found)] if each)
    show_run(tmp_path / "run", out=tmp_path / "a.png", reading={"examples": 2})
    show_run(tmp_path / "run", reading={"examples": 2})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"examples": 0}, "examples must be at least 1, got 0"),
        ({"length": 0}, "length must be from 1 to 8,192, got 0"),
        ({"length": 9000}, "length must be from 1 to 8,192, got 9000"),
        ({"split": "tset"}, "split must be one of test, train, validation, got 'tset'"),
        ({"mechanisms": ["linear"]}, "mechanism must be a pattern"),
    ],
)
def test_refuses(run, options, message):
    with pytest.raises(ValueError, match=message):
        look_into(run, **options)


def test_an_unfinished_run_says_how_to_go_on(run, tmp_path):
    for name in ("recipe.toml", "data.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    with pytest.raises(FileNotFoundError, match=r"no trained model in .*saccade train --resume"):
        look_into(tmp_path)
    with pytest.raises(FileNotFoundError, match="run must be a folder that saccade train has written"):
        look_into(tmp_path.parent)


# What is found


def nearby_model():
    """A full model whose only head looks at what stands near: its queries and keys are positions."""
    model = SequenceClassifier(3, 2, ClassifierSettings(width=32, heads=1, layers=1, hidden=8)).eval()
    nn.init.zeros_(model.embedding.weight)
    projections = model.encoder.layers[0].attention.projections
    for name in "qk":
        projections[name].weight.data = 3 * torch.eye(32)
    return model


def test_a_model_that_looks_nearby_is_found_out():
    lengths = [96, 96]
    sequences = [torch.zeros(n, dtype=torch.int16) for n in lengths]
    weights = list(record_weights(nearby_model(), sequences))
    found = of_a_run(*weights)
    best = promising(found)
    assert best is not None
    assert best.mechanism.name == "local"
    assert best.mean >= 0.9
    assert best.pairs < 0.25
    assert conclusion(found).startswith("local(left=")
    assert found.means.half_within.item() < 8


def test_a_window_is_found_and_is_not_low_rank():
    found = of_a_run(banded(64, 8, heads=2))
    assert conclusion(found).startswith("local(left=8) would keep 100% of the weight at 25% of the pairs")
    assert "The weights are not low rank" in conclusion(found)
    assert advice(found).endswith("saccade compare --recipe 'runs/a b/recipe.toml' --mechanisms 'local(left=8)'")


def test_low_rank_is_found_and_no_pattern_fits_it():
    found = of_a_run(of_rank(3, 96, heads=2))
    assert "The weights are low rank: 3 of 96 singular values hold 90%" in conclusion(found)
    assert "in 2 of 2 heads" in conclusion(found)


def test_the_advice_names_what_the_evidence_speaks_for():
    spread = of_a_run(torch.full((1, 2, 96, 96), 1 / 96))
    assert advice(spread).endswith("--mechanisms linear")
    both = of_a_run(torch.cat([banded(96, 24), of_rank(3, 96), of_rank(3, 96)], dim=1), mechanisms=["local(left=24)"])
    assert advice(both).endswith("--mechanisms 'local(left=24), linear'")


def test_heads_may_differ():
    mixed = torch.cat([of_rank(3, 64), banded(64, 2)], dim=1)
    assert "low rank in part" in conclusion(of_a_run(mixed))
    assert "in 1 of 2 heads" in conclusion(of_a_run(mixed))


def test_spread_weight_is_called_that():
    even = torch.full((1, 2, 64, 64), 1 / 64)
    assert conclusion(of_a_run(even)).startswith("The weight is spread out, and no pattern keeps much more than")


def test_what_keeps_too_little_is_not_praised():
    half = (banded(64, 2) + 1 / 64) / 2
    found = conclusion(of_a_run(half))
    assert found.startswith(
        "No pattern that was weighed keeps 90% of the weight; the best for its pairs, local(left=2)"
    )


def test_the_weakest_head_is_named():
    uneven = torch.cat([banded(64, 2, heads=9), (banded(64, 2) + banded(64, 20)) / 2], dim=1)
    (kept,) = of_a_run(uneven, mechanisms=["local(left=2)"]).kept
    weakest = kept.kept[0, 9].item()
    assert 0.5 < weakest < 0.7
    assert f"({weakest:.0%} in its weakest head" in conclusion(of_a_run(uneven, mechanisms=["local(left=2)"]))


def test_only_what_visits_less_than_the_model_is_proposed():
    found = of_a_run(banded(64, 2), own="local(left=2)")
    assert found.visited == pytest.approx((64 * 5 - 6) / 64**2)
    assert promising(found) is None or promising(found).pairs < found.visited
    alone = of_a_run(banded(64, 2), own="local(left=2)", mechanisms=["local(left=2)", "local(left=8)"])
    assert conclusion(alone).startswith("No pattern that was weighed visits fewer pairs than the model does.")
    assert advice(alone).endswith("saccade compare --recipe 'runs/a b/recipe.toml'")
    assert of_a_run(banded(64, 2), own="linear").visited == 1


def test_one_object_for_machines(run):
    found = look_into(run, examples=4)
    read = json.loads(json.dumps(to_dict(found)))
    assert read["mechanisms"] == ["full", "full"]
    assert read["lengths"] == list(found.lengths)
    assert [each["kept"] for each in read["patterns"]] == [each.mean for each in found.kept]
    kept = read["patterns"][0]
    assert torch.tensor(kept["kept_by_head"]).shape == (2, 3)
    torch.testing.assert_close(torch.tensor(kept["kept_by_layer"]), torch.tensor(kept["kept_by_head"]).mean(1))
    values = read["singular_values"]
    assert values["needed_for_90_percent_of_sum"] == found.spectra.needed(0.9).tolist()
    assert values["needed_for_99_percent_of_squares"] == found.spectra.needed(0.99, "squares").tolist()
    by_distance = read["by_distance"]
    assert len(by_distance["query_minus_key"]) == len(by_distance["mean_weight"][0][0]) == 2 * max(found.lengths) - 1
    assert read["conclusion"] == conclusion(found)


def test_facts_say_who_read_what():
    found = of_a_run(softmax_weights(2, 3, 8, 8), softmax_weights(2, 3, 6, 6), own="local(left=1)")
    assert facts(found) == (
        "runs/a b: 2 layers of 3 heads of local(left=1) (34% of the pairs)\n"
        "read 2 examples of the test split, 6 to 8 tokens each"
    )
    assert [percent(share) for share in (0.034, 0.34, 1.0)] == ["3.4%", "34%", "100%"]


def test_examples_are_taken_from_everywhere():
    assert evenly([torch.tensor(i) for i in range(10)], 4) == [0, 2, 5, 7]
    assert len(evenly([torch.tensor(i) for i in range(3)], 4)) == 3


def test_patterns_that_save_little_are_left_out_unless_asked_for(run):
    assert all(each.pairs <= 0.5 for each in look_into(run, examples=2).kept)
    assert [each.pairs for each in look_into(run, ["local"], examples=2).kept] == [1.0]
