"""Self-attention over pixels that can be a convolution (Cordonnier, Loukas and Jaggi 2020, theorem 1).

Each head looks around a center: the score of the pixel `delta` away from the query is

    -alpha |delta - center|^2 = -alpha (1, -2 center) . (|delta|^2, delta) + constant

a product with a *quadratic* encoding of the relative position, whatever the pixels show. As `alpha` grows a head sees
the one pixel at its center, so that one head for each pixel of a kernel makes a convolution.

Cost: the exponential of a sum of squares is a product, so attention along the rows and then along the columns is
attention over all pixels: O(p (height + width) e) a head for p pixels and value dim e, in place of O(p^2 e), and no
p x p array.
"""

import math
from typing import NamedTuple

import torch
from einops import rearrange
from torch import nn
from torch.nn.functional import pad

from saccade.errors import must_be, whole_number
from saccade.shapes import Float, Tensor

SHARPNESS = 64.0
"""`alpha` of a head that sees one pixel: its neighbour has a weight of 1.6e-28."""


class Frame(NamedTuple):
    """Zeros around the image, which heads see too, and how much smaller than all that the output is.

    Attributes:
        top: rows of zeros above.
        bottom: below.
        left: columns of zeros to the left.
        right: to the right.
        rows: by how many rows the output is smaller.
        columns: by how many columns.
    """

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0
    rows: int = 0
    columns: int = 0


def axis_weights(
    centers: Float[Tensor, " h"], alpha: Float[Tensor, " h"], queries: int, keys: int, start: int
) -> Float[Tensor, "h q k"]:
    """How much each place of an axis takes from each: a softmax of `-alpha (k - q - center)^2`.

    Args:
        centers: where each head looks, from the query.
        alpha: how sharply.
        queries: how many places ask, from 0 on.
        keys: how many are asked.
        start: the place of the first of them.
    """
    q = torch.arange(queries, device=centers.device, dtype=centers.dtype)
    k = torch.arange(start, start + keys, device=centers.device, dtype=centers.dtype)
    distance = k - q[:, None] - centers[:, None, None]
    return torch.softmax(-alpha[:, None, None] * distance.square(), dim=-1)


class QuadraticAttention(nn.Module):
    """Multi-head self-attention over the pixels of an image, by relative position alone.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        heads: how many centers there are.
        value_dim: dim of one head's values; the smaller number of channels if not given, which is all a head can use.
        bias: whether the output adds a vector.
        frame: zeros around the image; none if not given, and the output is as large as the input.

    Attributes:
        centers: where each head looks, in rows and columns from the query; learned.
        log_alpha: the logarithm of how sharply it does; learned.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int,
        value_dim: int | None = None,
        bias: bool = True,
        frame: Frame | None = None,
    ) -> None:
        super().__init__()
        value_dim = min(in_channels, out_channels) if value_dim is None else value_dim
        sizes = {"in_channels": in_channels, "out_channels": out_channels, "heads": heads, "value_dim": value_dim}
        for name, size in sizes.items():
            whole_number(name, size)
        self.heads, self.frame = heads, frame or Frame()
        # As in the paper: heads begin wide, around centers that are drawn.
        self.centers = nn.Parameter(torch.randn(heads, 2) * math.sqrt(2))
        self.log_alpha = nn.Parameter(torch.zeros(heads))
        self.value = nn.Linear(in_channels, heads * value_dim, bias=False)
        self.output = nn.Linear(heads * value_dim, out_channels, bias)

    def forward(self, image: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c2 y2 x2"]:
        """What each pixel takes from those that its heads look at.

        Args:
            image: the channels of each pixel.

        Raises:
            ValueError: another number of channels, or an image too small for its frame.
        """
        rows, columns = self.weights(*self._refuse(image))
        frame = self.frame
        values = rearrange(self.value(rearrange(image, "b c y x -> b y x c")), "b y x (h e) -> b h e y x", h=self.heads)
        values = pad(values, (frame.left, frame.right, frame.top, frame.bottom))
        seen = torch.einsum("hqy,bheyx,hpx->bqphe", rows, values, columns)
        return rearrange(self.output(seen.flatten(3)), "b y x c -> b c y x")

    def weights(self, height: int, width: int) -> tuple[Float[Tensor, "h q k"], Float[Tensor, "h p x"]]:
        """The weights of rows and of columns; those of pixels are their products.

        Args:
            height: rows of the image, without its frame.
            width: its columns.
        """
        frame, alpha = self.frame, self.log_alpha.exp()
        keys = height + frame.top + frame.bottom, width + frame.left + frame.right
        rows = axis_weights(self.centers[:, 0], alpha, keys[0] - frame.rows, keys[0], -frame.top)
        return rows, axis_weights(self.centers[:, 1], alpha, keys[1] - frame.columns, keys[1], -frame.left)

    def _refuse(self, image: Tensor) -> tuple[int, int]:
        """The height and width of an image that can be."""
        frame, channels = self.frame, self.value.in_features
        if image.ndim != 4 or image.shape[1] != channels:
            raise ValueError(must_be("image", f"of shape [batch, {channels}, height, width]", tuple(image.shape)))
        height, width = image.shape[2:]
        least = max(1, 1 + frame.rows - frame.top - frame.bottom), max(1, 1 + frame.columns - frame.left - frame.right)
        if height < least[0] or width < least[1]:
            raise ValueError(must_be("image", f"at least {least[0]} x {least[1]} pixels", f"{height} x {width}"))
        return height, width


def from_conv(conv: nn.Conv2d, alpha: float = SHARPNESS) -> QuadraticAttention:
    """Attention that equals a convolution: one head for each pixel of its kernel, which looks at that pixel.

    Any kernel, zero padding, dilation and bias. The result is in the dtype of the convolution and beside it, and every
    part of it may be trained on.

    Args:
        conv: what it shall equal; it is left as it is.
        alpha: how sharply each head looks; a weight of `exp(-alpha)` goes to each neighbour.

    Raises:
        TypeError: not a `Conv2d`.
        ValueError: a stride other than 1, groups, padding with something else than zeros, or an `alpha` that is not
            positive and finite.
    """
    _refuse_conv(conv)
    if not 0 < alpha < math.inf:
        raise ValueError(must_be("alpha", "positive and finite", alpha))
    (height, width), (down, right) = conv.kernel_size, conv.dilation
    frame, weight = _frame(conv), conv.weight.detach()
    module = QuadraticAttention(
        conv.in_channels, conv.out_channels, height * width, bias=conv.bias is not None, frame=frame
    ).to(weight)
    rows, columns = torch.arange(height) * down - frame.top, torch.arange(width) * right - frame.left
    kernel = rearrange(weight, "o i y x -> (y x) o i")
    wide = conv.out_channels > conv.in_channels
    identity = torch.eye(min(conv.in_channels, conv.out_channels)).to(weight).expand(height * width, -1, -1)
    # The smaller of the two products with channels is the kernel's; the other only collects.
    value, output = (identity, kernel) if wide else (kernel, identity)
    with torch.no_grad():
        module.centers.copy_(torch.cartesian_prod(rows, columns).view(-1, 2))
        module.log_alpha.fill_(math.log(alpha))
        module.value.weight.copy_(rearrange(value, "h e i -> (h e) i"))
        module.output.weight.copy_(rearrange(output, "h o e -> o (h e)"))
        if conv.bias is not None:
            module.output.bias.copy_(conv.bias)
    return module


def _refuse_conv(conv: nn.Conv2d) -> None:
    if not isinstance(conv, nn.Conv2d):
        raise TypeError(must_be("conv", "a torch.nn.Conv2d", type(conv).__name__))
    if conv.stride != (1, 1):
        raise ValueError(must_be("stride of conv", "1, as every pixel is a query", conv.stride))
    if conv.groups != 1:
        raise ValueError(must_be("groups of conv", "1, as every head reads all channels", conv.groups))
    if conv.padding_mode != "zeros":
        raise ValueError(must_be("padding_mode of conv", "'zeros'", conv.padding_mode))


def _frame(conv: nn.Conv2d) -> Frame:
    """The zeros around the image, as many as the convolution puts there, and what its kernel takes off."""
    rows, columns = (step * (size - 1) for step, size in zip(conv.dilation, conv.kernel_size, strict=True))
    if conv.padding == "same":  # where one more is needed on one side, torch puts it behind
        return Frame(rows // 2, rows - rows // 2, columns // 2, columns - columns // 2, rows, columns)
    down, right = (0, 0) if isinstance(conv.padding, str) else conv.padding
    return Frame(down, down, right, right, rows, columns)
