"""Position methods and batch normalisation written down as naively as possible, from the papers, in float64."""

import cmath
import math

import torch
from torch import Tensor


def rotated(x: Tensor, start: int) -> Tensor:
    """RoFormer, equation 13: neighbouring numbers are a complex number, times e^(i m theta)."""
    out = x.clone()
    n, d = x.shape[-2:]
    for place in range(n):
        for pair in range(d // 2):
            turn = cmath.exp(1j * (start + place) * 10_000 ** (-2 * pair / (d - d % 2)))
            for index in torch.cartesian_prod(*(torch.arange(size) for size in x.shape[:-2])).reshape(-1, x.ndim - 2):
                row = (*index.tolist(), place)
                turned = complex(x[row][2 * pair], x[row][2 * pair + 1]) * turn
                out[row][2 * pair], out[row][2 * pair + 1] = turned.real, turned.imag
    return out


def alibi_slopes(heads: int) -> list[float]:
    """ALiBi, section 3 and appendix: start and ratio 2^(-8/n), and what its code does between powers of two."""
    if math.log2(heads).is_integer():
        start = 2 ** (-(2 ** -(math.log2(heads) - 3)))
        return [start * start**i for i in range(heads)]
    nearest = 2 ** math.floor(math.log2(heads))
    return alibi_slopes(nearest) + alibi_slopes(2 * nearest)[0::2][: heads - nearest]


def alibi(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, q_start: int = 0) -> Tensor:
    """Softmax over the allowed keys of q . k / sqrt(d) - m |i - j|; zeros where none is allowed.

    `allowed` is [b h q k] or broadcasts to it; key heads are as many as query heads.
    """
    (b, h, n_q, d), n_k = q.shape, k.shape[2]
    allowed, out = allowed.expand(b, h, n_q, n_k), torch.zeros(b, h, n_q, v.shape[3], dtype=torch.float64)
    for head, slope in enumerate(alibi_slopes(h)):
        for row in range(n_q):
            distance = torch.tensor([abs(q_start + row - key) for key in range(n_k)], dtype=torch.float64)
            score = (k[:, head] @ q[:, head, row, :, None])[..., 0] / math.sqrt(d) - slope * distance
            weight = torch.where(allowed[:, head, row], score.exp(), 0.0)
            total = weight.sum(-1, keepdim=True)
            weight = torch.where(total > 0, weight / total, 0.0)
            out[:, head, row] = (weight[..., None] * v[:, head]).sum(1)
    return out


def flow(start: Tensor, slope, length: int, step: float, parts: int = 50) -> Tensor:
    """dp/dt = slope(t, p) from `start`, by many small steps of the classical Runge-Kutta method."""
    rows, p, dt = [start], start, step / parts
    for number in range((length - 1) * parts):
        t = number * dt
        a = slope(t, p)
        b = slope(t + dt / 2, p + dt / 2 * a)
        c = slope(t + dt / 2, p + dt / 2 * b)
        p = p + dt / 6 * (a + 2 * b + 2 * c + slope(t + dt, p + dt * c))
        if (number + 1) % parts == 0:
            rows.append(p)
    return torch.stack(rows)


def gru(inputs: Tensor, w_in: Tensor, w_state: Tensor, b_in: Tensor, b_state: Tensor) -> Tensor:
    """The outputs of a gated recurrent unit from a state of zeros (Cho et al. 2014, with torch's reset gate)."""
    state, rows = torch.zeros(w_state.shape[1], dtype=torch.float64), []
    for x in inputs:
        reset_in, update_in, new_in = (w_in @ x + b_in).chunk(3)
        reset_state, update_state, new_state = (w_state @ state + b_state).chunk(3)
        reset, update = torch.sigmoid(reset_in + reset_state), torch.sigmoid(update_in + update_state)
        state = (1 - update) * torch.tanh(new_in + reset * new_state) + update * state
        rows.append(state)
    return torch.stack(rows)


def batch_norm(x: Tensor, key_mask: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Each channel of the real tokens normalised, and the mean and variance it was done with."""
    out = x.clone()
    means, variances = [], []
    for channel in range(x.shape[-1]):
        real = [float(x[b, n, channel]) for b, n in key_mask.nonzero().tolist()]
        mean = sum(real) / len(real)
        variance = sum((each - mean) ** 2 for each in real) / len(real)
        out[..., channel] = (x[..., channel] - mean) / math.sqrt(variance + eps)
        means.append(mean)
        variances.append(variance)
    return out, torch.tensor(means, dtype=torch.float64), torch.tensor(variances, dtype=torch.float64)
