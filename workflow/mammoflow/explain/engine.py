"""The LRP engine: relevance as a modified gradient, for any model made of the operations it knows.

What flows back is relevance divided by activation. With that message sums, concatenations, pooling and batch
normalisation in evaluation are plain gradients and residual sums split as they should; activations pass it on times
``act(x) / x``; layer normalisation takes its standard deviation, CP-LRP its softmax, as a constant; convolutions and
linear layers follow a rule of `mammoflow.explain.rules`. One `TorchFunctionMode` puts these in the place of torch's own
functions while a copy of the model runs; the model itself isn't touched.

References
----------
Ali et al. 2022, arXiv:2202.07304 (layer normalisation and softmax as constants: CP-LRP); Achtibat et al. 2024,
arXiv:2402.05602 (AttnLRP: softmax by its Taylor expansion, products share equally).
"""

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mammoflow.errors import ModelError
from mammoflow.explain.composites import Composite, Layer, head_of, named_composite
from mammoflow.explain.rules import INPUT_RULES, Affine, stabilised

Attention = Literal["cp", "attn"]
Target = Callable[[Any], Tensor]

_LINEAR = {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear"}
# Linear and without a constant (max pooling: of its winner), so that their own gradient carries relevance.
_TRANSPARENT = (
    {"__get__", "view", "reshape", "flatten", "unflatten", "ravel", "squeeze", "unsqueeze", "contiguous"}
    | {"permute", "transpose", "swapaxes", "movedim", "t", "flip", "roll", "clone", "to", "float", "double"}
    | {"__getitem__", "split", "split_with_sizes", "tensor_split", "chunk", "unbind", "narrow", "select", "gather"}
    | {"index_select", "take_along_dim", "expand", "repeat", "repeat_interleave", "tile", "interpolate"}
    | {"neg", "sum", "mean", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "max_pool1d"}
    | {"max_pool2d", "adaptive_max_pool2d", "pixel_shuffle", "pixel_unshuffle", "fold", "unfold"}
)
# They take no value from (some of) their inputs, so a result without relevance is right.
_CONSTANT = {"type_as", "view_as", "expand_as", "reshape_as"} | {
    "zeros_like",
    "ones_like",
    "full_like",
    "empty_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
}
_HIDING = {"detach", "detach_", "item", "tolist", "numpy", "__array__", "__float__", "__setitem__", "copy_"}


@dataclass(frozen=True)
class Explanation:
    """Relevance of a batch.

    Attributes
    ----------
    relevance : tensor shaped like the input, in the units of the explained value.
    value : (N,) tensor, the explained value of each sample.
    constants : (N,) float64 tensor, share of the value that went to the model's additive constants: biases, shifts of
        normalisations, tokens, and what stabilisers absorbed. Kept by its own account, not as a remainder.
    """

    relevance: Tensor
    value: Tensor
    constants: Tensor

    @property
    def conservation_error(self) -> Tensor:
        """``|relevance + constants - value| / |value|`` of each sample, (N,) float64; 0 for rules that conserve."""
        total = self.relevance.double().flatten(1).sum(1) + self.constants
        value = self.value.double()
        return (total - value).abs() / value.abs().clamp(min=torch.finfo(torch.float64).tiny)


class _Ledger:
    """Sum of what constants received while a message flows back, by sample."""

    def __init__(self, samples: int):
        self.samples = samples
        self.shares = torch.zeros(samples, dtype=torch.float64)

    def enter(self, share: Tensor) -> None:
        """Add relevance that constants received, a tensor whose first dimension is the batch."""
        self.shares += share.sum(dim=tuple(range(1, share.ndim)), dtype=torch.float64).cpu()

    def watch(self, output: Tensor, constant: Tensor | float) -> Tensor:
        """Enter ``message * constant`` when a message reaches `output`, of which `constant` is a summand."""
        if output.shape[0] != self.samples:
            raise ModelError(
                f"an additive constant meets a tensor of shape {tuple(output.shape)}, whose first dimension isn't the "
                f"batch of {self.samples}: its share of relevance can't be told"
            )
        output.register_hook(lambda message: self.enter(message * constant))
        return output


class _Redistribute(torch.autograd.Function):
    """Give the layer's output forward and share its relevance by the contributions ``y`` backward."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, z: Tensor, constant: Tensor | float, epsilon: float, ledger: _Ledger) -> Tensor:
        denominator = stabilised(y, epsilon)
        factor = z / denominator
        if epsilon == 0:
            factor = torch.where(denominator == 0, torch.zeros_like(factor), factor)
        ctx.save_for_backward(factor, denominator - y + constant)
        ctx.ledger = ledger
        return z.clone()

    @staticmethod
    def backward(ctx: Any, *messages: Tensor) -> tuple[Tensor | None, ...]:
        factor, constant = ctx.saved_tensors
        share = messages[0] * factor
        ctx.ledger.enter(share * constant)
        return share, None, None, None, None


class _Refuse(torch.autograd.Function):
    """Pass a value on; raise when relevance would flow back through the operation that made it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, message: str) -> Tensor:
        ctx.message = message
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *messages: Tensor) -> tuple[Tensor | None, ...]:
        raise ModelError(ctx.message)


class _Half(torch.autograd.Function):
    """Halve the message, so that the factors of a product share its relevance."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *messages: Tensor) -> Tensor:
        return messages[0] / 2


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


def _carries(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


class _Propagation(TorchFunctionMode):
    """Replace torch's functions by ones whose gradients are LRP messages."""

    def __init__(self, explainer: "Explainer", x: Tensor):
        super().__init__()
        self.explainer = explainer
        self.x = x
        self.carriers: list[Tensor] = []
        self.ledger = _Ledger(x.shape[0])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not any(tensor.requires_grad for tensor in _tensors([*args, *kwargs.values()])):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        if name in _HANDLERS:
            return _HANDLERS[name](self, *args, **kwargs)
        if name in _LINEAR:
            return self.affine(func, *args, **kwargs)
        if name in _HIDING or kwargs.get("inplace") or (name.endswith("_") and not name.endswith("__")):
            raise ModelError(self.unsupported(name))
        out = func(*args, **kwargs)
        hidden = isinstance(out, Tensor) and not out.requires_grad
        return out if name in _CONSTANT or (name in _TRANSPARENT and not hidden) else self.refused(name, out)

    def unsupported(self, operation: str) -> str:
        """Message that names an operation and where it was met."""
        where = self.explainer.where() or "the model or the target"
        return (
            f"relevance can't pass operation '{operation}' in {where}: no rule is known for it. "
            "Explain another architecture, or give the operation a rule in mammoflow/explain/engine.py"
        )

    def refused(self, name: str, out: Any) -> Any:
        """Let an unknown operation's result be looked at, but not explained."""
        if isinstance(out, list | tuple):
            return type(out)([self.refused(name, item) for item in out])
        if not isinstance(out, Tensor) or not (out.is_floating_point() or out.is_complex()):
            return out
        if not out.requires_grad:
            raise ModelError(self.unsupported(name))
        return _Refuse.apply(out, self.unsupported(name))

    def affine(
        self, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None, *options: Any, **keywords: Any
    ) -> Tensor:
        """Share a convolution's or linear layer's relevance by the composite's rule."""
        if _carries(weight) or not _carries(input):
            raise ModelError(self.unsupported(f"{func.__name__} with weights that depend on the input"))
        name = self.explainer.layer_of.get(id(weight), self.explainer.where())
        layer = Layer(name, func.__name__, input is self.x, self.explainer.in_head(name))
        rule = self.explainer.composite(layer)
        if isinstance(rule, INPUT_RULES) and not layer.reads_input:
            raise ModelError(f"{type(rule).__name__} is a rule for the layer that reads the input, and {name} doesn't")
        shares = rule.contributions(Affine(func, weight, bias, options, keywords), input)
        self.carriers += shares.carriers
        return _Redistribute.apply(shares.y, shares.z, shares.constant, rule.epsilon, self.ledger)

    def gate(self, input: Tensor, gate: Callable[[Tensor], Tensor]) -> Tensor:
        """Pass an activation's relevance on unchanged: ``gate(x) = act(x) / x``, finite at 0 too."""
        return input * gate(input.detach())

    def softmax(self, input: Tensor, *options: Any, **keywords: Any) -> Tensor:
        """Softmax by its own gradient (AttnLRP), or as a constant (CP-LRP)."""
        if self.explainer.attention == "cp":
            input = input.detach()
        keywords.pop("_stacklevel", None)
        return torch.softmax(input, *options, **keywords)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Fused attention, step by step."""
        if attn_mask is not None or dropout_p or is_causal or enable_gqa:
            raise ModelError(self.unsupported("scaled_dot_product_attention with a mask, dropout or grouped queries"))
        scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        scores = self.product(torch.matmul, query * scale, key.transpose(-2, -1))
        return self.product(torch.matmul, self.softmax(scores, -1), value)

    def product(self, func: Callable[[Any, Any], Tensor], first: Any, second: Any) -> Tensor:
        """Share a product's relevance equally between factors that both depend on the input."""
        out = func(first, second)
        return _Half.apply(out) if _carries(first) and _carries(second) else out

    def quotient(self, input: Any, other: Any) -> Tensor:
        """Division by a constant."""
        if _carries(other):
            raise ModelError(self.unsupported("div by a value that depends on the input"))
        return torch.div(input, other)

    def add(self, input: Any, other: Any, *, alpha: float = 1) -> Tensor:
        """Sum; a summand that doesn't depend on the input is a constant of the ledger."""
        out = input + alpha * other
        if not _carries(input):
            return self.ledger.watch(out, input)
        return out if _carries(other) else self.ledger.watch(out, alpha * other)

    def subtract(self, input: Any, other: Any, *, alpha: float = 1) -> Tensor:
        """Difference; see `add`."""
        return self.add(input, other, alpha=-alpha)

    def join(self, func: Callable[[Any, int], Tensor], tensors: Any, dim: int = 0) -> Tensor:
        """Concatenation; a part that doesn't depend on the input (a class token) is a constant of the ledger."""
        out = func(tensors, dim)
        if all(_carries(part) for part in tensors):
            return out
        constant = func([torch.zeros_like(part) if _carries(part) else part for part in tensors], dim)
        return self.ledger.watch(out, constant)

    def batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """Batch normalisation in evaluation: a fixed scale and shift of each channel."""
        if training or running_mean is None or running_var is None:
            raise ModelError(self.unsupported("batch_norm with the batch's own statistics"))
        scale = (running_var + eps).rsqrt() * (1 if weight is None else weight)
        shift = (0 if bias is None else bias) - running_mean * scale
        channels = (-1, *[1] * (input.ndim - 2))
        return self.ledger.watch(input * scale.view(channels) + shift.view(channels), shift.view(channels))

    def layer_norm(
        self,
        input: Tensor,
        normalized_shape: Any,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> Tensor:
        """Layer normalisation whose standard deviation is taken as a constant."""
        dims = tuple(range(-len(normalized_shape), 0))
        variance = input.detach().var(dims, keepdim=True, correction=0)
        out = (input - input.mean(dims, keepdim=True)) * (variance + eps).rsqrt()
        out = out if weight is None else out * weight
        return out if bias is None else self.ledger.watch(out + bias, bias)

    def dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """Dropout in evaluation: nothing."""
        if training:
            raise ModelError(self.unsupported("dropout in training"))
        return input

    def pad(self, input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor:
        """Pad with zeros or with the input's own values."""
        if value:
            raise ModelError(self.unsupported(f"pad with {value}"))
        return F.pad(input, pad, mode)


def _gelu_gate(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "tanh":
        return (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    return (1 + torch.erf(x / math.sqrt(2))) / 2


def _relu(mode: _Propagation, input: Tensor, inplace: bool = False) -> Tensor:
    return mode.gate(input, lambda x: (x > 0).to(x.dtype))


def _silu(mode: _Propagation, input: Tensor, inplace: bool = False) -> Tensor:
    return mode.gate(input, torch.sigmoid)


def _gelu(mode: _Propagation, input: Tensor, approximate: str = "none") -> Tensor:
    return mode.gate(input, partial(_gelu_gate, approximate=approximate))


def _leaky_relu(mode: _Propagation, input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    return mode.gate(input, lambda x: torch.ones_like(x).masked_fill(x <= 0, negative_slope))


def _reversed(handler: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda mode, input, other: handler(mode, other, input)


# In-place forms become out of place: a result is used by the name it is assigned to. `Explainer` compares the explained
# value with the untouched model's, which tells when a model relies on the old name instead.
_HANDLERS: dict[str, Callable[..., Tensor]] = {
    "relu": _relu,
    "relu_": _relu,
    "silu": _silu,
    "silu_": _silu,
    "gelu": _gelu,
    "leaky_relu": _leaky_relu,
    "leaky_relu_": _leaky_relu,
    "softmax": _Propagation.softmax,
    "scaled_dot_product_attention": _Propagation.attend,
    "matmul": lambda mode, a, b: mode.product(torch.matmul, a, b),
    "__matmul__": lambda mode, a, b: mode.product(torch.matmul, a, b),
    "__rmatmul__": lambda mode, a, b: mode.product(torch.matmul, b, a),
    "bmm": lambda mode, a, b: mode.product(torch.bmm, a, b),
    "mul": lambda mode, a, b: mode.product(torch.mul, a, b),
    "mul_": lambda mode, a, b: mode.product(torch.mul, a, b),
    "multiply": lambda mode, a, b: mode.product(torch.mul, a, b),
    "div": _Propagation.quotient,
    "div_": _Propagation.quotient,
    "true_divide": _Propagation.quotient,
    "add": _Propagation.add,
    "add_": _Propagation.add,
    "sub": _Propagation.subtract,
    "sub_": _Propagation.subtract,
    "rsub": _reversed(_Propagation.subtract),
    "__rsub__": _reversed(_Propagation.subtract),
    "cat": lambda mode, *args, **kwargs: mode.join(torch.cat, *args, **kwargs),
    "stack": lambda mode, *args, **kwargs: mode.join(torch.stack, *args, **kwargs),
    "batch_norm": _Propagation.batch_norm,
    "layer_norm": _Propagation.layer_norm,
    "dropout": _Propagation.dropout,
    "pad": _Propagation.pad,
}


class Replay:
    """One forward pass of a batch, from which several targets can be explained.

    Attributes
    ----------
    output : what the model returned. Its tensors can be looked at; targets are built from them by `explain`.
    """

    def __init__(self, explainer: "Explainer", x: Tensor):
        self._explainer = explainer
        with torch.inference_mode(False), torch.enable_grad():
            self._x = x.detach().clone().requires_grad_()
            self._mode = _Propagation(explainer, self._x)
            with self._mode:
                self.output = explainer.forward(self._x)

    def explain(self, target: Target) -> Explanation:
        """Return the relevance of ``target(output)``, one scalar per sample, shape (N,) (or one scalar for one sample).

        Raises
        ------
        ModelError
            An operation between input and target has no rule, or the target doesn't depend on the input.
        """
        with torch.inference_mode(False), torch.enable_grad():
            return self._explain(target)

    def _explain(self, target: Target) -> Explanation:
        ledger = self._mode.ledger
        ledger.shares.zero_()
        with self._mode:
            value = target(self.output).reshape(-1)
        if value.shape != (ledger.samples,) or not value.requires_grad:
            raise ModelError(
                f"the target gave shape {tuple(value.shape)} for {ledger.samples} samples: it must pick one number per "
                "sample from the model's output"
            )
        self._explainer.check(self._x, target, value.detach())
        leaves = [self._x, *self._mode.carriers]
        gradients = torch.autograd.grad(value.sum(), leaves, retain_graph=True, allow_unused=True)
        relevance = torch.zeros_like(self._x)
        for leaf, gradient in zip(leaves, gradients, strict=True):
            if gradient is not None:
                relevance += leaf.detach() * gradient
        return Explanation(relevance.detach(), value.detach(), ledger.shares.clone())


class Explainer:
    """A model made ready to be explained: works on a copy, so the model stays as it is.

    Parameters
    ----------
    model : module in evaluation mode.
    composite : name (see `mammoflow.explain.composites.named_composite`) or function from a layer's place to its rule.
    gamma, epsilon : parameters of a named composite.
    attention : ``cp`` (softmax as a constant, conserves relevance) or ``attn`` (AttnLRP, doesn't).
    head : dotted name of the part that makes the decision; found by `head_of` when not given.

    Raises
    ------
    ModelError
        The model is in training mode.
    """

    def __init__(
        self,
        model: nn.Module,
        composite: str | Composite = "epsilon_gamma_flat",
        *,
        gamma: float = 0.1,
        epsilon: float = 0.01,
        attention: Attention = "cp",
        head: str | None = None,
    ):
        if model.training:
            raise ModelError("the model is in training mode; call model.eval() before explaining it")
        self.composite = named_composite(composite, gamma, epsilon) if isinstance(composite, str) else composite
        self.attention = attention
        with torch.inference_mode(False):
            self._copy = copy.deepcopy(model).requires_grad_(False)
        self._head = head_of(model) if head is None else head
        self.layer_of = {id(parameter): name.rpartition(".")[0] for name, parameter in self._copy.named_parameters()}
        self._path: list[str] = []
        self._checked = False
        for name, module in self._copy.named_modules():
            module.register_forward_pre_hook(partial(self._enter, name))
            module.register_forward_hook(self._leave)

    def _enter(self, name: str, module: nn.Module, inputs: Any) -> None:
        self._path.append(f"{name or 'the model'} ({type(module).__name__})")

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._path.pop()

    def where(self) -> str:
        """Name of the module that is running, empty when none is."""
        return self._path[-1] if self._path else ""

    def in_head(self, name: str) -> bool:
        """Whether the layer called `name` belongs to the head."""
        return name == self._head or name.startswith(f"{self._head}.")

    def forward(self, x: Tensor) -> Any:
        """Run the copy of the model."""
        self._path.clear()
        return self._copy(x)

    def check(self, x: Tensor, target: Target, value: Tensor) -> None:
        """Compare the explained value with that of the model left to itself, once.

        Raises
        ------
        ModelError
            They differ: the model does what can't be replayed, such as using a tensor after changing it in place.
        """
        if self._checked:
            return
        with torch.no_grad():
            plain = target(self.forward(x.detach().clone())).reshape(-1)
        tolerance = 1e-3 if value.dtype == torch.float32 else 1e-8
        worst = float((plain - value).abs().max())
        if not worst <= tolerance * max(1.0, float(plain.abs().max())):
            raise ModelError(
                f"explaining gives {value.tolist()} where the model gives {plain.tolist()}: it may use a tensor after "
                "changing it in place, or values that aren't finite"
            )
        self._checked = True

    def replay(self, x: Tensor) -> Replay:
        """Run the model on a batch `x`, shape (N, ...), in the model's dtype and on its device."""
        return Replay(self, x)

    def explain(self, x: Tensor, target: Target) -> Explanation:
        """Return the relevance of ``target(model(x))``; see `Replay.explain`."""
        return self.replay(x).explain(target)


def relevance(
    model: nn.Module,
    x: Tensor,
    target: Target,
    composite: str | Composite = "epsilon_gamma_flat",
    **options: Any,
) -> Tensor:
    """Relevance of every input value for a number the model gives.

    Parameters
    ----------
    model : module in evaluation mode; it isn't changed.
    x : float tensor, (N, ...), in the model's dtype.
    target : function from the model's output to one scalar per sample, (N,).
    composite : name or function from a layer's place to its rule.
    **options : ``gamma``, ``epsilon``, ``attention``, ``head``; see `Explainer`.

    Returns
    -------
    Tensor shaped like `x`, signed, in the units of the explained number.

    Raises
    ------
    ModelError
        The model has an operation without a rule, named with its layer, or the target doesn't depend on the input.
    """
    return Explainer(model, composite, **options).explain(x, target).relevance
