"""How messages (relevance divided by activation) pass single operations on their way back."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mammoflow.explain.affine import Affine
from mammoflow.explain.rules import Rule


class Redistribute(torch.autograd.Function):
    """Give a layer's own output forward; share the relevance of its outputs by a rule backward.

    `relevance` stands for the relevance of the model's input: zeros shaped like `x` that only input rules write to.
    `ledger` stands for the constants: ones, (N,) float64, or none when no account is kept. `sharing` is `affine` in the
    precision of the messages.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        relevance: Tensor | None,
        ledger: Tensor | None,
        rule: Rule,
        affine: Affine,
        sharing: Affine,
    ) -> Tensor:
        """Return the layer's own output."""
        z = affine.linear(x, affine.weight, affine.bias)
        shares = rule.shares(sharing, x, z.to(sharing.weight.dtype))
        ctx.affine, ctx.size, ctx.dtype = sharing, x.shape[2:], x.dtype
        ctx.reads_input, ctx.samples = relevance is not None, ledger is not None
        ctx.symmetric, ctx.signed = shares.symmetric, [part.signed for part in shares.parts]
        ctx.save_for_backward(
            *(shares.factor, shares.constant, shares.signed_constant, shares.stabiliser),
            *(part.weight for part in shares.parts),
            *(part.gate for part in shares.parts),
        )
        return z

    @staticmethod
    def backward(ctx: Any, *messages: Tensor) -> tuple[Tensor | None, ...]:
        """Return the input's messages or relevance, and the constants' relevance."""
        factor, constant, signed_constant, stabiliser, *parts = ctx.saved_tensors
        count = len(ctx.signed)
        message = messages[0].to(factor.dtype)
        share = message * (factor.abs() if ctx.symmetric else factor)
        signed = message * factor if ctx.symmetric and (ctx.samples or any(ctx.signed)) else share
        received: Any = None
        for weight, gate, by_sign in zip(parts[:count], parts[count:], ctx.signed, strict=True):
            part = ctx.affine.back(signed if by_sign else share, weight, ctx.size)
            part = part if gate is None else part * gate
            received = part if received is None else received + part
        constants = None
        if ctx.samples:
            constants = _constants(ctx.affine, share, signed, constant, signed_constant, stabiliser)
        received = received.to(ctx.dtype)
        given = (None, received) if ctx.reads_input else (received, None)
        return *given, constants, None, None, None


def _constants(
    affine: Affine,
    share: Tensor,
    signed: Tensor,
    constant: Tensor | None,
    signed_constant: Tensor | None,
    stabiliser: Tensor,
) -> Tensor:
    """Relevance that a layer's additive constants and its stabiliser received, (N,) float64."""
    total = (signed * stabiliser).reshape(len(share), -1).sum(1, dtype=torch.float64)
    for shares, each in ((share, constant), (signed, signed_constant)):
        if each is not None:
            total = total + affine.of_channels(shares).double() @ each.double()
    return total


class Constant(torch.autograd.Function):
    """Pass a value on, of which `constant` is a summand, and enter the constant's share in the ledger."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, ledger: Tensor, constant: Tensor) -> Tensor:
        """Return `value`."""
        ctx.save_for_backward(constant)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *messages: Tensor) -> tuple[Tensor | None, ...]:
        """Return the message and the constant's relevance."""
        (constant,) = ctx.saved_tensors
        share = messages[0] * constant
        return messages[0], share.reshape(len(share), -1).sum(1, dtype=torch.float64), None


class Gate(torch.autograd.Function):
    """An activation ``x * gate(x)``, whose relevance passes unchanged: the message times the gate, finite at 0 too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Callable[[Tensor], Tensor]) -> Tensor:
        """Return ``x * gate(x)``."""
        opened = gate(x)
        ctx.save_for_backward(opened)
        return x * opened

    @staticmethod
    def backward(ctx: Any, *messages: Tensor) -> tuple[Tensor | None, ...]:
        """Return the input's messages."""
        (opened,) = ctx.saved_tensors
        return messages[0] * opened, None


class Refuse(torch.autograd.Function):
    """Pass a value on; raise when relevance would flow back through the operation that made it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, error: Exception) -> Tensor:
        """Return `value`."""
        ctx.error = error
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *messages: Tensor) -> tuple[Tensor | None, ...]:
        """Raise the error."""
        raise ctx.error


class Half(torch.autograd.Function):
    """Halve the message, so that the factors of a product share its relevance."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        """Return `value`."""
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *messages: Tensor) -> Tensor:
        """Return half of the messages."""
        return messages[0] / 2
