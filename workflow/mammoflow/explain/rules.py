"""LRP rules: how a convolution or linear layer shares the relevance of its outputs among its inputs.

Each rule gives a stand-in ``y`` for the layer's output, a sum of contributions whose gradients say how relevance is
shared: input ``i`` receives ``contribution_ij / (y_j + stabiliser_j)`` of the relevance of output ``j``.

Notes
-----
``(x w)+`` and ``(x w)-`` are the positive and negative contributions. In the gamma rule they cost one extra convolution
instead of four, because ``sum |x| |w| = sum (x w)+ - sum (x w)-`` and ``sum x w = sum (x w)+ + sum (x w)-``.

References
----------
Bach et al. 2015, doi:10.1371/journal.pone.0130140 (epsilon); Montavon et al. 2017, doi:10.1016/j.patcog.2016.11.008
(z-plus, w-square, zB); Lapuschkin et al. 2019, doi:10.1038/s41467-019-08987-4 (flat); Montavon et al. 2019,
doi:10.1007/978-3-030-28954-6_10, and Andéol et al. 2021, arXiv:2106.10185 (gamma, also for negative inputs).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

SMALL = 1e-6  # stabiliser of rules other than epsilon, relative to the root mean square of `y`


@dataclass(frozen=True)
class Affine:
    """One call of a convolution, transposed convolution or linear layer."""

    function: Callable[..., Tensor]
    weight: Tensor
    bias: Tensor | None
    options: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)

    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        """Apply the layer to `x` with other weights and no bias."""
        return self.function(x, weight, None, *self.options, **self.keywords)

    def output(self, x: Tensor) -> Tensor:
        """Return the layer's own output, without a graph."""
        return self.function(x.detach(), self.weight, self.bias, *self.options, **self.keywords)

    def shift(self) -> Tensor | float:
        """Bias, shaped to be added to the output; 0 when the layer has none."""
        if self.bias is None:
            return 0.0
        return self.bias.reshape(-1, *[1] * (self.weight.ndim - 2))


@dataclass(frozen=True)
class Contributions:
    """What a rule says of one call.

    Attributes
    ----------
    z : the layer's own output, without a graph.
    y : stand-in for the output, with the graph by which relevance flows back.
    constant : part of `y` that no input contributed.
    carriers : leaves that stand in for the model's input; relevance is ``carrier * gradient``, summed over them.
    """

    z: Tensor
    y: Tensor
    constant: Tensor | float
    carriers: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Epsilon:
    """Share in proportion to ``x w``; `epsilon` (times the root mean square of the outputs) absorbs weak evidence."""

    epsilon: float = 0.01

    def contributions(self, affine: Affine, x: Tensor) -> Contributions:
        """See `Contributions`."""
        shift = affine.shift()
        y = affine.linear(x, affine.weight) + shift
        return Contributions(y.detach(), y, shift)


@dataclass(frozen=True)
class Gamma:
    """Share in proportion to ``x w + gamma (x w)+`` where the output is positive, ``x w + gamma (x w)-`` elsewhere."""

    gamma: float = 0.1
    epsilon: float = SMALL

    def contributions(self, affine: Affine, x: Tensor) -> Contributions:
        """See `Contributions`."""
        shift = affine.shift()
        signed = affine.linear(x, affine.weight)
        absolute = affine.linear(x.abs(), affine.weight.abs())
        z = (signed + shift).detach()
        positive = z >= 0
        sign = positive.to(x.dtype) * 2 - 1
        constant = _favoured(shift, positive, self.gamma)
        y = (1 + self.gamma / 2) * signed + (self.gamma / 2) * sign * absolute + constant
        return Contributions(z, y, constant)


def _favoured(shift: Tensor | float, positive: Tensor, gamma: float) -> Tensor | float:
    """Bias plus `gamma` times the bias where it has the output's sign."""
    if not isinstance(shift, Tensor):
        return 0.0
    return shift + gamma * torch.where(positive, shift.clamp(min=0), shift.clamp(max=0))


@dataclass(frozen=True)
class ZPlus:
    """Share in proportion to ``(x w)+`` alone. Blind to what spoke against: kept as a control that fails the checks."""

    epsilon: float = SMALL

    def contributions(self, affine: Affine, x: Tensor) -> Contributions:
        """See `Contributions`."""
        shift = affine.shift()
        constant = shift.clamp(min=0) if isinstance(shift, Tensor) else 0.0
        positive = affine.linear(x.clamp(min=0), affine.weight.clamp(min=0))
        y = positive + affine.linear(x.clamp(max=0), affine.weight.clamp(max=0)) + constant
        return Contributions(affine.output(x), y, constant)


@dataclass(frozen=True)
class Flat:
    """First layer: every pixel of the receptive field gets the same share, whatever its grey value."""

    epsilon: float = SMALL

    def contributions(self, affine: Affine, x: Tensor) -> Contributions:
        """See `Contributions`."""
        carrier = torch.ones_like(x).requires_grad_()
        y = affine.linear(carrier, torch.ones_like(affine.weight))
        return Contributions(affine.output(x), y, 0.0, (carrier,))


@dataclass(frozen=True)
class WSquare:
    """First layer: share in proportion to ``w**2``, whatever the grey value."""

    epsilon: float = SMALL

    def contributions(self, affine: Affine, x: Tensor) -> Contributions:
        """See `Contributions`."""
        carrier = torch.ones_like(x).requires_grad_()
        return Contributions(affine.output(x), affine.linear(carrier, affine.weight**2), 0.0, (carrier,))


@dataclass(frozen=True)
class ZBox:
    """First layer of inputs within `low` and `high`: share in proportion to ``x w - low w+ - high w-``."""

    low: float = 0.0
    high: float = 1.0
    epsilon: float = SMALL

    def contributions(self, affine: Affine, x: Tensor) -> Contributions:
        """See `Contributions`."""
        pixels = x.detach().clone().requires_grad_()
        low = torch.full_like(x, self.low).requires_grad_()
        high = torch.full_like(x, self.high).requires_grad_()
        y = (
            affine.linear(pixels, affine.weight)
            - affine.linear(low, affine.weight.clamp(min=0))
            - affine.linear(high, affine.weight.clamp(max=0))
        )
        return Contributions(affine.output(x), y, 0.0, (pixels, low, high))


Rule = Epsilon | Gamma | ZPlus | Flat | WSquare | ZBox
INPUT_RULES = (Flat, WSquare, ZBox)


def stabilised(y: Tensor, epsilon: float) -> Tensor:
    """`y` moved away from zero by `epsilon` times its root mean square in each sample (zero counts as positive)."""
    scale = y.square().mean(dim=tuple(range(1, y.ndim)), keepdim=True).sqrt()
    return y + torch.where(y < 0, -scale, scale) * epsilon
