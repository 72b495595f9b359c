"""What each of torch's functions does to messages: sums and the like pass them, layers follow a rule, others refuse.

One `TorchFunctionMode` puts these in the place of torch's own functions while a copy of the model runs. With relevance
divided by activation as the message, sums, concatenations, pooling and batch normalisation in evaluation are plain
gradients and residual sums split as they should; activations pass it on times ``act(x) / x``; layer normalisation takes
its standard deviation, CP-LRP its softmax, as a constant.

References
----------
Ali et al. 2022, arXiv:2202.07304 (layer normalisation and softmax as constants: CP-LRP); Achtibat et al. 2024,
arXiv:2402.05602 (AttnLRP: softmax by its Taylor expansion, products share equally).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mammoflow.errors import ModelError
from mammoflow.explain.affine import LINEAR
from mammoflow.explain.composites import Layer
from mammoflow.explain.merging import LOOKING, norm_terms, tensors_in
from mammoflow.explain.messages import Constant, Gate, Half, Redistribute, Refuse
from mammoflow.explain.rules import INPUT_RULES

if TYPE_CHECKING:
    from mammoflow.explain.engine import Explainer

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


def _carries(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


class Propagation(TorchFunctionMode):
    """Replace torch's functions by ones whose gradients are LRP messages.

    Parameters
    ----------
    explainer : gives rules, merged normalisations and the names of layers.
    x : the model's input, a leaf that requires a gradient.
    keep_ledger : whether to keep the account of what the model's additive constants receive.

    Attributes
    ----------
    relevance : leaf whose gradient is the relevance that input rules give to `x`.
    ledger : ones, (N,) float64, whose gradient is each sample's account of constants; None when none is kept.
    """

    def __init__(self, explainer: "Explainer", x: Tensor, keep_ledger: bool):
        super().__init__()
        self.explainer = explainer
        self.x = x
        self.relevance = torch.zeros_like(x).requires_grad_()
        ones = torch.ones(x.shape[0], dtype=torch.float64, device=x.device)
        self.ledger = ones.requires_grad_() if keep_ledger else None
        self.merged: dict[int, Tensor] = {}  # outputs of layers into which the normalisation that follows is merged

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = tensors_in([*args, *kwargs.values()])
        if not any(tensor.requires_grad for tensor in tensors):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        if name != "batch_norm" and name not in LOOKING:
            self.forbid_merged(name, tensors)
        if name in _HANDLERS:
            return _HANDLERS[name](self, *args, **kwargs)
        if name in LINEAR:
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
            "Explain another architecture, or give the operation a rule in mammoflow/explain/operations.py"
        )

    def refused(self, name: str, out: Any) -> Any:
        """Let an unknown operation's result be looked at, but not explained."""
        if isinstance(out, list | tuple):
            return type(out)([self.refused(name, item) for item in out])
        if not isinstance(out, Tensor) or not (out.is_floating_point() or out.is_complex()):
            return out
        if not out.requires_grad:
            raise ModelError(self.unsupported(name))
        return Refuse.apply(out, ModelError(self.unsupported(name)))

    def forbid_merged(self, name: str, tensors: list[Tensor]) -> None:
        """Stop when a layer's output is used before the normalisation that was merged into the layer."""
        if any(id(tensor) in self.merged for tensor in tensors):
            raise ModelError(
                f"operation '{name}' in {self.explainer.where()} reads a layer's output that only went into a batch "
                "normalisation when the model ran first: a model whose course depends on its input can't be explained"
            )

    def affine(
        self, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None, *options: Any, **named: Any
    ) -> Tensor:
        """Share a convolution's or linear layer's relevance by the composite's rule."""
        name = func.__name__
        if _carries(weight) or _carries(bias) or not _carries(input):
            raise ModelError(self.unsupported(f"{name} with weights that depend on the input"))
        if name != "linear" and input.ndim != weight.ndim:
            raise ModelError(self.unsupported(f"{name} of a picture without a batch dimension"))
        place = self.explainer.layer_of.get(id(weight), self.explainer.where())
        layer = Layer(place, name, input is self.x, self.explainer.in_head(place))
        rule = self.explainer.composite(layer)
        if isinstance(rule, INPUT_RULES) and not layer.reads_input:
            raise ModelError(f"{type(rule).__name__} is a rule for the layer that reads the input, and {place} doesn't")
        relevance = self.relevance if isinstance(rule, INPUT_RULES) else None
        affine, sharing, padding = self.explainer.prepared(name, weight, bias, options, named)
        if any(padding):
            input, relevance = F.pad(input, padding), None if relevance is None else F.pad(relevance, padding)
        out = Redistribute.apply(input, relevance, self.ledger_of(input), rule, affine, sharing)
        if id(weight) in self.explainer.merges:
            self.merged[id(out)] = out
        return out

    def ledger_of(self, value: Tensor) -> Tensor | None:
        """Return the account that constants met with `value` are entered in."""
        if self.ledger is not None and value.shape[0] != len(self.ledger):
            raise ModelError(
                f"an additive constant meets a tensor of shape {tuple(value.shape)} in {self.explainer.where()}, whose "
                f"first dimension isn't the batch of {len(self.ledger)}: its share of relevance can't be told"
            )
        return self.ledger

    def watch(self, output: Tensor, constant: Tensor | float) -> Tensor:
        """Enter the share of `constant`, a summand of `output`, in the ledger."""
        ledger = self.ledger_of(output)
        return output if ledger is None else Constant.apply(output, ledger, torch.as_tensor(constant))

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

    def attend_in_heads(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        embed_dim_to_check: int,
        num_heads: int,
        in_proj_weight: Tensor | None,
        in_proj_bias: Tensor | None,
        bias_k: Tensor | None,
        bias_v: Tensor | None,
        add_zero_attn: bool,
        dropout_p: float,
        out_proj_weight: Tensor,
        out_proj_bias: Tensor | None,
        training: bool = True,
        **options: Any,
    ) -> tuple[Tensor, None]:
        """`torch.nn.MultiheadAttention`, whose sequences come first, (L, N, C), step by step."""
        refused = (bias_k, bias_v, options.get("key_padding_mask"), options.get("attn_mask"))
        if in_proj_weight is None or any(each is not None for each in refused) or add_zero_attn or query.ndim != 3:
            raise ModelError(
                self.unsupported("multi_head_attention_forward with masks or other than its usual weights")
            )
        if training and dropout_p:
            raise ModelError(self.unsupported("multi_head_attention_forward in training"))
        biases = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
        heads = [
            self.affine(F.linear, part.transpose(0, 1), weight, bias).unflatten(2, (num_heads, -1)).transpose(1, 2)
            for part, weight, bias in zip((query, key, value), in_proj_weight.chunk(3), biases, strict=True)
        ]
        mixed = self.attend(*heads).transpose(1, 2).flatten(2)
        return self.affine(F.linear, mixed, out_proj_weight, out_proj_bias).transpose(0, 1), None

    def sample(self, input: Tensor, grid: Tensor, *options: Any, **named: Any) -> Tensor:
        """Sample a picture, which is linear in it; the places are taken as constants, as CP-LRP takes attention."""
        if self.explainer.attention != "cp" and _carries(grid):
            raise ModelError(self.unsupported("grid_sample at places that depend on the input, unless by CP-LRP,"))
        return F.grid_sample(input, grid.detach(), *options, **named)

    def product(self, func: Callable[[Any, Any], Tensor], first: Any, second: Any) -> Tensor:
        """Share a product's relevance equally between factors that both depend on the input."""
        out = func(first, second)
        return Half.apply(out) if _carries(first) and _carries(second) else out

    def quotient(self, input: Any, other: Any) -> Tensor:
        """Division by a constant; by another value it can be looked at, not explained."""
        out = torch.div(input, other)
        return self.refused("div by a value that depends on the input", out) if _carries(other) else out

    def add(self, input: Any, other: Any, *, alpha: float = 1) -> Tensor:
        """Sum; a summand that doesn't depend on the input is a constant of the ledger."""
        out = input + alpha * other
        if not _carries(input):
            return self.watch(out, input)
        return out if _carries(other) else self.watch(out, alpha * other)

    def subtract(self, input: Any, other: Any, *, alpha: float = 1) -> Tensor:
        """Difference; see `add`."""
        return self.add(input, other, alpha=-alpha)

    def join(self, func: Callable[[Any, int], Tensor], tensors: Any, dim: int = 0) -> Tensor:
        """Concatenation; a part that doesn't depend on the input (a class token) is a constant of the ledger."""
        out = func(tensors, dim)
        if all(_carries(part) for part in tensors):
            return out
        constant = func([torch.zeros_like(part) if _carries(part) else part for part in tensors], dim)
        return self.watch(out, constant)

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
        if id(input) in self.merged:
            return input.view_as(input)  # another tensor than the layer's output, which nothing else may read
        if training or running_mean is None or running_var is None:
            raise ModelError(self.unsupported("batch_norm with the batch's own statistics"))
        scale, shift = norm_terms(running_mean, running_var, weight, bias, eps)
        channels = (-1, *[1] * (input.ndim - 2))
        scale, shift = scale.to(input.dtype).view(channels), shift.to(input.dtype).view(channels)
        return self.watch(input * scale + shift, shift)

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
        return out if bias is None else self.watch(out + bias, bias)

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


def _relu(mode: Propagation, input: Tensor, inplace: bool = False) -> Tensor:
    return torch.relu(input)  # relu(x) / x is its derivative


def _leaky_relu(mode: Propagation, input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    return F.leaky_relu(input, negative_slope)  # so is this


def _silu(mode: Propagation, input: Tensor, inplace: bool = False) -> Tensor:
    return Gate.apply(input, torch.sigmoid)


def _gelu_gate(x: Tensor, approximate: str) -> Tensor:
    if approximate == "tanh":
        return (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    return torch.special.ndtr(x)


def _gelu(mode: Propagation, input: Tensor, approximate: str = "none") -> Tensor:
    return Gate.apply(input, partial(_gelu_gate, approximate=approximate))


def _reversed(handler: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda mode, input, other: handler(mode, other, input)


# In-place forms become out of place: a result is used by the name it is assigned to. `Explainer` compares the explained
# value with the untouched model's, which tells when a model relies on the old name instead.
_HANDLERS: dict[str, Callable[..., Any]] = {
    "relu": _relu,
    "relu_": _relu,
    "silu": _silu,
    "silu_": _silu,
    "gelu": _gelu,
    "leaky_relu": _leaky_relu,
    "leaky_relu_": _leaky_relu,
    "softmax": Propagation.softmax,
    "scaled_dot_product_attention": Propagation.attend,
    "multi_head_attention_forward": Propagation.attend_in_heads,
    "grid_sample": Propagation.sample,
    "matmul": lambda mode, a, b: mode.product(torch.matmul, a, b),
    "__matmul__": lambda mode, a, b: mode.product(torch.matmul, a, b),
    "__rmatmul__": lambda mode, a, b: mode.product(torch.matmul, b, a),
    "bmm": lambda mode, a, b: mode.product(torch.bmm, a, b),
    "mul": lambda mode, a, b: mode.product(torch.mul, a, b),
    "mul_": lambda mode, a, b: mode.product(torch.mul, a, b),
    "multiply": lambda mode, a, b: mode.product(torch.mul, a, b),
    "div": Propagation.quotient,
    "div_": Propagation.quotient,
    "true_divide": Propagation.quotient,
    "add": Propagation.add,
    "add_": Propagation.add,
    "sub": Propagation.subtract,
    "sub_": Propagation.subtract,
    "rsub": _reversed(Propagation.subtract),
    "__rsub__": _reversed(Propagation.subtract),
    "cat": lambda mode, *args, **kwargs: mode.join(torch.cat, *args, **kwargs),
    "stack": lambda mode, *args, **kwargs: mode.join(torch.stack, *args, **kwargs),
    "batch_norm": Propagation.batch_norm,
    "layer_norm": Propagation.layer_norm,
    "dropout": Propagation.dropout,
    "pad": Propagation.pad,
}
