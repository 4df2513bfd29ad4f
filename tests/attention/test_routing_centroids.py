"""What moves in routing attention, and what it says: centroids, the commitment loss, workers, refusals."""

import copy
import os
import pickle
import subprocess
import sys

import pytest
import torch
from mechanism_cases import B, D, H, inputs
from routing_cases import MASKS, N, causally, routing

import oracles
import oracles_routing as oracle
from saccade.attention import MECHANISMS, after_step
from saccade.attention.record import Record


def moved(layer, *calls, causal=False):
    """The centroids after a step in which these inputs were seen."""
    layer = copy.deepcopy(layer)
    for q, k, v, mask in calls:
        layer(q.requires_grad_(), k, v, mask, causal)
    after_step(layer)
    return layer.centroids


@pytest.mark.parametrize("mask", ["none", "right", "holes"])
@pytest.mark.parametrize("shared", [False, True], ids=["apart", "shared"])
@causally
def test_a_step_moves_centroids_to_the_mean_of_their_tokens(mask, shared, causal):
    q, k, v, _ = inputs(N, N)
    layer = routing(clusters=4, decay=0.9, shared_qk=shared).double()
    seen = [q] if shared else [q, oracles.repeat_heads(k, H)]
    expected = oracle.moved(layer.centroids, seen, MASKS[mask], 0.9)
    found = moved(layer, (q, k, v, MASKS[mask]), causal=causal)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_passes_before_a_step_add_up_and_doubled_ones_change_nothing():
    """Two batches are one of both together; recomputing a pass, as checkpointing does, doubles sums and counts."""
    q, k, v, _ = inputs(N, N)
    layer = routing(clusters=4).double()
    together = moved(layer, (q, k, v, None))
    apart = moved(layer, *((q[b, None], k[b, None], v[b, None], None) for b in range(B)))
    twice = moved(layer, *((q, k, v, None) for _ in range(2)))
    for other in (apart, twice):
        torch.testing.assert_close(other, together, rtol=0, atol=1e-12)


def test_a_centroid_that_is_nearest_to_nothing_stays():
    q, k, v, _ = inputs(3, 3)
    layer = routing(clusters=40).double()
    still = (moved(layer, (q, k, v, None)) == layer.centroids).all(-1).sum(-1)
    assert (still >= 40 - 2 * 2 * 3).all()
    assert (still < 40).all()


def test_nothing_moves_in_evaluation_nor_before_a_step():
    """Known defect of a peer (reference 5): first calls and averages that move centroids in evaluation."""
    q, k, v, _ = inputs(N, N)
    layer = routing(clusters=4)
    before = layer.centroids.clone()
    layer.eval()(q.requires_grad_(), k, v)
    with torch.no_grad():
        layer.train()(q, k, v)
    after_step(layer)
    assert torch.equal(layer.centroids, before)
    first = layer(q, k, v)
    assert torch.equal(layer(q, k, v), first)
    assert torch.equal(layer.centroids, before)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        after_step(other)
        assert not torch.equal(other.centroids, before)
    after_step(layer)
    after = layer.centroids.clone()
    after_step(layer)
    assert torch.equal(layer.centroids, after)
    assert not layer._notes
    assert torch.equal(layer.state_dict()["centroids"], after)


def test_first_centroids_come_from_seed_layer_and_head():
    spec = MECHANISMS["routing"](clusters=4)
    first = spec.build(H, D).centroids
    assert torch.equal(spec.build(H, D).centroids, first)
    others = [spec.build(H, D, layer=1).centroids, MECHANISMS["routing"](clusters=4, seed=1).build(H, D).centroids]
    assert not any(torch.equal(other, first) for other in others)
    assert len(first.flatten(1).unique(dim=0)) == H
    torch.testing.assert_close(first.norm(dim=-1), torch.full((H, 4), D**0.5), rtol=1e-3, atol=0)
    with torch.device("meta"):
        assert spec.build(H, D).centroids.is_meta


@pytest.mark.parametrize("mask", ["none", "right", "empty"])
@pytest.mark.parametrize("shared", [False, True], ids=["apart", "shared"])
@causally
def test_the_commitment_loss_is_recorded_and_reaches_queries_and_keys_only(mask, shared, causal):
    q, k, v, _ = inputs(N, N)
    layer = routing(clusters=4, commitment=0.25, shared_qk=shared).double()
    leaves, others = ([x.clone().requires_grad_() for x in (q, k, v)] for _ in range(2))
    record = Record("losses", "counts")
    layer(*leaves, MASKS[mask], causal, record=record)
    seen = [others[0]] if shared else [others[0], oracles.repeat_heads(others[1], H)]
    expected = 0.25 * oracle.commitment(layer.centroids, seen, MASKS[mask])
    (found,), (counts,) = record["losses"], record["counts"]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    real = B * N if MASKS[mask] is None else int(MASKS[mask].sum())
    assert counts.shape == (B, H, 4)
    assert counts.sum() == real * H * len(seen)
    found.backward()
    assert leaves[2].grad is None
    for one, other in zip(leaves[: len(seen)], torch.autograd.grad(expected, others[: len(seen)]), strict=True):
        torch.testing.assert_close(one.grad, other, rtol=1e-12, atol=1e-14)
    assert layer.centroids.grad is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 0}, "clusters must be a whole number, at least 1, got 0"),
        ({"clusters": 2.5}, "clusters must be .*got 2.5"),
        ({"window": 0}, "window must be .*got 0"),
        ({"window": True}, "window must be .*got True"),
        ({"seed": -1}, "seed must be .*got -1"),
        ({"decay": 1.5}, "decay must be a number from 0 to 1, got 1.5"),
        ({"decay": -0.1}, "decay must be .*got -0.1"),
        ({"decay": "a"}, "decay must be .*got 'a'"),
        ({"commitment": -1}, "commitment must be a number, at least 0, got -1"),
        ({"shared_qk": 1}, "shared_qk must be True or False, got 1"),
        ({"scores": "rww"}, "scores must be one of normalised, raw, got 'rww'.*did you mean 'raw'"),
    ],
    ids=str,
)
def test_options_that_route_nowhere_are_refused(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        MECHANISMS["routing"](**options)


def test_two_sequences_and_long_steps_are_refused(unchecked):
    q, k, v, _ = inputs(N, N)
    layer = routing(clusters=4)
    with pytest.raises(ValueError, match="as queries and keys are one sequence"):
        layer(q[:, :, :5], k, v)
    with pytest.raises(ValueError, match="q_start must be 0"):
        layer(q, k, v, q_start=1)
    with pytest.raises(ValueError, match="q of a step must be one token long, got 29"):
        layer.step(q, k, v, layer.initial_state(B, q.dtype))
    with pytest.raises(TypeError, match="state must be a RoutedKeys"):
        layer.step(q[:, :, :1], k[:, :, :1], v[:, :, :1], None)


SCRIPT = """
import sys
import torch
from saccade.attention import MECHANISMS, after_step

path, rank = sys.argv[1], int(sys.argv[2])
torch.distributed.init_process_group("gloo", init_method=f"file://{path}.met", rank=rank, world_size=2)
tokens = torch.load(path)
layer = MECHANISMS["routing"](clusters=4, decay=0.5).build(2, 5)
q, k, v = (x[rank : rank + 1].requires_grad_() for x in tokens)
for step in range(3):
    if rank == 0 or step < 2:
        layer(q, k, v)
    after_step(layer)
torch.save(layer.centroids, f"{path}.{rank}")
torch.distributed.destroy_process_group()
"""


def test_two_processes_move_centroids_as_one_does_on_the_whole_batch(tmp_path):
    """Also where one of them has seen nothing in a step."""
    tokens = [torch.randn(2, 2, 30, 5, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    torch.save(tokens, tmp_path / "tokens")
    local = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **local}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "tokens")]
    workers = [
        subprocess.Popen([*command, str(rank)], env=environment, stderr=subprocess.PIPE, text=True) for rank in range(2)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors
    layer = MECHANISMS["routing"](clusters=4, decay=0.5).build(2, 5)
    for step in range(3):
        layer(*(x[: 2 if step < 2 else 1].requires_grad_() for x in tokens))
        after_step(layer)
    found = [torch.load(tmp_path / f"tokens.{rank}") for rank in (0, 1)]
    assert torch.equal(*found)
    torch.testing.assert_close(found[0], layer.centroids, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_without_differences_are_told_apart_by_nothing(dtype):
    """What their layer norm leaves is rounding, which differs between a step, a prefix and the whole."""
    layer = MECHANISMS["routing"](clusters=8).build(heads=2, head_dim=6).to(dtype)
    x = torch.randn(1, 2, 40, 1, dtype=dtype).expand(-1, -1, -1, 6).contiguous()
    v = torch.randn(1, 2, 40, 6, dtype=dtype)
    whole = layer(x, x, v, causal=True)
    torch.testing.assert_close(layer(x[:, :, :25], x[:, :, :25], v[:, :, :25], causal=True), whole[:, :, :25])
    state, outs = layer.initial_state(1, dtype), []
    for t in range(40):
        out, state = layer.step(x[:, :, t, None], x[:, :, t, None], v[:, :, t, None], state)
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs, 2), whole)


def test_centroids_move_in_half_precision_and_are_not_lost_to_what_is_not_finite():
    layer = MECHANISMS["routing"](clusters=4).build(heads=2, head_dim=8).to(torch.bfloat16)
    assert layer.centroids.dtype == torch.float32
    before = layer.centroids.clone()
    x = torch.randn(1, 2, 64, 8).to(torch.bfloat16)
    layer(x, x, x)
    layer.after_step()
    moved = layer.centroids.clone()
    assert (moved != before).any()
    layer(x.fill_(torch.nan), x, x)
    layer.after_step()
    assert torch.equal(layer.centroids, moved)


def test_half_precision_keeps_the_centroids_that_are_loaded():
    layer = MECHANISMS["routing"](clusters=4).build(heads=2, head_dim=8)
    half = MECHANISMS["routing"](clusters=4, seed=1).build(heads=2, head_dim=8).half()
    half.load_state_dict(layer.state_dict())
    assert torch.equal(half.centroids, layer.centroids)
