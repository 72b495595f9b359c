"""LRP rules: how a convolution or linear layer shares the relevance of its outputs among its inputs.

What flows through the engine is a message, relevance divided by activation. A rule names a stand-in ``y`` for the
layer's output ``z``, a sum of contributions: output ``j`` shares ``message_j * z_j / (y_j + stabiliser_j)`` times each
contribution. `Shares` holds what of this is known after the forward pass, so that one forward serves several targets.

Notes
-----
``(x w)+`` and ``(x w)-`` are the positive and negative contributions, a bias being the weight of an input that is
always 1. The gamma rule costs one extra convolution instead of four: as ``sum |x w| = sum (x w)+ - sum (x w)-``, the
stand-in is ``y = (1 + gamma/2) z + sign(z) gamma/2 sum |x w|``. It has the sign of ``z`` and is never smaller than it,
so that nothing cancels.

References
----------
Bach et al. 2015, doi:10.1371/journal.pone.0130140 (epsilon); Montavon et al. 2017, doi:10.1016/j.patcog.2016.11.008
(z-plus, w-square, zB); Lapuschkin et al. 2019, doi:10.1038/s41467-019-08987-4 (flat); Montavon et al. 2019,
doi:10.1007/978-3-030-28954-6_10, and Andéol et al. 2021, arXiv:2106.10185 (gamma, also for negative inputs).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mammoflow.explain.affine import Affine, channel_constant

SMALL = 1e-6  # stabiliser of rules other than epsilon, relative to the root mean square of `y`


class Part(NamedTuple):
    """One linear map of a rule.

    Attributes
    ----------
    weight : weights of the map.
    gate : what an input contributes, relative to the input (of input rules: itself); None is 1.
    signed : whether the shares of outputs with a negative stand-in count negative.
    """

    weight: Tensor
    gate: Tensor | None = None
    signed: bool = False


@dataclass(frozen=True)
class Shares:
    """What a rule knows of one call after its forward pass.

    Attributes
    ----------
    factor : ``z / |y + stabiliser|`` if `symmetric`, else ``z / (y + stabiliser)``.
    symmetric : whether `y` has the sign of `z`; then ``|factor|`` is the share, `factor` the signed share.
    parts : maps that carry the shares to the inputs.
    constant : part of the stand-in that no input contributed, without the stabiliser, (C,).
    signed_constant : more of it that has the stand-in's sign, (C,), of symmetric rules.
    stabiliser : what keeps `y` away from 0: of symmetric rules its size, (N, 1, ...), else itself.
    """

    factor: Tensor
    symmetric: bool
    parts: tuple[Part, ...]
    constant: Tensor | None
    signed_constant: Tensor | None
    stabiliser: Tensor


def size_of(y: Tensor) -> Tensor:
    """Root mean square of each sample, shaped to broadcast with `y`."""
    dims = tuple(range(1, y.ndim))
    return torch.linalg.vector_norm(y, dim=dims, keepdim=True) / (y[0].numel() ** 0.5)


def _ratio(z: Tensor, denominator: Tensor) -> Tensor:
    """``z / denominator``, 0 where the denominator is 0."""
    return (z / denominator).nan_to_num_(0, posinf=0, neginf=0)


@dataclass(frozen=True)
class Epsilon:
    """Share in proportion to ``x w``; `epsilon` (times the root mean square of the outputs) absorbs weak evidence."""

    epsilon: float = 0.01

    def shares(self, affine: Affine, x: Tensor, z: Tensor) -> Shares:
        """Return what the rule knows of a layer's input `x`, in any precision, and its output `z`, in the messages'."""
        absorbed = size_of(z) * self.epsilon
        factor = z.sign() if self.epsilon == 0 else _ratio(z, z.abs().add_(absorbed))
        return Shares(factor, True, (Part(affine.weight),), affine.bias, None, absorbed)


@dataclass(frozen=True)
class Gamma:
    """Share in proportion to ``x w + gamma (x w)+`` where the output is positive, ``x w + gamma (x w)-`` elsewhere."""

    gamma: float = 0.1
    epsilon: float = SMALL

    def shares(self, affine: Affine, x: Tensor, z: Tensor) -> Shares:
        """See `Shares`."""
        x = x.to(z.dtype)
        half = self.gamma / 2
        weight = affine.weights(f"gamma {self.gamma}", lambda w: w * (1 + half))
        favoured = affine.weights(f"favoured {self.gamma}", lambda w: w.abs() * half)
        bias = None if affine.bias is None else affine.bias.abs() * half
        size = affine.linear(x.abs(), favoured, bias).add_(z.abs(), alpha=1 + half)
        absorbed = size_of(size) * self.epsilon
        parts = (Part(weight), Part(favoured, x.sign(), signed=True))
        constant = None if affine.bias is None else affine.bias * (1 + half)
        return Shares(_ratio(z, size.add_(absorbed)), True, parts, constant, bias, absorbed)


@dataclass(frozen=True)
class ZPlus:
    """Share in proportion to ``(x w)+`` alone. Blind to what spoke against: kept as a control that fails the checks."""

    epsilon: float = SMALL

    def shares(self, affine: Affine, x: Tensor, z: Tensor) -> Shares:
        """See `Shares`."""
        x = x.to(z.dtype)
        positive = affine.weights("positive", lambda w: w.clamp(min=0))
        negative = affine.weights("negative", lambda w: w.clamp(max=0))
        constant = channel_constant(affine).clamp(min=0)
        y = affine.linear(x.clamp(min=0), positive, constant) + affine.linear(x.clamp(max=0), negative)
        absorbed = size_of(y) * self.epsilon
        parts = (Part(positive, (x > 0).to(x.dtype)), Part(negative, (x < 0).to(x.dtype)))
        return Shares(_ratio(z, y + absorbed), False, parts, constant, None, absorbed)


def _whatever_the_pixels(affine: Affine, x: Tensor, z: Tensor, weight: Tensor, epsilon: float) -> Shares:
    """Shares in proportion to `weight` alone, each at least 0."""
    y = affine.linear(torch.ones_like(x[:1], dtype=z.dtype), weight)
    absorbed = size_of(y) * epsilon
    return Shares(_ratio(z, (y + absorbed).expand_as(z)), False, (Part(weight),), None, None, absorbed)


@dataclass(frozen=True)
class Flat:
    """First layer: every pixel of the receptive field gets the same share, whatever its grey value."""

    epsilon: float = SMALL

    def shares(self, affine: Affine, x: Tensor, z: Tensor) -> Shares:
        """See `Shares`."""
        return _whatever_the_pixels(affine, x, z, affine.weights("flat", torch.ones_like), self.epsilon)


@dataclass(frozen=True)
class WSquare:
    """First layer: share in proportion to ``w**2``, whatever the grey value."""

    epsilon: float = SMALL

    def shares(self, affine: Affine, x: Tensor, z: Tensor) -> Shares:
        """See `Shares`."""
        return _whatever_the_pixels(affine, x, z, affine.weights("squared", torch.square), self.epsilon)


@dataclass(frozen=True)
class ZBox:
    """First layer of inputs within `low` and `high`: share in proportion to ``x w - low w+ - high w-``."""

    low: float = 0.0
    high: float = 1.0
    epsilon: float = SMALL

    def shares(self, affine: Affine, x: Tensor, z: Tensor) -> Shares:
        """See `Shares`."""
        x = x.to(z.dtype)
        parts = (
            Part(affine.weight, x),
            Part(affine.weights("positive", lambda w: w.clamp(min=0)), torch.full_like(x, -self.low)),
            Part(affine.weights("negative", lambda w: w.clamp(max=0)), torch.full_like(x, -self.high)),
        )
        y = torch.stack([affine.linear(part.gate, part.weight) for part in parts if part.gate is not None]).sum(0)
        size = size_of(y) * self.epsilon
        absorbed = torch.where(y < 0, -size, size)
        return Shares(_ratio(z, y + absorbed), False, parts, None, None, absorbed)


Rule = Epsilon | Gamma | ZPlus | Flat | WSquare | ZBox
INPUT_RULES = (Flat, WSquare, ZBox)
