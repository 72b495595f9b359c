"""The LRP engine: relevance as a modified gradient, for any model made of the operations it knows.

A private copy of the model runs under `mammoflow.explain.operations.Propagation`, which gives every operation a
gradient that carries relevance divided by activation; batch normalisations are merged into the layers before them first
(`mammoflow.explain.merging`). The model itself isn't touched.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mammoflow.errors import ModelError
from mammoflow.explain.affine import Affine, read_call
from mammoflow.explain.composites import Composite, head_of, named_composite
from mammoflow.explain.merging import Pairs
from mammoflow.explain.operations import Propagation

Attention = Literal["cp", "attn"]
Target = Callable[[Any], Tensor]

TOGETHER = 8  # targets explained in one backward pass; memory grows with it


@dataclass(frozen=True)
class Explanation:
    """Relevance of a batch.

    Attributes
    ----------
    relevance : tensor shaped like the input, in the precision of the forward pass and the units of the explained value.
    value : (N,) tensor, the explained value of each sample.
    constants : (N,) float64 tensor, share of the value that went to the model's additive constants: biases, shifts of
        normalisations, tokens, and what stabilisers absorbed. Kept by its own account, not as a remainder; NaN when
        no account was kept.
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


def _fast_format(x: Tensor) -> torch.memory_format:
    """Order of the values of pictures and kernels in which convolutions, transposed ones above all, are fastest."""
    return torch.channels_last if x.ndim == 4 else torch.contiguous_format


@contextmanager
def _exactly() -> Iterator[None]:
    """Compute with gradients, and float32 as such: a GPU would cut its convolutions' factors to 10 bits (TF32)."""
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32
    cudnn.allow_tf32 = False
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        cudnn.allow_tf32 = before


class Replay:
    """One forward pass of a batch, from which several targets can be explained.

    Attributes
    ----------
    output : what the model returned. Its tensors can be looked at; targets are built from them by `explain`.
    """

    def __init__(self, explainer: "Explainer", x: Tensor, ledger: bool = True):
        with _exactly():
            self._x = x.detach().clone(memory_format=_fast_format(x)).requires_grad_()
            # What the model left to itself gives, on the explainer's first batch: compared by `_check`.
            self._plain = explainer.first_run(self._x.detach())
            self._mode = Propagation(explainer, self._x, ledger)
            with self._mode:
                self.output = explainer.forward(self._x)

    def explain(self, target: Target, keep: bool = True) -> Explanation:
        """Return the relevance of ``target(output)``, one scalar per sample, shape (N,) (or one scalar for one sample).

        Parameters
        ----------
        target : function from the model's output to the explained values.
        keep : whether another target will follow; the forward pass is dropped otherwise.

        Raises
        ------
        ModelError
            An operation between input and target has no rule, or the target doesn't depend on the input.
        """
        with _exactly():
            value = self._value(target)
            return self._explanations(value[None], None, keep)[0]

    def explain_all(self, targets: Sequence[Target]) -> list[Explanation]:
        """Explain several targets, `TOGETHER` in one backward pass; see `explain`."""
        found = []
        with _exactly():
            for start in range(0, len(targets), TOGETHER):
                values = torch.stack([self._value(target) for target in targets[start : start + TOGETHER]])
                one_each = torch.eye(len(values), dtype=values.dtype, device=values.device)
                directions = one_each[:, :, None].expand(-1, -1, values.shape[1]) if len(values) > 1 else None
                found += self._explanations(values, directions, True)
        return found

    def _value(self, target: Target) -> Tensor:
        samples = self._x.shape[0]
        with self._mode:
            value = target(self.output).reshape(-1)
        if value.shape != (samples,) or not value.requires_grad:
            raise ModelError(
                f"the target gave shape {tuple(value.shape)} for {samples} samples: it must pick one number per "
                "sample from the model's output"
            )
        if self._plain is not None:
            self._check(target, value.detach())
        return value

    def _check(self, target: Target, value: Tensor) -> None:
        """Compare the explained value with that of the model left to itself.

        Raises
        ------
        ModelError
            They differ: the model does what can't be replayed, such as using a tensor after changing it in place.
        """
        with torch.no_grad():
            plain = target(self._plain).reshape(-1)
        tolerance = 1e-3 if value.dtype == torch.float32 else 1e-8
        worst = float((plain - value).abs().max())
        if not worst <= tolerance * max(1.0, float(plain.abs().max())):
            raise ModelError(
                f"explaining gives {value.tolist()} where the model gives {plain.tolist()}: it may use a tensor after "
                "changing it in place, or values that aren't finite"
            )

    def _explanations(self, values: Tensor, directions: Tensor | None, keep: bool) -> list[Explanation]:
        """Relevance of each row of `values`, (T, N), which `directions`, (T, T, N), tells apart."""
        ledger = self._mode.ledger
        leaves = [self._x, self._mode.relevance, *([] if ledger is None else [ledger])]
        start = torch.ones_like(values) if directions is None else directions
        gradients: list[Tensor | None] = list(
            torch.autograd.grad(
                values, leaves, start, retain_graph=keep, allow_unused=True, is_grads_batched=directions is not None
            )
        )
        if directions is None:
            gradients = [None if gradient is None else gradient[None] for gradient in gradients]
        by_message, by_rule, *account = gradients
        relevance = torch.zeros(len(values), *self._x.shape, dtype=self._x.dtype, device=self._x.device)
        if by_message is not None:
            relevance += self._x.detach() * by_message
        if by_rule is not None:
            relevance += by_rule
        constants = torch.full(values.shape, torch.nan if ledger is None else 0.0, dtype=torch.float64)
        if account and account[0] is not None:
            constants = account[0].cpu()
        return [Explanation(*row) for row in zip(relevance, values.detach(), constants, strict=True)]


class Explainer:
    """A model made ready to be explained: works on a copy, so the model stays as it is.

    Parameters
    ----------
    model : module in evaluation mode.
    composite : name (see `mammoflow.explain.composites.named_composite`) or function from a layer's place to its rule.
    gamma, epsilon : parameters of a named composite.
    attention : ``cp`` (softmax as a constant, conserves relevance) or ``attn`` (AttnLRP, doesn't).
    head : dotted name of the part that makes the decision; found by `head_of` when not given.
    dtype : precision of the forward pass, whatever that of the model and of its inputs. The epsilon rule magnifies
        rounding of the forward pass some thousand times: ``torch.float32`` moves a map by up to some thousandths of its
        maximum (docs/explanations.md). What flows back is linear and isn't magnified: messages are float64 only where
        model and forward pass both are, float32 otherwise.

    Attributes
    ----------
    layer_of : name of the layer that a weight of the copy, given by its identity, belongs to.
    merges : scale and shift of the batch normalisation to merge into the layer of a weight, given by its identity.

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
        dtype: torch.dtype = torch.float64,
    ):
        if model.training:
            raise ModelError("the model is in training mode; call model.eval() before explaining it")
        self.composite = named_composite(composite, gamma, epsilon) if isinstance(composite, str) else composite
        self.attention = attention
        with torch.inference_mode(False):
            self._copy = copy.deepcopy(model).requires_grad_(False).to(dtype)
            for parameter in self._copy.parameters():
                parameter.data = parameter.data.contiguous(memory_format=_fast_format(parameter))
        self._dtype = dtype
        double = any(parameter.dtype == torch.float64 for parameter in model.parameters())
        self._messages = dtype if double else torch.float32
        self._head = head_of(model) if head is None else head
        self.layer_of = {id(parameter): name.rpartition(".")[0] for name, parameter in self._copy.named_parameters()}
        self.merges: dict[int, tuple[Tensor, Tensor]] = {}
        self._prepared: dict[Any, tuple[Affine, Affine, list[int]]] = {}
        self._path: list[str] = []
        self._has_run = False
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

    def first_run(self, x: Tensor) -> Any:
        """Run the model as it is, once, to find what can be merged; its output, None at later calls."""
        if self._has_run:
            return None
        with torch.no_grad(), Pairs() as pairs:
            output = self.forward(x.clone())
        known = pairs.merged()
        self.merges = {weight: terms for weight, terms in known.items() if weight in self.layer_of}
        self._has_run = True
        return output

    def prepared(
        self, name: str, weight: Tensor, bias: Tensor | None, options: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[Affine, Affine, list[int]]:
        """Return what a call of torch's function `name` does.

        Returns
        -------
        The linear map, merged; the same in the precision of the messages; the padding to apply before it.
        """
        key = (id(weight), name, repr(options), repr(named))
        if key in self._prepared:
            return self._prepared[key]
        affine, padding = read_call(name, weight, bias, options, named)
        if id(weight) in self.merges:
            affine = affine.merged(*self.merges[id(weight)])
        call = affine, affine.rounded(self._messages), padding
        if id(weight) in self.layer_of:  # other tensors are made anew in each run
            self._prepared[key] = call
        return call

    def replay(self, x: Tensor, ledger: bool = True) -> Replay:
        """Run the model on a batch `x`, shape (N, ...), on the model's device.

        `ledger` tells whether to keep the account of what constants receive, some percent of the time.
        """
        return Replay(self, x.to(self._dtype), ledger)

    def explain(self, x: Tensor, target: Target, ledger: bool = True) -> Explanation:
        """Return the relevance of ``target(model(x))``; see `Replay.explain`."""
        return self.replay(x, ledger).explain(target, keep=False)


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
    x : float tensor, (N, ...).
    target : function from the model's output to one scalar per sample, (N,).
    composite : name or function from a layer's place to its rule.
    **options : ``gamma``, ``epsilon``, ``attention``, ``head``, ``dtype``; see `Explainer`.

    Returns
    -------
    Tensor shaped like `x`, of its dtype, signed, in the units of the explained number. Maps of a float32 model differ
    from those of its float64 copy by some millionths of their maximum (`Explainer`, `dtype`).

    Raises
    ------
    ModelError
        The model has an operation without a rule, named with its layer, or the target doesn't depend on the input.
    """
    return Explainer(model, composite, **options).explain(x, target, ledger=False).relevance.to(x.dtype)


def relevances(
    model: nn.Module,
    x: Tensor,
    targets: Sequence[Target],
    composite: str | Composite = "epsilon_gamma_flat",
    **options: Any,
) -> Tensor:
    """Relevance for several numbers of one forward pass, (T, N, ...) for T targets; see `relevance`."""
    replay = Explainer(model, composite, **options).replay(x, ledger=False)
    return torch.stack([explained.relevance for explained in replay.explain_all(targets)]).to(x.dtype)
