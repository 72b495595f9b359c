"""Composites: which LRP rule a layer gets by its place in the model.

Fine-grained evidence near the output (epsilon in the head), smooth evidence below it (gamma in convolutions), and
no dependence on grey values at the pixels (flat): the layered choice of Montavon et al. 2019,
doi:10.1007/978-3-030-28954-6_10, with epsilon over a detector's whole head, without which maps hardly depend on
the head's weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from mammoflow.errors import ConfigError
from mammoflow.explain.rules import Epsilon, Flat, Gamma, Rule, WSquare, ZBox, ZPlus


@dataclass(frozen=True)
class Layer:
    """Place of a layer in its model.

    Attributes
    ----------
    name : dotted name, as in ``named_modules``.
    operation : ``conv2d``, ``conv_transpose2d``, ``linear`` ...
    reads_input : whether it is applied to the model's input itself.
    in_head : whether it belongs to the part that makes the decision.
    """

    name: str
    operation: str
    reads_input: bool
    in_head: bool


Composite = Callable[[Layer], Rule]


def _by_place(first: Rule, head: Rule, convolution: Rule, linear: Rule) -> Composite:
    def rule(layer: Layer) -> Rule:
        if layer.in_head:
            return head
        if layer.reads_input:
            return first
        return linear if layer.operation == "linear" else convolution

    return rule


def named_composite(name: str, gamma: float = 0.1, epsilon: float = 0.01) -> Composite:
    """Return a composite by name.

    Parameters
    ----------
    name : ``gradient_input`` (LRP-0), ``epsilon``, ``epsilon_gamma``, ``epsilon_gamma_flat``, ``epsilon_gamma_box``
        (inputs in 0..1), ``epsilon_gamma_wsquare`` or ``zplus`` (control that fails the randomisation check).
    gamma : strength of the gamma rule, 0 or more.
    epsilon : absorption of the epsilon rule, as a share of a layer's root mean square output, 0 or more.

    Raises
    ------
    ConfigError
        No composite has this name.
    """
    weak, favour = Epsilon(epsilon), Gamma(gamma)
    composites = {
        "gradient_input": _by_place(Epsilon(0), Epsilon(0), Epsilon(0), Epsilon(0)),
        "epsilon": _by_place(weak, weak, weak, weak),
        "epsilon_gamma": _by_place(favour, weak, favour, weak),
        "epsilon_gamma_flat": _by_place(Flat(), weak, favour, weak),
        "epsilon_gamma_wsquare": _by_place(WSquare(), weak, favour, weak),
        "epsilon_gamma_box": _by_place(ZBox(), weak, favour, weak),
        "zplus": _by_place(ZPlus(), ZPlus(), ZPlus(), ZPlus()),
    }
    if name not in composites:
        raise ConfigError(
            f"explain.composite in config.yaml: '{name}' isn't known; choose one of {', '.join(composites)}"
        )
    return composites[name]


def head_of(model: nn.Module) -> str:
    """Name of the part that makes the decision: a detection head, or else the last layer with weights.

    Ultralytics models keep their layers in a sequence named ``model``, whose last element is the head: a YOLO's knows
    its strides, an RT-DETR's has a decoder.
    """
    layers: Any = getattr(model, "model", None)
    last = layers[-1] if isinstance(layers, nn.Sequential) else None
    if not isinstance(last, nn.Conv2d) and (hasattr(last, "stride") or hasattr(last, "decoder")):
        return f"model.{len(layers) - 1}"
    weighted = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)
    names = [name for name, module in model.named_modules() if isinstance(module, weighted)]
    return names[-1] if names else ""
