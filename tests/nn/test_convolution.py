"""Attention with quadratic relative positions: equal to a convolution, and to a softmax over all pixels."""

import pytest
import torch
from torch import nn

from saccade.nn.convolution import Frame, QuadraticAttention, from_conv

CONVOLUTIONS = {
    "same": {"kernel_size": 3, "padding": 1},
    "valid": {"kernel_size": 3},
    "one": {"kernel_size": 1},
    "even": {"kernel_size": 2, "padding": 1},
    "flat": {"kernel_size": (1, 5), "padding": (0, 2)},
    "named_same": {"kernel_size": (4, 3), "padding": "same"},
    "named_valid": {"kernel_size": 3, "padding": "valid"},
    "dilated": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "unbiased": {"kernel_size": 3, "padding": 4, "bias": False},
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("channels", [(3, 5), (5, 3)])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_it_equals_the_convolution(name, channels):
    conv = nn.Conv2d(*channels, **CONVOLUTIONS[name])
    ours, image = from_conv(conv), torch.randn(2, channels[0], 7, 11)
    torch.testing.assert_close(ours(image), conv(image), rtol=0, atol=1e-5)
    assert ours.heads == conv.kernel_size[0] * conv.kernel_size[1]
    conv, image = conv.double(), image.double().requires_grad_()
    one, other = from_conv(conv)(image), conv(image)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-13)
    gradients = (torch.autograd.grad(out.square().sum(), image)[0] for out in (one, other))
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def by_definition(ours, image):
    """The paper's attention: a softmax over all pixels, in the frame too, of products with quadratic encodings."""
    frame, height = ours.frame, image.shape[2]
    padded = nn.functional.pad(image, (frame.left, frame.right, frame.top, frame.bottom))
    keys = [(y - frame.top, x - frame.left) for y in range(padded.shape[2]) for x in range(padded.shape[3])]
    value_dim = ours.value.out_features // ours.heads
    rows = height + frame.top + frame.bottom - frame.rows
    out = torch.zeros(image.shape[0], ours.output.out_features, rows, len(keys) // padded.shape[2] - frame.columns)
    out = out.double()
    for qy in range(out.shape[2]):
        for qx in range(out.shape[3]):
            encoded = [(dy**2 + dx**2, dy, dx) for dy, dx in ((y - qy, x - qx) for y, x in keys)]
            encoded = torch.tensor(encoded, dtype=torch.float64)
            out[:, :, qy, qx] = 0 if ours.output.bias is None else ours.output.bias
            for head in range(ours.heads):
                alpha, center = ours.log_alpha[head].exp(), ours.centers[head]
                query = -alpha * torch.stack([torch.ones(()).double(), -2 * center[0], -2 * center[1]])
                seen = padded.flatten(2) @ torch.softmax(encoded @ query, 0)
                part = slice(head * value_dim, (head + 1) * value_dim)
                out[:, :, qy, qx] += seen @ ours.value.weight[part].T @ ours.output.weight[:, part].T
    return out


@pytest.mark.parametrize("frame", [None, Frame(1, 2, 0, 1, 2, 0)])
def test_rows_and_columns_together_are_the_softmax_over_all_pixels(frame):
    ours = QuadraticAttention(3, 5, 4, value_dim=2, frame=frame).double()
    nn.init.normal_(ours.log_alpha, std=0.7)
    image = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), by_definition(ours, image), rtol=0, atol=1e-12)


def test_weights_are_means():
    rows, columns = QuadraticAttention(3, 5, 4).weights(6, 7)
    assert (tuple(rows.shape), tuple(columns.shape)) == ((4, 6, 6), (4, 7, 7))
    torch.testing.assert_close(rows.sum(-1), torch.ones(4, 6))


def test_centers_and_sharpness_learn_what_a_convolution_does():
    conv = nn.Conv2d(2, 3, (1, 3), padding=(0, 1)).double()
    ours = from_conv(conv, alpha=3.0)
    with torch.no_grad():
        ours.centers.add_(torch.randn_like(ours.centers) * 0.3)
    image = torch.randn(8, 2, 5, 6, dtype=torch.float64)
    optimiser, losses = torch.optim.Adam([ours.centers, ours.log_alpha], 0.05), []
    for _ in range(60):
        loss = (ours(image) - conv(image).detach()).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 20
    assert (ours.log_alpha.exp() > 3).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 2}, r"stride of conv must be 1, as every pixel is a query, got \(2, 2\)"),
        ({"groups": 2}, "groups of conv must be 1, as every head reads all channels, got 2"),
        ({"padding": 1, "padding_mode": "circular"}, "padding_mode of conv must be 'zeros', got 'circular'"),
    ],
)
def test_a_convolution_that_it_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        from_conv(nn.Conv2d(4, 6, 3, **options))


def test_what_cannot_be_is_refused(unchecked):
    conv = nn.Conv2d(4, 6, 3)
    with pytest.raises(TypeError, match=r"conv must be a torch\.nn\.Conv2d, got 'Conv1d'"):
        from_conv(nn.Conv1d(4, 6, 3))
    for alpha in (0.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="alpha must be positive and finite"):
            from_conv(conv, alpha)
    with pytest.raises(ValueError, match="heads must be a whole number, at least 1, got 0"):
        QuadraticAttention(4, 6, 0)
    ours = from_conv(conv)
    with pytest.raises(ValueError, match=r"image must be of shape \[batch, 4, height, width\], got \(2, 3, 9, 9\)"):
        ours(torch.randn(2, 3, 9, 9))
    with pytest.raises(ValueError, match="image must be at least 3 x 3 pixels, got '2 x 9'"):
        ours(torch.randn(2, 4, 2, 9))
