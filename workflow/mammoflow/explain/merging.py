"""Which batch normalisations of a model can be merged into the convolution or linear layer before them.

Rules share a layer's relevance by its output: a normalisation that follows decides which outputs are large, so that
epsilon and gamma mean something else before it than after it. Found by running the model once, not by its names:
a pair is a layer whose every output goes into one normalisation and nowhere else.
"""

from collections import defaultdict
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from mammoflow.explain.affine import LINEAR

# Questions about a tensor that don't use its values.
LOOKING = {"__get__", "size", "dim", "numel", "is_contiguous", "is_floating_point", "__len__", "element_size"}


class Pairs(TorchFunctionMode):
    """Record what is done with the outputs of convolutions and linear layers while a model runs without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, tuple[Tensor, int, str]] = {}
        self._used: dict[int, set[int | None]] = defaultdict(set)
        self._terms: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        out = func(*args, **kwargs)
        if name not in LOOKING:
            for tensor in tensors_in([*args, *kwargs.values()]):
                if id(tensor) in self._made:
                    _, weight, layer = self._made[id(tensor)]
                    norm = self._norm(layer, *args, **kwargs) if name == "batch_norm" else None
                    self._used[weight].add(norm)
        if name in LINEAR:
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            self._made[id(out)] = (out, id(weight), name)
        return out

    def _norm(
        self,
        layer: str,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> int | None:
        """Identity of a normalisation that can be merged into `layer`, None of others."""
        if training or running_mean is None or running_var is None or (layer == "linear" and input.ndim > 2):
            return None
        self._terms[id(running_mean)] = norm_terms(running_mean, running_var, weight, bias, eps)
        return id(running_mean)

    def merged(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Identity of a layer's weight -> scale and shift of the normalisation to merge into it."""
        single = {weight: next(iter(norms)) for weight, norms in self._used.items() if len(norms) == 1}
        return {weight: self._terms[norm] for weight, norm in single.items() if norm is not None}


def tensors_in(values: Any) -> list[Tensor]:
    """Tensors among arguments and in their lists."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors_in(value)
    return found


def norm_terms(
    running_mean: Tensor, running_var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Scale and shift of a batch normalisation in evaluation, (C,) each, float64."""
    scale = (running_var.double() + eps).rsqrt()
    scale = scale if weight is None else scale * weight.double()
    shift = -running_mean.double() * scale
    return scale, shift if bias is None else shift + bias.double()
