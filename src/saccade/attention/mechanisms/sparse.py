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
    """Any pattern.

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
