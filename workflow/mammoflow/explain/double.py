"""Convolutions in float64 on a CPU, several times as fast as torch's where these are slow.

Torch's multiplies matrices one picture after the other, and reads all weights for each, however few pixels it has.
"""

from math import ceil

import torch
from torch import Tensor

FEW_PIXELS = 16  # of an output: up to so many make a product too narrow to be worth reading the weights for
FEW_TILES = 16  # of 2 x 2 pixels in a batch: fewer aren't worth reading 16 / 9 as many weights


def way(x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: tuple[int, ...]) -> str:
    """Return how to convolve `x` best: ``winograd``, ``product`` (see `by_product`) or ``torch``.

    Parameters
    ----------
    x, weight : (N, C, H, W) and (O, C, K, L), neither grouped nor dilated.
    stride, padding : pixels in height and width.
    """
    if x.dtype != torch.float64 or x.device.type != "cpu":
        return "torch"
    kernel = weight.shape[2:]
    sizes = zip(x.shape[2:], kernel, stride, padding, strict=True)
    height, width = ((size + 2 * pad - wide) // step + 1 for size, wide, step, pad in sizes)
    if kernel == (3, 3) and stride == (1, 1) and len(x) * ceil(height / 2) * ceil(width / 2) >= FEW_TILES:
        return "winograd"
    return "product" if len(x) > 1 and height * width <= FEW_PIXELS else "torch"


def product_weights(weight: Tensor) -> Tensor:
    """Lay out weights, (O, C, K, L), for `by_product`: (K * L * C, O)."""
    return weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous()


def by_product(
    x: Tensor, weights: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]
) -> Tensor:
    """Convolve all pictures of a batch by one product of matrices.

    Parameters
    ----------
    x : (N, C, H, W).
    weights : see `product_weights`.
    kernel, stride, padding : pixels in height and width.

    Returns
    -------
    (N, O, H', W'), channels last in memory.
    """
    padded = _padded(x, padding, (0, 0))
    windows = padded.unfold(1, kernel[0], stride[0]).unfold(2, kernel[1], stride[1])  # (N, H', W', C, K, L)
    columns = windows.permute(0, 1, 2, 4, 5, 3).flatten(3)
    return (columns @ weights).permute(0, 3, 1, 2)


def winograd_weights(weight: Tensor) -> Tensor:
    """Transform weights of 3 x 3 pixels, (O, C, 3, 3), for `winograd`: (16, C, O)."""
    third = weight.new_tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    return torch.einsum("jb,ia,ocab->jico", third, third, weight).flatten(0, 1).contiguous()


def winograd(x: Tensor, weights: Tensor, padding: tuple[int, ...]) -> Tensor:
    """Convolve with 3 x 3 pixels at stride 1 by 16 instead of 36 products for 2 x 2 pixels of output.

    Winograd's F(2 x 2, 3 x 3) (Lavin and Gray 2016, "Fast algorithms for convolutional neural networks"). In float64 it
    rounds as much as a plain convolution does.

    Parameters
    ----------
    x : (N, C, H, W).
    weights : see `winograd_weights`.
    padding : pixels in height and width.

    Returns
    -------
    (N, O, H', W'), channels last in memory.
    """
    height, width = x.shape[2] + 2 * padding[0] - 2, x.shape[3] + 2 * padding[1] - 2
    down, across = (height + 1) // 2, (width + 1) // 2
    padded = _padded(x, padding, (2 * down - height, 2 * across - width))
    rows = x.new_empty(4, len(x), down, padded.shape[2], x.shape[1])
    _transform(padded, 1, rows)
    tiles = x.new_empty(4, 4, len(x), down, across, x.shape[1])  # by column and row in a tile
    _transform(rows, 3, tiles)
    products = torch.bmm(tiles.reshape(16, -1, x.shape[1]), weights).reshape(*tiles.shape[:-1], -1)
    result = x.new_empty(len(x), down, 2, across, 2, products.shape[-1])
    halves = products.new_empty(2, *products.shape[1:])
    _sum(products, halves[0], halves[1])
    for column, half in enumerate(halves):
        _sum(half, result[:, :, 0, :, column], result[:, :, 1, :, column])
    return result.flatten(3, 4).flatten(1, 2)[:, :height, :width].permute(0, 3, 1, 2)


def _padded(x: Tensor, padding: tuple[int, ...], more: tuple[int, int]) -> Tensor:
    """Zeros around pictures, and `more` below and to the right: (N, H, W, C)."""
    (top, left), (count, channels, height, width) = padding, x.shape
    padded = x.new_zeros(count, height + 2 * top + more[0], width + 2 * left + more[1], channels)
    padded[:, top : top + height, left : left + width] = x.permute(0, 2, 3, 1)
    return padded


def _transform(x: Tensor, dimension: int, out: Tensor) -> None:
    """Winograd's input transform: of each 4 pixels, in steps of 2, the differences and sums that are multiplied."""
    even, odd = x.unflatten(dimension, (-1, 2)).unbind(dimension + 1)
    count = even.shape[dimension] - 1
    (even, second), (odd, third) = ([one.narrow(dimension, at, count) for at in (0, 1)] for one in (even, odd))
    torch.sub(even, second, out=out[0])
    torch.add(odd, second, out=out[1])
    torch.sub(second, odd, out=out[2])
    torch.sub(odd, third, out=out[3])


def _sum(products: Tensor, first: Tensor, second: Tensor) -> None:
    """Winograd's output transform: two pixels of each four products."""
    torch.add(products[0], products[1] + products[2], out=first)
    torch.sub(products[1] - products[2], products[3], out=second)
