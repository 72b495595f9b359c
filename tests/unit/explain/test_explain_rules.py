"""LRP rules against zennit's, which share code with no rule here, and by hand."""

import copy

import pytest
import torch
import torchvision
import zennit.canonizers
import zennit.composites
import zennit.core
import zennit.layer
import zennit.rules
import zennit.torchvision
import zennit.types
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from ultralytics.nn.modules.block import Bottleneck

from mammoflow.explain.composites import named_composite
from mammoflow.explain.engine import Explainer, relevance
from mammoflow.explain.rules import Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus

TINY = 1e-13


def always(rule):
    return lambda layer: rule


def zennit_relevance(model, x, hook_of, target, canonizers=()):
    """Relevance by zennit.

    `hook_of` gives a layer's hook by its name and module, `target` the part of the output and its relevance.
    """

    def module_map(ctx, name, module):
        if isinstance(module, zennit.types.Convolution | nn.Linear):
            return hook_of(name, module)
        if isinstance(module, zennit.types.Activation | nn.SiLU):
            return zennit.rules.Pass()
        if isinstance(module, zennit.layer.Sum):
            return zennit.rules.Norm(stabilizer=1e-30)
        return zennit.rules.Norm(stabilizer=1e-30) if isinstance(module, zennit.types.AvgPool) else None

    composite = zennit.core.Composite(module_map=module_map, canonizers=list(canonizers))
    x = x.clone().requires_grad_()
    with composite.context(model) as hooked:
        output, start = target(hooked(x))
        (found,) = torch.autograd.grad(output, x, start.detach())
    return found


def relative(epsilon):
    return zennit.core.Stabilizer(epsilon, norm_scale=True)


ZENNIT = {
    "epsilon": (Epsilon(TINY), lambda: zennit.rules.Epsilon(epsilon=relative(TINY))),
    "epsilon_strong": (Epsilon(0.3), lambda: zennit.rules.Epsilon(epsilon=relative(0.3))),
    "gamma": (Gamma(0.3, TINY), lambda: zennit.rules.Gamma(gamma=0.3, stabilizer=TINY)),
    "zplus": (ZPlus(TINY), lambda: zennit.rules.ZPlus(stabilizer=TINY)),
    "flat": (Flat(TINY), lambda: zennit.rules.Flat(stabilizer=TINY)),
    "wsquare": (WSquare(TINY), lambda: zennit.rules.WSquare(stabilizer=TINY, zero_params=["bias"])),
    "zbox": (ZBox(-1.5, 2.0, TINY), lambda: zennit.rules.ZBox(low=-1.5, high=2.0, stabilizer=TINY)),
}
LAYERS = {
    "conv": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 9, 9)),
    "conv_transpose": (lambda: nn.ConvTranspose2d(3, 5, 2, 2), (2, 3, 6, 6)),
    "linear": (lambda: nn.Linear(7, 4), (3, 7)),
}


@pytest.mark.parametrize("rule", ZENNIT)
@pytest.mark.parametrize("layer", LAYERS)
def test_each_rule_shares_one_layers_relevance_as_zennit_does(rule, layer):
    own, other = ZENNIT[rule]
    build, shape = LAYERS[layer]
    module = nn.Sequential(build()).double().eval()
    x = torch.randn(shape, dtype=torch.float64)
    weights = torch.randn(module(x).shape, dtype=torch.float64)

    found = relevance(module, x, lambda out: (out * weights).flatten(1).sum(1), always(own))

    expected = zennit_relevance(module, x, lambda name, _: other(), lambda out: (out, out * weights))
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-8)


def two_layers():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).double().eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]))
        model[0].bias.copy_(torch.tensor([0.0, 1.0]))
        model[2].weight.copy_(torch.tensor([[2.0, -1.0]]))
        model[2].bias.fill_(1.0)
    return model, torch.tensor([[1.0, 2.0]], dtype=torch.float64)


# x = (1, 2) -> z = (3, 2) -> out = 2*3 - 1*2 + 1 = 5.
# LRP-0: hidden relevance (6, -2), bias 1. Unit 1: (1, 2)/3 of 6 = (2, 4). Unit 2, z = -1 + 2 + bias 1 = 2:
#   (-1, 2, bias 1)/2 of -2 = (1, -2, bias -1). Sum (3, 2), constants 1 - 1 = 0.
# gamma 1: out's shares (6 + 6, -2, 1 + 1)/12 of 5 = (5, -5/6, bias 5/6).
#   Unit 1: (2, 4)/6 of 5. Unit 2: (-1, 4, bias 2)/5 of -5/6.
# z-plus: out's shares (6, 0, 1)/7 of 5 = (30/7, 0, bias 5/7). Unit 1: (1, 2)/3 of 30/7.
BY_HAND = {
    "lrp_0": (always(Epsilon(0)), [3.0, 2.0], 0.0),
    "gamma": (always(Gamma(1.0, 0.0)), [5 / 3 + 1 / 6, 10 / 3 - 2 / 3], 5 / 6 - 1 / 3),
    "zplus": (always(ZPlus(0.0)), [10 / 7, 20 / 7], 5 / 7),
    "flat": (lambda layer: Flat(0.0) if layer.reads_input else Epsilon(0), [3.0 - 1.0, 3.0 - 1.0], 1.0),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_two_layers_worked_out_by_hand(name):
    composite, expected, constants = BY_HAND[name]
    model, x = two_layers()

    explained = Explainer(model, composite).explain(x, lambda out: out[:, 0])

    assert explained.value.tolist() == [5.0]
    assert explained.relevance[0].tolist() == pytest.approx(expected, abs=1e-12)
    assert explained.constants.tolist() == pytest.approx([constants], abs=1e-12)


def test_epsilon_0_survives_a_dead_output():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1)).double().eval()
    nn.init.zeros_(model[0].weight)
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    assert relevance(model, x, lambda out: out[:, 0], always(Epsilon(0))).tolist() == [[0.0, 0.0]]


class BottleneckSums(zennit.canonizers.AttributeCanonizer):
    """Make the shortcut of Ultralytics' bottleneck a module that zennit can see."""

    def __init__(self):
        super().__init__(self.attributes)

    @staticmethod
    def attributes(name, module):
        if not isinstance(module, Bottleneck) or not module.add:
            return None

        def forward(x):
            return module.canonizer_sum(torch.stack([x, module.cv2(module.cv1(x))], dim=-1))

        return {"forward": forward, "canonizer_sum": zennit.layer.Sum()}


def zennit_composite(head, first):
    def hook(name, module):
        if name.startswith(head):
            return zennit.rules.Epsilon(epsilon=relative(0.01))
        if name == first:
            return zennit.rules.Flat(stabilizer=TINY)
        return zennit.rules.Gamma(gamma=0.1, stabilizer=TINY)

    return hook


def tiny_stabilisers(layer):
    rule = named_composite("epsilon_gamma_flat")(layer)
    return {Gamma: Gamma(0.1, TINY), Flat: Flat(TINY)}.get(type(rule), rule)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["yolov5n", "yolov6n"])
def test_yolo_maps_are_those_of_zennit(architecture, network):
    model, x, _ = network(architecture)
    model.fuse(verbose=False)
    x = x[:1]

    def target(output):
        return output[1]["scores"][:, 0, 27]

    found = relevance(model, x, target, tiny_stabilisers)

    hooks = zennit_composite(f"model.{len(model.model) - 1}.", "model.0.conv")
    expected = zennit_relevance(model, x, hooks, lambda out: (target(out), target(out)), [BottleneckSums()])
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-6


def merge_batch_norms(module):
    """Fold each batch normalisation of a torchvision ResNet into the convolution before it."""
    for name, child in list(module.named_children()):
        if name.startswith("bn"):
            convolution = f"conv{name[2:]}"
            setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), child))
            setattr(module, name, nn.Identity())
        elif name == "downsample":
            setattr(module, name, nn.Sequential(fuse_conv_bn_eval(child[0], child[1])))
        else:
            merge_batch_norms(child)


@pytest.mark.slow
def test_resnet50_maps_are_those_of_zennit(pictures):
    model = torchvision.models.resnet50(weights=None, num_classes=2)
    model(pictures(4, 64).expand(-1, 3, -1, -1))
    model = model.double().eval()
    merge_batch_norms(model)
    x = pictures(1, 64, seed=5).double().expand(-1, 3, -1, -1).contiguous()
    untouched = copy.deepcopy(model)

    found = relevance(model, x, lambda out: out[:, 1], tiny_stabilisers)

    canonizers = [zennit.torchvision.ResNetBottleneckCanonizer()]
    hooks = zennit_composite("fc", "conv1")
    expected = zennit_relevance(untouched, x, hooks, lambda out: (out[:, 1], out[:, 1]), canonizers)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-6
