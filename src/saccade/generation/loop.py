"""The one loop of all decoding methods: start, advance until every row is done, finish."""

from typing import Any

import torch
from torch import nn

from saccade.errors import must_be
from saccade.generation.method import Generated, Method, Progress, Request, Snapshot, SpecialTokens, trimmed
from saccade.shapes import Int, Tensor


@torch.no_grad()
def generate(
    model: Any,
    method: Method,
    prompts: Int[Tensor, "b n"],
    special: SpecialTokens,
    *,
    prompt_lengths: Int[Tensor, " b"] | None = None,
    source: Any = None,
    source_lengths: Int[Tensor, " b"] | None = None,
    seeds: Int[Tensor, " b"] | None = None,
    generator: torch.Generator | None = None,
    trace: bool = False,
) -> Generated:
    """Let a model go on from each prompt.

    A row comes out the same in any batch: exactly in float64; at fp32, choices that might differ are counted in
    `near_ties`.

    Args:
        model: what the method decodes with: a `Stream` for `Greedy`, `Sampling` and `Beam`. Nothing of it is changed.
        method: how to decode, such as `Beam(width=5)`.
        prompts: what each row begins with, at least one token (`bos` where there is no other).
        special: the ids that end a row, fill it up, and are never generated.
        prompt_lengths: tokens of each prompt; what stands behind them never matters. All `n`, if not given.
        source: what the rows are conditioned on, in the model's form; handed to it as it is.
        source_lengths: tokens of each source, for a method whose longest result depends on them (`max_ratio`).
        seeds: for methods that draw: a number for each row that decides all its draws, so that a row draws the same in
            any batch. Drawn from `generator` if not given.
        generator: where the seeds come from; torch's global generator if not given.
        trace: whether to keep what stood there after every step.

    Raises:
        ValueError: a model in training mode, inputs that do not belong together, or scores that are no distribution.
    """
    if isinstance(model, nn.Module) and model.training:
        raise ValueError(must_be("model", "in evaluation mode, model.eval(): training drops at random", "training"))
    lengths = _prompt_lengths(prompts, prompt_lengths)
    for name, rows in (("source_lengths", source_lengths), ("seeds", seeds)):
        if rows is not None and rows.shape != lengths.shape:
            raise ValueError(must_be(name, f"one number for each of the {len(lengths)} prompts", tuple(rows.shape)))
    if not len(prompts):
        return _nothing(prompts)
    source_lengths, seeds = (None if rows is None else rows.to(prompts.device) for rows in (source_lengths, seeds))
    state = method.start(model, Request(special, prompts, lengths, source, source_lengths, seeds, generator))
    snapshots = [_snapshot(state, special.pad)] if trace else []
    steps = 0
    while not bool(state.done.all()):
        state = method.advance(model, state)
        steps += 1
        if trace:
            snapshots.append(_snapshot(state, special.pad))
    return method.finish(state)._replace(steps=steps, trace=tuple(snapshots))


def _prompt_lengths(prompts: Int[Tensor, "b n"], lengths: Int[Tensor, " b"] | None) -> Int[Tensor, " b"]:
    """The lengths of the prompts, checked.

    Raises:
        ValueError: prompts without tokens, or lengths that are not theirs.
    """
    if prompts.ndim != 2 or prompts.shape[1] == 0:
        raise ValueError(must_be("prompts", "of shape [batch, length], not empty", tuple(prompts.shape)))
    batch, longest = prompts.shape
    if lengths is None:
        return torch.full((batch,), longest, device=prompts.device)
    if lengths.shape != (batch,) or bool(((lengths < 1) | (lengths > longest)).any()):
        constraint = f"one number from 1 to {longest} for each of the {batch} prompts"
        raise ValueError(must_be("prompt_lengths", constraint, lengths.tolist()))
    return lengths.to(prompts.device).long()


def _snapshot(state: Progress, pad: int) -> Snapshot:
    lengths = state.lengths.clone()
    return Snapshot(trimmed(state.tokens, lengths, pad), lengths, state.done.clone())


def _nothing(prompts: Int[Tensor, "0 n"]) -> Generated:
    """What is generated for no prompt at all."""
    none = prompts.new_zeros(0, dtype=torch.long)
    return Generated(prompts.new_zeros(0, 0), none, none.bool(), none.float(), none.float(), none, none)
