"""The patterns of the papers, built from the parts: Longformer, Big Bird, Sparse Transformer."""

from saccade.attention.patterns.global_tokens import Global
from saccade.attention.patterns.local import Causal, Local
from saccade.attention.patterns.pattern import Pattern
from saccade.attention.patterns.random_blocks import Random
from saccade.attention.patterns.strided import Strided
from saccade.errors import must_be, whole_number


def longformer(window: int = 512, first: int = 1, positions: tuple[int, ...] | None = None) -> Pattern:
    """A window and a few global tokens that see and are seen by all (Beltagy et al. 2020).

    Args:
        window: the paper's w: half of it on each side, the query itself not counted.
        first: global tokens at the start, such as a classification token.
        positions: further global positions, such as the tokens of a question.
    """
    if type(window) is not int or window < 0 or window % 2:
        raise ValueError(must_be("window", "an even whole number, at least 0", window))
    return Local(window // 2) | Global(first, positions=positions)


def big_bird(
    block: int = 64,
    window_blocks: int = 3,
    global_blocks: int = 2,
    random_blocks: int = 3,
    seed: int = 0,
    per_head: bool = False,
) -> Pattern:
    """Window, global and random blocks, in the paper's internal construction, ITC (Zaheer et al. 2020).

    Args:
        block: positions in a block.
        window_blocks: blocks in the window, the query's own in the middle; odd.
        global_blocks: global blocks, half of them at the start, half at the end of the live length.
        random_blocks: blocks drawn for each query block among those that window and globals leave out.
        seed: what the draws are made from.
        per_head: whether each head has draws of its own, as in the paper's code.
    """
    if type(window_blocks) is not int or window_blocks < 1 or window_blocks % 2 == 0:
        raise ValueError(must_be("window_blocks", "an odd whole number, at least 1", window_blocks))
    for name, count in (("global_blocks", global_blocks), ("random_blocks", random_blocks)):
        whole_number(name, count, 0)
    pattern: Pattern = Local(window_blocks // 2, block=block)
    if global_blocks:
        pattern |= Global(first=(global_blocks + 1) // 2 * block, last=global_blocks // 2 * block)
    if random_blocks:
        pattern |= Random(random_blocks, block, seed, excluding=pattern, per_head=per_head)
    return pattern


def sparse_transformer(stride: int = 128, causal: bool = True) -> Pattern:
    """The strided kind with both heads merged: the last `stride` keys and every `stride`-th (Child et al. 2019).

    Args:
        stride: the paper's l.
        causal: the paper's own, causal form; otherwise the same to both sides.
    """
    pattern = Strided(stride) | Local(stride)
    return pattern & Causal() if causal else pattern
