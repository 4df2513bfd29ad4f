"""Patterns that carry a tensor: compared by content, never changed, copied anywhere, made in Python only."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from attend_cases import BACKENDS, random_inputs

from saccade.attention.dispatch import attend
from saccade.attention.layout import layout
from saccade.attention.mechanisms import to_mechanism
from saccade.attention.patterns import Edges, Global, Local, Random, Segments, parse

IDS = torch.tensor([3, 3, -1, 0, 0, 3, -2])
EDGES = torch.tensor([[0, 1, 1, 5], [1, 0, 4, 2]])
CARRYING = {"segments": (Segments, IDS), "rows": (Segments, torch.stack([IDS, IDS + 1])), "edges": (Edges, EDGES)}


@pytest.mark.parametrize("name", CARRYING)
def test_they_are_equal_by_content(name):
    kind, tensor = CARRYING[name]
    pattern = kind(tensor)
    for same in (tensor.clone(), tensor.to(torch.int32), tensor.repeat_interleave(2, -1)[..., ::2]):
        assert kind(same) == pattern
        assert hash(kind(same)) == hash(pattern)
        assert repr(kind(same)) == repr(pattern)
    other = tensor.clone()
    other.view(-1)[-1] += 1
    assert kind(other) != pattern
    assert len({kind(other) | Local(1), pattern | Local(1), Local(1) | kind(tensor)}) == 2
    assert pattern != tensor.tolist()


def test_shape_and_kind_count():
    assert Segments(torch.tensor([[1, 2], [3, 4]])) != Segments(torch.tensor([1, 2, 3, 4]))
    assert Segments(EDGES) != Edges(EDGES)


@pytest.mark.parametrize("name", CARRYING)
def test_what_becomes_of_the_tensor_does_not_matter(name):
    kind, tensor = CARRYING[name]
    given = tensor.clone()
    pattern = kind(given)
    before = pattern.dense(7, 7)
    given.fill_(0)
    assert pattern == kind(tensor)
    assert torch.equal(pattern.dense(7, 7), before)
    for attribute in ("tensor", "_digest", "new"):
        with pytest.raises(AttributeError, match=f"{kind.__name__} can't be changed"):
            setattr(pattern, attribute, given)


@pytest.mark.parametrize("name", CARRYING)
def test_they_survive_copying(name):
    kind, tensor = CARRYING[name]
    pattern = kind(tensor)
    for again in (copy.copy(pattern), copy.deepcopy(pattern), pickle.loads(pickle.dumps(pattern))):
        assert again == pattern
        assert hash(again) == hash(pattern)
        assert torch.equal(again.dense(7, 7), pattern.dense(7, 7))


def test_they_are_the_same_in_another_process(tmp_path):
    """Hashes of text differ between processes, so none may be carried along."""
    patterns = {kind(tensor) | Local(1): kind(tensor).dense(7, 7).tolist() for kind, tensor in CARRYING.values()}
    path = tmp_path / "patterns.pickle"
    path.write_bytes(pickle.dumps(patterns))
    code = (
        f"import pickle, torch; from saccade.attention.patterns import Edges, Local, Segments\n"
        f"found = pickle.load(open({str(path)!r}, 'rb'))\n"
        f"ids, edges = torch.tensor({IDS.tolist()}), torch.tensor({EDGES.tolist()})\n"
        f"made = [Segments(ids), Segments(torch.stack([ids, ids + 1])), Edges(edges)]\n"
        f"print([found[each | Local(1)] == each.dense(7, 7).tolist() for each in made])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.stdout.strip() == "[True, True, True]", ended.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Segments([0, 0, 1])", "ids must be a tensor of integers .made in Python: it can't be written as text."),
        ("Local(1) | Edges([[0, 0], [1, 2]])", "edge_index must be a tensor of integers .made in Python"),
        ("Edges()", "edge_index"),
        (repr(Segments(IDS)), "must be an expression"),
    ],
    ids=lambda text: text[:20],
)
@pytest.mark.parametrize("read", [parse, to_mechanism])
def test_they_have_no_text(unchecked, read, text, message):
    with pytest.raises((TypeError, ValueError), match=message):
        read(text)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Segments([0, 1]), r"ids must be a tensor of integers .*, got \[0, 1\]"),
        (lambda: Segments(torch.tensor([0.0, 1.0])), "ids must be a tensor of integers .*, got torch.float32"),
        (lambda: Segments(torch.tensor([True])), "ids must be a tensor of integers .*, got torch.bool"),
        (
            lambda: Segments(torch.zeros(1, 2, 3, dtype=torch.long)),
            r"ids must be of shape \[n\] or \[b n\], got \(1, 2",
        ),
        (lambda: Segments(torch.tensor(3)), r"ids must be of shape \[n\] or \[b n\], got \(\)"),
        (lambda: Edges(torch.zeros(3, 2, dtype=torch.long)), r"edge_index must be of shape \[2 edges\], got \(3, 2\)"),
        (lambda: Edges(torch.zeros(2, dtype=torch.long)), r"edge_index must be of shape \[2 edges\], got \(2,\)"),
        (lambda: Edges(-EDGES), "edge_index must be made of positions, at least 0, got -5"),
        (lambda: Edges(EDGES.float()), "edge_index must be a tensor of integers .*, got torch.float32"),
        (lambda: Segments(IDS).dense(8, 8), "ids must be as long as the sequence, 8, got 7"),
        (lambda: Segments(IDS).dense(2, 3, 6), "ids must be as long as the sequence, 8, got 7"),
        (lambda: Segments(IDS).shifted(2).dense(10, 10), "ids must be as long as the sequence, 8, got 7"),
    ],
    ids=lambda argument: argument[:40] if isinstance(argument, str) else "",
)
def test_bad_tensors_are_refused_by_name(unchecked, build, message):
    with pytest.raises((TypeError, ValueError), match=message):
        build()


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
def test_attend_refuses_another_batch_size(backend):
    q, k, v, _ = random_inputs(7, 7, batch=3)
    rows = CARRYING["rows"]
    for pattern in (rows[0](rows[1]) | Local(1), Random(1, 2, excluding=Segments(rows[1]))):
        with pytest.raises(ValueError, match=r"batch size must be 2, as in .*got 3"):
            attend(q, k, v, pattern, backend=backend)


def test_one_row_of_segments_serves_every_example():
    pattern = Segments(IDS[None]) | Global(last=2, rows=False)
    alike = Segments(IDS) | Global(last=2, rows=False)
    live = {"lengths": (7, 5, 2)}
    assert torch.equal(pattern.bind(7, 7, **live).dense(), alike.bind(7, 7, **live).dense())


@pytest.mark.parametrize("unit", [2**40, 2**59, 2**62 // 4])
def test_ids_may_be_as_large_as_hashes(unit):
    """Sorted together with positions, numbers like these overflowed."""
    ids = torch.randint(4, (200,), generator=torch.Generator().manual_seed(0))
    large, small = (Segments(each).bind(200, 200) for each in (ids * unit + 3, ids))
    assert torch.equal(large.dense(), small.dense())
    assert layout(large).pairs == int(small.dense().sum())
