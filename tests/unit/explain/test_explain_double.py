"""Convolutions in float64 against torch's."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoflow.explain.affine import Affine
from mammoflow.explain.double import by_product, product_weights, way, winograd, winograd_weights

ROUNDING = 1e-13  # of the largest value


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max() / other.abs().max())


count, side, edge = st.integers(1, 3), st.integers(3, 9), st.integers(0, 2)


@settings(max_examples=60, deadline=None)
@given(count, st.integers(1, 4), st.integers(1, 4), side, side, edge, edge)
def test_winograd_is_a_convolution_of_three_by_three(
    pictures: int, channels: int, outputs: int, height: int, width: int, down: int, across: int
) -> None:
    x, weight = _random(pictures, channels, height, width), _random(outputs, channels, 3, 3)
    found = winograd(x, winograd_weights(weight), (down, across))
    assert _apart(found, F.conv2d(x, weight, None, 1, (down, across))) < ROUNDING


@settings(max_examples=60, deadline=None)
@given(count, st.integers(1, 4), side, side, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), edge)
def test_one_product_is_a_convolution(
    pictures: int, channels: int, height: int, width: int, high: int, wide: int, step: int, pad: int
) -> None:
    x, weight = _random(pictures, channels, height, width), _random(2, channels, high, wide)
    found = by_product(x, product_weights(weight), (high, wide), (step, 1), (pad, 0))
    assert _apart(found, F.conv2d(x, weight, None, (step, 1), (pad, 0))) < ROUNDING


@pytest.mark.parametrize(
    ("pictures", "side", "kernel", "stride", "expected"),
    [
        (1, 8, 3, 1, "winograd"),
        (1, 6, 3, 1, "torch"),  # nine tiles
        (2, 6, 3, 1, "winograd"),
        (8, 2, 3, 1, "product"),
        (2, 8, 3, 2, "product"),
        (2, 4, 1, 1, "product"),
        (1, 4, 1, 1, "torch"),
        (2, 8, 1, 1, "torch"),
    ],
)
def test_each_way_gives_what_torch_gives(pictures: int, side: int, kernel: int, stride: int, expected: str) -> None:
    x, weight, bias = _random(pictures, 5, side, side), _random(4, 5, kernel, kernel), _random(4)
    pad = kernel // 2
    affine = Affine(weight, bias, (stride,) * 2, (pad,) * 2, (0, 0), (1, 1))
    assert way(x, weight, affine.stride, affine.padding) == expected
    found = affine.linear(x, weight, bias)
    assert _apart(found, F.conv2d(x, weight, bias, stride, pad)) < ROUNDING
    assert list(affine.derived) == ([] if expected == "torch" else [expected])


def test_float32_is_left_to_torch() -> None:
    x, weight = _random(4, 5, 8, 8).float(), _random(4, 5, 3, 3).float()
    assert way(x, weight, (1, 1), (1, 1)) == "torch"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("groups", "dilation"), [(1, 2), (2, 1), (4, 1)])
def test_dilated_and_grouped_convolutions_are_left_to_torch(groups: int, dilation: int, dtype: torch.dtype) -> None:
    x, weight = _random(2, 4, 9, 9).to(dtype), _random(4, 4 // groups, 3, 3).to(dtype)
    affine = Affine(weight, None, (1, 1), (dilation,) * 2, (0, 0), (dilation,) * 2, groups=groups)
    assert torch.equal(affine.linear(x, weight), F.conv2d(x, weight, None, 1, dilation, dilation, groups))
    assert not affine.derived
