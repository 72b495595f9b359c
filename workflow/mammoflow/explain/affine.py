"""Convolutions and linear layers as linear maps: forward, transposed, and with other weights."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from mammoflow.explain import double

LINEAR = {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear"}
_FORWARD = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@dataclass(frozen=True)
class Affine:
    """One linear layer of a prepared model, whose weights don't change any more.

    Attributes
    ----------
    weight, bias : as torch's functions take them.
    stride, padding, output_padding, dilation : one number a spatial dimension; unused by linear layers.
    groups : channel groups of a convolution.
    transposed : whether it is a transposed convolution.
    derived : weights that rules made of `weight`, by name: made once, used at every call.
    """

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    transposed: bool = False
    derived: dict[str, Tensor] = field(default_factory=dict)

    @property
    def spatial(self) -> int:
        """Spatial dimensions: 0 of a linear layer."""
        return len(self.stride)

    @property
    def channel(self) -> int:
        """Dimension of an output that counts its channels."""
        return 1 if self.spatial else -1

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Apply the layer to `x` with other weights of the same shape."""
        if not self.spatial:
            return F.linear(x, weight, bias)
        if self.transposed:
            options = (self.stride, self.padding, self.output_padding, self.groups, self.dilation)
            return _TRANSPOSED[self.spatial](x, weight, bias, *options)
        if self.groups > 1 and x.dtype == torch.float64:
            x = x.contiguous()  # torch takes the groups one by one: six times slower in channels_last
        if weight is self.weight and self.groups == 1 and x.ndim == 4 and set(self.dilation) == {1}:
            return self._convolved(x, bias)
        return _FORWARD[self.spatial](x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def _convolved(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Apply a plain two-dimensional convolution in the fastest way."""
        way = double.way(x, self.weight, self.stride, self.padding)
        if way == "torch":
            return F.conv2d(x, self.weight, bias, self.stride, self.padding)
        if way == "winograd":
            z = double.winograd(x, self.weights(way, double.winograd_weights), self.padding)
        else:
            kernel = tuple(self.weight.shape[2:])
            z = double.by_product(x, self.weights(way, double.product_weights), kernel, self.stride, self.padding)
        return z if bias is None else z.add_(self.over_channels(bias))

    def back(self, share: Tensor, weight: Tensor, size: tuple[int, ...]) -> Tensor:
        """Apply the transposed map to `share`, shaped like an output; `size` is the input's spatial shape."""
        if not self.spatial:
            return share @ weight
        if self.transposed:
            return _FORWARD[self.spatial](share, weight, None, self.stride, self.padding, self.dilation, self.groups)
        kernel, steps = weight.shape[2:], zip(size, share.shape[2:], strict=True)
        rest = tuple(
            wide - (narrow - 1) * self.stride[d] + 2 * self.padding[d] - self.dilation[d] * (kernel[d] - 1) - 1
            for d, (wide, narrow) in enumerate(steps)
        )
        options = (self.stride, self.padding, rest, self.groups, self.dilation)
        return _TRANSPOSED[self.spatial](share, weight, None, *options)

    def weights(self, name: str, make: Callable[[Tensor], Tensor]) -> Tensor:
        """Return weights that a rule makes of `weight`, kept under `name`."""
        if name not in self.derived:
            self.derived[name] = make(self.weight)
        return self.derived[name]

    def over_channels(self, constant: Tensor) -> Tensor:
        """Shape one number a channel, (C,), so that it broadcasts with an output."""
        return constant.reshape(-1, *[1] * self.spatial)

    def of_channels(self, output: Tensor) -> Tensor:
        """Sum an output over all but samples and channels: (N, C)."""
        rest = tuple(d for d in range(1, output.ndim) if d != self.channel % output.ndim)
        return output.sum(rest) if rest else output

    def rounded(self, dtype: torch.dtype) -> Self:
        """Return the layer in another precision; itself when it has that already."""
        if dtype == self.weight.dtype:
            return self
        bias = None if self.bias is None else self.bias.to(dtype)
        return replace(self, weight=self.weight.to(dtype), bias=bias, derived={})

    def merged(self, scale: Tensor, shift: Tensor) -> Self:
        """Return the layer followed by ``scale * z + shift`` of each channel, worked out in float64."""
        weight, scale, shift = self.weight.double(), scale.double(), shift.double()
        if self.transposed:
            per_group = scale.reshape(self.groups, 1, -1)
            grouped = weight.reshape(self.groups, -1, *weight.shape[1:])
            weight = (grouped * per_group.reshape(self.groups, 1, -1, *[1] * self.spatial)).reshape(weight.shape)
        else:
            weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        bias = shift if self.bias is None else self.bias.double() * scale + shift
        dtype = self.weight.dtype
        return replace(self, weight=weight.to(dtype), bias=bias.to(dtype), derived={})


def _each(value: Any, count: int) -> tuple[int, ...]:
    numbers = tuple(int(one) for one in value) if isinstance(value, list | tuple) else (int(value),)
    return numbers * count if len(numbers) == 1 else numbers


def read_call(
    name: str, weight: Tensor, bias: Tensor | None, options: tuple[Any, ...], named: dict[str, Any]
) -> tuple[Affine, list[int]]:
    """Return the linear map of a call of torch's function `name`, and what to pad its input by.

    Parameters
    ----------
    options, named : arguments after the bias, by position and by name.

    Returns
    -------
    The map, and pixels as `torch.nn.functional.pad` takes them: where padding was given as ``same`` or ``valid``.
    """
    if name == "linear":
        return Affine(weight, bias), []
    spatial, transposed = int(name[-2]), "transpose" in name
    order = ["stride", "padding", "output_padding", "groups", "dilation"]
    order = order if transposed else ["stride", "padding", "dilation", "groups"]
    given: dict[str, Any] = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1}
    given |= dict(zip(order, options, strict=False)) | named
    padding: list[int] = []
    if isinstance(given["padding"], str):
        padding, given["padding"] = _numbered(given["padding"], weight, _each(given["dilation"], spatial)), 0
    groups = int(given.pop("groups"))
    each: dict[str, Any] = {key: _each(value, spatial) for key, value in given.items()}
    return Affine(weight, bias, **each, groups=groups, transposed=transposed), padding


def _numbered(padding: str, weight: Tensor, dilation: tuple[int, ...]) -> list[int]:
    """Pixels on both sides of each dimension, the last first: the odd one comes after, as in torch."""
    total = [
        step * (size - 1) if padding == "same" else 0 for step, size in zip(dilation, weight.shape[2:], strict=True)
    ]
    return [side for one in reversed(total) for side in (one // 2, one - one // 2)]


def channel_constant(affine: Affine) -> Tensor:
    """Bias of each output channel, (C,); zeros when the layer has none."""
    if affine.bias is not None:
        return affine.bias
    channels = affine.weight.shape[1] * affine.groups if affine.transposed else affine.weight.shape[0]
    return torch.zeros(channels, dtype=affine.weight.dtype, device=affine.weight.device)
