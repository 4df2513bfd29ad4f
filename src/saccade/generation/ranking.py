"""From logits to choices: log-probabilities of what is allowed, and the best of them with ties settled.

`topk` may return any of equal numbers, and which one depends on the kernel that the batch size selects; here a tie
goes to the lower index, always.
"""

import torch

from saccade.errors import must_be
from saccade.shapes import Bool, Float, Int, Tensor


def log_probs_of(
    logits: Float[Tensor, "m v"],
    forbidden: list[int],
    eos: int | None,
    too_short: Bool[Tensor, " m"],
) -> Float[Tensor, "m v"]:
    """The log-probabilities of the next token, at least in fp32: `-inf` for what may not come, all else as it was.

    Args:
        logits: the model's scores.
        forbidden: tokens that may never come.
        eos: the token that may not come where a row is too short.
        too_short: which rows are.

    Raises:
        ValueError: NaN or `+inf`, or no finite score in a row.
    """
    log_probs = logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    wrong = log_probs.isnan().any(-1)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        constraint = "scores of a distribution: no NaN, no +inf, and something finite in every row"
        raise ValueError(must_be("logits", constraint, f"{_summary(logits[row])} in row {row} of the model's batch"))
    log_probs[:, forbidden] = -torch.inf
    if eos is not None:
        log_probs[:, eos].masked_fill_(too_short, -torch.inf)
    return log_probs


def best(scores: Float[Tensor, "m n"], count: int) -> tuple[Float[Tensor, "m s"], Int[Tensor, "m s"]]:
    """The `count` greatest numbers of each row, or all if there are fewer, and their places. A tie goes to the lower.

    Cost: O(n) a row; O(n log n) in a call in which the last place is tied.
    """
    count = min(count, scores.shape[-1])
    values, places = scores.topk(count)
    if bool(((scores >= values[:, -1:]).sum(-1) > count).any()):
        values, places = scores.sort(dim=-1, descending=True, stable=True)
        return values[:, :count], places[:, :count]
    places = places.sort(-1).values
    values, order = scores.gather(-1, places).sort(dim=-1, descending=True, stable=True)
    return values, places.gather(-1, order)


def refuse_impossible(chosen: Float[Tensor, " m"], rows: Int[Tensor, " m"]) -> None:
    """Refuse rows that have no way to go on.

    Args:
        chosen: the best log-probability of each.
        rows: which prompts they belong to, for the message.

    Raises:
        ValueError: a log-probability of `-inf`.
    """
    stuck = rows[chosen == -torch.inf].tolist()
    if stuck:
        raise ValueError(must_be("logits", "above -inf for a token that is allowed", f"-inf for all in row {stuck[0]}"))


def _summary(row: Float[Tensor, " v"]) -> str:
    return "NaN" if bool(row.isnan().any()) else "+inf" if bool((row == torch.inf).any()) else "-inf only"
