"""Small models with known answers: what a token follows is all tokens before it, in a recurrent state."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from saccade.generation import Recomputed, SpecialTokens

SPECIAL = SpecialTokens(pad=0, eos=2, never=(1,))
"""`pad` 0, `bos` 1, `eos` 2; the words are 3 and above."""


class Memory(NamedTuple):
    hidden: Tensor
    seen: Tensor


class Recurrent(nn.Module):
    """A recurrent network; a source is the state that it begins with. It counts what it is asked to do."""

    def __init__(self, vocabulary=7, width=5, sharpness=2.0, dtype=torch.float64, seed=0):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        normal = lambda *shape: torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)  # noqa: E731
        self.embedding, self.turn, self.output = (
            normal(vocabulary, width),
            normal(width, width),
            normal(width, vocabulary),
        )
        self.output = self.output * sharpness
        self.calls = []
        self.eval()

    def read(self, tokens, hidden):
        hidden = torch.tanh(hidden @ self.turn + self.embedding[tokens])
        return hidden @ self.output, hidden

    def start(self, prompts, source=None):
        self.calls.append(("start", *prompts.shape))
        hidden = self.embedding.new_zeros(len(prompts), self.turn.shape[0]) if source is None else source
        for column in prompts.T:
            logits, hidden = self.read(column, hidden)
        return logits, Memory(hidden, prompts)

    def advance(self, tokens, state):
        self.calls.append(("advance", len(tokens)))
        logits, hidden = self.read(tokens, state.hidden)
        return logits, Memory(hidden, torch.cat([state.seen, tokens[:, None]], dim=1))

    def reorder(self, state, rows):
        self.calls.append(("reorder", len(rows)))
        return Memory(state.hidden[rows], state.seen[rows])

    def all_logits(self, tokens, source=None):
        """What a plain forward gives: the logits behind every token, `[b n v]`."""
        hidden = self.embedding.new_zeros(len(tokens), self.turn.shape[0]) if source is None else source
        logits = []
        for column in tokens.T:
            row, hidden = self.read(column, hidden)
            logits.append(row)
        return torch.stack(logits, dim=1)

    def recomputed(self):
        return Recomputed(self.all_logits)

    def following(self, source=None):
        """The same for the oracles: log-probabilities behind one prefix, from a plain forward."""
        known = {}

        def log_probs(prefix):
            if prefix not in known:
                logits = self.all_logits(torch.tensor([prefix]), source)[0, -1]
                known[prefix] = logits.double().log_softmax(-1).tolist()
            return known[prefix]

        return log_probs


class Table:
    """The same logits whatever was read: `table` `[v]`, or `[n v]` for the n-th token and the last from then on."""

    def __init__(self, table):
        self.table = torch.as_tensor(table)

    def start(self, prompts, source=None):
        return self._logits(len(prompts), 0), torch.zeros(len(prompts), dtype=torch.long)

    def advance(self, tokens, state):
        step = int(state[0]) + 1
        return self._logits(len(tokens), step), torch.full_like(tokens, step)

    def reorder(self, state, rows):
        return state[rows]

    def _logits(self, rows, step):
        row = self.table if self.table.ndim == 1 else self.table[min(step, len(self.table) - 1)]
        return row.expand(rows, -1).clone()


def ragged(*prompts, pad=0):
    """Prompts of different lengths as one tensor, and their lengths. What stands behind them is `pad`."""
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    rows = [[*prompt, *[pad] * (int(lengths.max()) - len(prompt))] for prompt in prompts]
    return torch.tensor(rows), lengths


def rows_of(out):
    """The tokens of each row of a result, without the padding."""
    return [tuple(row[:length].tolist()) for row, length in zip(out.tokens, out.lengths.tolist(), strict=True)]
