"""Sparse attention: softmax over the keys that a pattern shows, `sparse`, and its presets under their own names.

Sources: Sparse Transformer (Child et al. 2019), Longformer (Beltagy et al. 2020), Big Bird (Zaheer et al. 2020).
Cost: time follows the visited pairs; memory O(n d).
"""

from abc import abstractmethod
from dataclasses import dataclass

from saccade.attention import patterns
from saccade.attention.mechanism import Cost, Mechanism, check_sizes
from saccade.attention.mechanisms._pattern_layer import PatternLayer, pattern_claims, pattern_cost
from saccade.attention.patterns import Global, Local, Pattern, Strided
from saccade.claims import Claims
from saccade.errors import must_be


class _PatternMechanism(Mechanism):
    """A mechanism that is nothing but a pattern."""

    family = "patterns"

    @abstractmethod
    def shown(self) -> Pattern:
        """Who may look at whom."""

    def __post_init__(self) -> None:
        """Refuse options that make no pattern, at once."""
        self.shown()

    @property
    def claims(self) -> Claims:
        """All that softmax attention under a pattern promises."""
        return pattern_claims(self.shown())

    def build(
        self,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        value_dim: int | None = None,
        layer: int = 0,
    ) -> PatternLayer:
        """A layer without parameters; random blocks are drawn anew for each `layer`."""
        kv_heads, value_dim = check_sizes(heads, head_dim, kv_heads, value_dim)
        return PatternLayer(self.shown().reseeded(layer), kv_heads, head_dim, value_dim)

    def cost(
        self,
        n_q: int,
        n_k: int,
        heads: int,
        head_dim: int,
        kv_heads: int | None = None,
        value_dim: int | None = None,
        causal: bool = False,
    ) -> Cost:
        """The allowed pairs."""
        pattern = self.shown().causal() if causal else self.shown()
        return pattern_cost(pattern, n_q, n_k, heads, head_dim, kv_heads, value_dim)

    def behind(self, tokens: int) -> Mechanism:
        """The pattern moved, and global tokens in front."""
        if tokens == 0:
            return self
        pattern = self.shown()
        # Where only distances count, moving changes no pair but those with global tokens: it would only cost tiles.
        return SparseAttention((pattern if pattern.by_distance else pattern.shifted(tokens)) | Global(tokens))


@dataclass(frozen=True, repr=False)
class SparseAttention(_PatternMechanism):
    """Softmax over the keys that a pattern shows: any pattern.

    Formula:
        out_i = Σ_j w_ij v_j,   w_ij = exp(q_i · k_j / √d) / Σ_m exp(q_i · k_m / √d),   j and m in pattern(i)

    Cost:
        O(p d) time for p visited pairs, rounded up to tiles of pairs; O(n d) memory. A decoding state holds the
        window and the sinks of a pattern that shows a query nothing else, and all tokens otherwise.

    Use it:
        Where you know who should see whom: packed documents (`Segments`), graphs (`Edges`), pixels (`Grid`, `Axial`),
        another pattern for each head (`PerHead`), or a window with attention sinks:
        `Local(128, 0) | Global(4, rows=False)`. A pattern stands wherever a mechanism is named.

    Leave it:
        Where the pattern shows more than about half of the pairs: all of them are then no slower. What it hides is
        lost, so ask a trained model first what a pattern would keep: `saccade show RUN 'Local(64) | Global(1)'`.

    Source:
        "Generating Long Sequences with Sparse Transformers" (Child et al. 2019) and the patterns since. It equals
        full attention under a mask, to rounding.

    Attributes:
        pattern: who may look at whom.
    """

    name = "sparse"
    pattern: Pattern = Local(128)

    def shown(self) -> Pattern:
        """The pattern as given."""
        if not isinstance(self.pattern, Pattern):
            raise TypeError(must_be("pattern", "a pattern such as Local(128) | Global(2)", self.pattern))
        return self.pattern

    def __repr__(self) -> str:
        """The pattern, which means this mechanism wherever one is named."""
        return self.name if self == SparseAttention() else repr(self.pattern)


@dataclass(frozen=True, repr=False)
class LocalAttention(_PatternMechanism):
    """A window around each query.

    Formula:
        out_i = Σ_j w_ij v_j,   w = softmax of q_i · k_j / √d over i - left ≤ j ≤ i + right
        Causally j ≤ i as well. The query's own key is always seen, and counted neither left nor right.

    Cost:
        O(n (left + right + 1) d) time, O(n d) memory. A decoding state holds left + 1 tokens.

    Use it:
        Where what matters stands near: speech, bytes, lower layers of any model. Over layers the reach adds up. With
        128 to each side it was 10 times as fast as full attention at 4,096 tokens and 39 times at 16,384 on two CPU
        cores; its causal half was 17 and 58 times as fast as full attention over all keys. It is faster from about
        280 tokens on.

    Leave it:
        Where one layer must join what stands far apart, and nothing global does. Then use `longformer` or
        `big_bird`, or give the encoder extra tokens.

    Source:
        "Longformer" (Beltagy et al. 2020), section 3.1, without its dilation, which is `Strided(s, steps)`. The
        window is exact: implementations by chunks often show some queries up to twice as many keys.

    Attributes:
        left: keys before the query.
        right: keys after it, `left` if not given.
    """

    name = "local"
    left: int = 128
    right: int | None = None

    def shown(self) -> Pattern:
        """The window."""
        return Local(self.left, self.right)


@dataclass(frozen=True, repr=False)
class StridedAttention(_PatternMechanism):
    """Keys a whole number of strides away.

    Formula:
        out_i = Σ_j w_ij v_j,   w = softmax of q_i · k_j / √d over all j with i - j a multiple of stride
        With steps, at most so many strides away. The query's own key is always seen.

    Cost:
        O(n² d / stride) time, or O(n steps d) with steps; O(n d) memory: positions are regrouped by their residue, and
        each residue is a short dense attention. A decoding state holds all tokens.

    Use it:
        For inputs with a known period, such as the width of an image laid out row by row, and beside a window in
        other heads or layers: `PerHead([Local(64), Strided(64)])`. With a stride of 128 it was 23 times as fast as
        full attention at 4,096 tokens on two CPU cores.

    Leave it:
        For text, where what matters has no period. Alone: a token never hears from a neighbour, in any layer.

    Source:
        "Generating Long Sequences with Sparse Transformers" (Child et al. 2019), the second head of the strided
        kind, here to both sides unless causal. With `steps`, the dilated window of Longformer.

    Attributes:
        stride: distance between the keys that are seen.
        steps: how many strides to each side, all if not given.
    """

    name = "strided"
    stride: int = 64
    steps: int | None = None

    def shown(self) -> Pattern:
        """The strides."""
        return Strided(self.stride, self.steps)


@dataclass(frozen=True, repr=False)
class SparseTransformerAttention(_PatternMechanism):
    """A window as long as the stride, and every stride-th key; with `causal=True` exactly the paper's strided kind.

    Formula:
        out_i = Σ_j w_ij v_j,   w = softmax of q_i · k_j / √d over |i - j| ≤ stride or i - j a multiple of stride
        Causally j ≤ i as well.

    Cost:
        O(n (stride + n / stride) d) time, least for a stride of about √n: O(n √n d). O(n d) memory. A decoding state
        holds all tokens.

    Use it:
        For images, sound and other data with a period: two layers join any two positions when the stride is about
        √n. Set the stride to the period, such as the width of an image.

    Leave it:
        For text, for which the paper itself takes another kind, `fixed`: `Local(0, block=l)` with the last columns of
        each block as `Global(positions=[...], rows=False)`. For inputs of a few hundred tokens, unless the stride is
        small.

    Source:
        "Generating Long Sequences with Sparse Transformers" (Child et al. 2019), the strided kind. Both
        parts are merged in each head, one of the paper's ways; `PerHead` gives each head one part. Without `causal`,
        which the paper always has, both parts reach to both sides.

    Attributes:
        stride: the paper's l.
    """

    name = "sparse_transformer"
    stride: int = 128

    def shown(self) -> Pattern:
        """Window and strides to both sides; the layer takes the causal half where it is asked to."""
        return patterns.sparse_transformer(self.stride, causal=False)


@dataclass(frozen=True, repr=False)
class LongformerAttention(_PatternMechanism):
    """A window and global tokens.

    Formula:
        out_i = Σ_j w_ij v_j,   w = softmax of q_i · k_j / √d over |i - j| ≤ window / 2, or i global, or j global
        Causally j ≤ i as well.

    Cost:
        O(n (window + globals) d) time, O(n d) memory. A decoding state holds the window and the global tokens at the
        start; all tokens where there are further positions.

    Use it:
        For long documents: the window reads the text, a classification token or the tokens of a question gather and
        spread what is far apart in one layer. The place of global tokens can differ between inputs: `positions`.

    Leave it:
        Below about twice the window, where it is nearly full attention. Where no token is special: `big_bird`, or
        extra tokens of the encoder, need none.

    Source:
        "Longformer: The Long-Document Transformer" (Beltagy et al. 2020), section 3.1. Left out: projections of
        their own for global tokens, and windows that are dilated on some heads.

    Attributes:
        window: the paper's w: half of it on each side.
        first: global tokens at the start.
        positions: further global positions.
    """

    name = "longformer"
    window: int = 512
    first: int = 1
    positions: tuple[int, ...] | None = None

    def shown(self) -> Pattern:
        """Window and global tokens."""
        return patterns.longformer(self.window, self.first, self.positions)


@dataclass(frozen=True, repr=False)
class BigBirdAttention(_PatternMechanism):
    """Window, global and random blocks.

    Formula:
        out_i = Σ_j w_ij v_j,   w = softmax of q_i · k_j / √d over the blocks that i's block sees
        These are window_blocks around it, the global blocks at both ends of the sequence, and random_blocks others.
        Global blocks see all. Causally j ≤ i, random blocks are drawn among earlier ones, and the end has none.

    Cost:
        O(n block (window_blocks + global_blocks + random_blocks) d) time, O(n d) memory. A decoding state holds all
        tokens, as any may be drawn.

    Use it:
        For long documents without special tokens: global and random blocks join any two tokens in two layers. On two
        CPU cores it was 5 times as fast as full attention at 4,096 tokens and 17 times at 16,384; it is faster from
        about 540 tokens on. With `global_blocks=0` and extra tokens of the encoder it is the paper's other kind, ETC.

    Leave it:
        Below a thousand tokens: with blocks of 64 it leaves little out; take smaller blocks. For generation the paper
        has no form of it; the causal form here is right, but its state grows with the text.

    Source:
        "Big Bird: Transformers for Longer Sequences" (Zaheer et al. 2020), the internal construction, ITC. Random
        blocks are drawn once from seed and layer and are the same in training and use. All heads share them unless
        `per_head`, which is the paper's code. The last global block ends with the real tokens, not with the padding.

    Attributes:
        block: positions in a block.
        window_blocks: blocks in the window, odd.
        global_blocks: global blocks, half of them at the start, half at the end.
        random_blocks: blocks drawn for each query block.
        seed: what the draws are made from, together with the layer.
        per_head: whether each head has draws of its own, as in the paper's code.
    """

    name = "big_bird"
    block: int = 64
    window_blocks: int = 3
    global_blocks: int = 2
    random_blocks: int = 3
    seed: int = 0
    per_head: bool = False

    def shown(self) -> Pattern:
        """Window, globals and random blocks."""
        blocks = self.window_blocks, self.global_blocks, self.random_blocks
        return patterns.big_bird(self.block, *blocks, seed=self.seed, per_head=self.per_head)
