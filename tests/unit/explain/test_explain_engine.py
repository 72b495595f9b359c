"""The LRP engine on whole models: what it agrees with, what it conserves, what it refuses, what it leaves alone."""

import copy
import itertools

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mammoflow.errors import ConfigError, ModelError
from mammoflow.explain import messages
from mammoflow.explain.composites import head_of, named_composite
from mammoflow.explain.engine import Explainer, relevance, relevances
from mammoflow.explain.operations import Propagation
from mammoflow.explain.rules import Epsilon, Flat

ARCHITECTURES = ["yolov5n", "yolov6n", "yolo11n", "yolo12n", "yolo26n", "resnet50", "vit_tiny_patch16_224"]
COMPOSITES = ["gradient_input", "epsilon", "epsilon_gamma_flat", "epsilon_gamma_wsquare", "epsilon_gamma_box", "zplus"]


def lrp_0(layer):
    return Epsilon(0)


def pearson(first, second):
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])


class PlainNet(nn.Module):
    def __init__(self, bias=True):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1, bias=bias)
        self.relu1 = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(4, 6, 3, bias=bias)
        self.relu2 = nn.ReLU()
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.conv3 = nn.Conv2d(6, 3, 1, bias=bias)

    def forward(self, x):
        return self.conv3(self.mean(self.relu2(self.conv2(self.pool(self.relu1(self.conv1(x))))))).view(x.shape[0], 3)


@pytest.mark.filterwarnings("ignore::UserWarning")  # captum's own
def test_epsilon_rule_agrees_with_captum_on_a_plain_net():
    model, x = PlainNet().double().eval(), torch.rand(3, 1, 10, 10, dtype=torch.float64)
    expected = captum.attr.LRP(copy.deepcopy(model)).attribute(x.clone(), target=2)
    torch.testing.assert_close(relevance(model, x, lambda out: out[:, 2], lrp_0), expected, atol=1e-6, rtol=1e-6)


def test_lrp_0_is_input_times_gradient_in_a_relu_net():
    model, x = PlainNet(bias=False).double().eval(), torch.randn(2, 1, 10, 10, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    torch.testing.assert_close(relevance(model, x, lambda out: out[:, 1], lrp_0), x * gradient, atol=1e-12, rtol=1e-10)


CASES = [*itertools.product(["yolov5n"], COMPOSITES), *itertools.product(ARCHITECTURES[1:], COMPOSITES[1:3])]


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "composite"), CASES)
def test_relevance_and_constants_sum_to_the_explained_value(architecture, composite, network):
    model, x, target = network(architecture)
    explained = Explainer(model, composite).explain(x, target)
    torch.testing.assert_close(explained.value, target(model(x)), atol=1e-9, rtol=1e-9)
    assert explained.relevance.shape == x.shape
    assert float(explained.conservation_error.max()) < 1e-10


def test_attnlrp_does_not_conserve_and_the_ledger_shows_it(network):
    model, x, target = network("vit_tiny_patch16_224")
    explained = Explainer(model, "epsilon", attention="attn").explain(x, target)
    assert float(explained.conservation_error.max()) > 1e-3


def test_the_ledger_needs_every_constant(network, monkeypatch):
    model, x, target = network("vit_tiny_patch16_224")
    explainer = Explainer(model, "epsilon")
    with monkeypatch.context() as patch:
        patch.setattr(Propagation, "watch", lambda self, output, constant: output)
        assert float(explainer.explain(x, target).conservation_error.max()) > 1e-3
    with monkeypatch.context() as patch:
        patch.setattr(messages, "_constants", lambda affine, share, *rest: share.new_zeros(len(share)).double())
        assert float(explainer.explain(x, target).conservation_error.max()) > 1e-3


def test_each_sample_has_its_own_ledger(network):
    model, x, target = network("yolov5n")
    together = Explainer(model).explain(x, target)
    alone = Explainer(model).explain(x[1:], target)
    assert together.constants[1:].tolist() == pytest.approx(alone.constants.tolist(), rel=1e-9)
    torch.testing.assert_close(together.relevance[1:], alone.relevance, atol=1e-12, rtol=1e-7)


def naive_attention_relevance(query, key, value, relevance_out, attention):
    """Relevance of values (and queries) of one head, by the papers' formulas, element by element."""
    scores = query @ key.T / query.shape[1] ** 0.5
    weights = scores.softmax(1)
    out = weights @ value
    share = 1.0 if attention == "cp" else 0.5
    to_value = torch.zeros_like(value)
    to_weights = torch.zeros_like(weights)
    for i, j, d in torch.cartesian_prod(*map(torch.arange, (len(query), len(key), value.shape[1]))):
        part = weights[i, j] * value[j, d] / out[i, d] * relevance_out[i, d]
        to_value[j, d] += share * part
        to_weights[i, j] += (1 - share) * part
    to_scores = scores * (to_weights - weights * to_weights.sum(1, keepdim=True))
    to_query = torch.zeros_like(query)
    for i, j, d in torch.cartesian_prod(*map(torch.arange, (len(query), len(key), query.shape[1]))):
        to_query[i, d] += 0.5 * query[i, d] * key[j, d] / query.shape[1] ** 0.5 / scores[i, j] * to_scores[i, j]
    return to_value, to_query


class OneHead(nn.Module):
    def __init__(self, fused):
        super().__init__()
        self.fused = fused

    def forward(self, x):  # (N, 3, tokens, width): queries, keys, values
        query, key, value = x.unbind(1)
        if self.fused:
            return F.scaled_dot_product_attention(query, key, value)
        return (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(-1) @ value


@pytest.mark.parametrize("attention", ["cp", "attn"])
@pytest.mark.parametrize("fused", [False, True])
def test_attention_by_the_papers_formulas(attention, fused):
    x = torch.randn(1, 3, 4, 5, dtype=torch.float64)
    seed = torch.randn(4, 5, dtype=torch.float64)
    model = OneHead(fused).eval()
    out = model(x)[0]

    found = relevance(model, x, lambda out: (out * seed).flatten(1).sum(1), "epsilon", attention=attention)[0]

    to_value, to_query = naive_attention_relevance(x[0, 0], x[0, 1], x[0, 2], out * seed, attention)
    torch.testing.assert_close(found[2], to_value, atol=1e-10, rtol=1e-9)
    torch.testing.assert_close(found[0], to_query, atol=1e-10, rtol=1e-9)


def test_fused_attention_of_timm_gives_the_same_map(network):
    model, x, target = network("vit_tiny_patch16_224")
    for attention in ("cp", "attn"):
        fused = relevance(model, x, target, attention=attention)
        for block in model.blocks:
            block.attn.fused_attn = False
        plain = relevance(model, x, target, attention=attention)
        for block in model.blocks:
            block.attn.fused_attn = True
        torch.testing.assert_close(fused, plain, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("act", [nn.ReLU(True), nn.SiLU(True), nn.GELU(), nn.GELU("tanh"), nn.LeakyReLU(0.2)])
def test_activations_pass_relevance_on(act):
    model = nn.Sequential(nn.Linear(6, 6, bias=False), act, nn.Linear(6, 1, bias=False)).double().eval()
    x = torch.randn(2, 6, dtype=torch.float64)
    explained = Explainer(model, lrp_0).explain(x, lambda out: out[:, 0])
    hidden = act(model[0](x)) * model[2].weight[0]
    expected = x * ((hidden / model[0](x)) @ model[0].weight)
    torch.testing.assert_close(explained.relevance, expected, atol=1e-12, rtol=1e-9)


def apart(found, exact):
    return float((found.double() - exact).abs().max() / exact.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("composite", ["epsilon", "epsilon_gamma_flat"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_map_of_a_float32_model_is_that_of_its_float64_copy(architecture, composite, network):
    double, x, target = network(architecture)
    single, x32, _ = network(architecture, torch.float32)
    exact, found = relevance(double, x, target, composite), relevance(single, x32, target, composite)
    assert found.dtype == torch.float32
    assert apart(found, exact) < 2e-5


def test_the_account_of_a_float32_model_closes_but_for_its_messages_rounding(network):
    model, x, target = network("yolov5n", torch.float32)
    explained = Explainer(model).explain(x, target)
    assert explained.relevance.dtype == explained.value.dtype == torch.float64
    assert float(explained.conservation_error.max()) < 1e-5


IN_SINGLE = [name for name in ARCHITECTURES if name != "yolo26n"]  # whose maps move by 2e-3


@pytest.mark.slow
@pytest.mark.parametrize("architecture", IN_SINGLE)
def test_single_precision_is_near_for_the_gamma_composite(architecture, network):
    double, x, target = network(architecture)
    single, x32, _ = network(architecture, torch.float32)
    exact = relevance(double, x, target)
    assert apart(relevance(single, x32, target, dtype=torch.float32), exact) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "composite"), [("yolov6n", "epsilon"), ("yolo26n", "epsilon_gamma_flat")])
def test_rounding_of_the_pixels_alone_moves_some_maps(architecture, composite, network):
    """Why single precision isn't the default: an otherwise exact computation moves by more than 1e-4."""
    double, x, target = network(architecture)
    exact = relevance(double, x, target, composite)
    moved = relevance(double, x * (1 + 6e-8 * torch.randn_like(x)), target, composite)
    assert apart(moved, exact) > 1e-4


def test_the_model_is_left_as_it_was(network):
    model, x, target = network("yolov6n")
    model.model[0].register_forward_hook(lambda module, inputs, output: None)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    hooks = {name: list(module._forward_hooks) for name, module in model.named_modules()}
    pixels, plain = x.clone(), target(model(x)).detach()

    relevance(model, x, target)

    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert {name: list(module._forward_hooks) for name, module in model.named_modules()} == hooks
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(x, pixels)
    assert not x.requires_grad
    assert torch.equal(target(model(x)), plain)


def test_a_model_that_ran_in_inference_mode_can_be_explained(network):
    model, x, target = network("yolov5n")
    with torch.inference_mode():
        model(x)
    expected = relevance(model, x, target)
    with torch.inference_mode():
        found = relevance(model, x.clone(), target)
    torch.testing.assert_close(found, expected)


class Residual(nn.Module):
    def __init__(self, inplace):
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
        self.inplace = inplace

    def forward(self, x):
        y = F.relu(self.first(x), inplace=self.inplace)
        z = self.second(y)
        if self.inplace:
            z += y
        else:
            z = z + y
        return z


def test_in_place_operations_give_the_same_map():
    model = Residual(False).double().eval()
    x = torch.randn(3, 5, dtype=torch.float64)
    expected = relevance(model, x, lambda out: out[:, 0])
    model.inplace = True
    torch.testing.assert_close(relevance(model, x, lambda out: out[:, 0]), expected)


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.function = function

    def forward(self, x):
        return self.function(self.inner(x))


ATTENTION = nn.MultiheadAttention(4, 2).double().eval().requires_grad_(False)
REFUSED = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "amax": lambda x: x.amax(1, keepdim=True),
    "round": torch.round,
    "detach": lambda x: x.detach() + x,
    "__get__": lambda x: x.data + x,
    "div": lambda x: x / (x.sum(1, keepdim=True) + 9),
    "pad": lambda x: F.pad(x, (1, 1), value=2.0),
    "clamp_": lambda x: x.clamp_(min=0),
    "hardtanh": lambda x: F.hardtanh(x, inplace=True),
    "dropout": lambda x: F.dropout(x, 0.5, training=True),
    "multi_head_attention_forward": lambda x: ATTENTION(x, x, x)[0],
}


@pytest.mark.parametrize("operation", REFUSED)
def test_an_unknown_operation_is_named_with_its_layer(operation):
    model = nn.Sequential(nn.Linear(3, 4), Calls(REFUSED[operation])).double().eval()
    x = torch.randn(2, 3, dtype=torch.float64)
    with pytest.raises(ModelError, match=rf"operation '{operation}.*1 \(Calls\)"):
        relevance(model, x, lambda out: out[:, 0])


def test_an_unknown_operation_beside_the_explained_path_does_no_harm():
    model = Calls(lambda x: (x, torch.tanh(x), x.argmax(1))).double().eval()
    x = torch.randn(2, 4, dtype=torch.float64)
    assert relevance(model, x, lambda out: out[0][:, 0]).abs().sum() > 0
    with pytest.raises(ModelError, match="'tanh'"):
        relevance(model, x, lambda out: out[1][:, 0])


def test_a_value_changed_behind_its_name_is_noticed():
    def forward(x):
        x.mul_(2)  # the replay multiplies out of place and the name keeps the old value
        return x

    model, x = Calls(forward).double().eval(), torch.randn(2, 4, dtype=torch.float64)
    with pytest.raises(ModelError, match="in place"):
        relevance(model, x, lambda out: out[:, 0])


def test_bad_requests_are_named():
    model, x = PlainNet().eval(), torch.rand(2, 1, 10, 10)
    with pytest.raises(ModelError, match="one number per sample"):
        relevance(model, x, lambda out: out.sum())
    with pytest.raises(ModelError, match="one number per sample"):
        relevance(model, x, lambda out: torch.zeros(2))
    with pytest.raises(ModelError, match="reads the input"):
        relevance(model, x, lambda out: out[:, 0], lambda layer: Flat())
    with pytest.raises(ModelError, match="training mode"):
        relevance(model.train(), x, lambda out: out[:, 0])
    with pytest.raises(ConfigError, match=r"explain\.composite.*'nice'"):
        named_composite("nice")


def test_the_head_is_found(network):
    assert head_of(network("yolov5n")[0]) == "model.24"
    assert head_of(network("vit_tiny_patch16_224")[0]) == "head"
    assert head_of(PlainNet()) == "conv3"


@pytest.mark.parametrize("architecture", ["yolov5n", "vit_tiny_patch16_224"])
def test_several_targets_of_one_forward_pass_are_explained_at_once(architecture, network):
    model, x, target = network(architecture)
    ways = [lambda out, a=a: target(out) * a - 3 * (a == 2) for a in (1, 2, -0.5)]
    if architecture == "yolov5n":
        ways = [lambda out, a=a: out[1]["scores"][:, 0, a] for a in (5, 60, *range(10, 17))]
    explainer = Explainer(model)
    alone = [explainer.explain(x, way) for way in ways]
    together = explainer.replay(x).explain_all(ways)
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one.relevance, other.relevance, atol=1e-13, rtol=1e-9)
        assert one.constants.tolist() == pytest.approx(other.constants.tolist())
        assert one.value.tolist() == other.value.tolist()
    found = relevances(model, x, ways)
    torch.testing.assert_close(found, torch.stack([one.relevance for one in alone]), atol=1e-13, rtol=1e-9)


@pytest.mark.parametrize("before", [True, False])
def test_a_gpu_rounds_no_factors_while_explaining(before, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
    seen = []

    class Net(nn.Linear):
        def forward(self, x):
            seen.append(torch.backends.cudnn.allow_tf32)
            return super().forward(x)

    def target(output):
        seen.append(torch.backends.cudnn.allow_tf32)
        return output[:, 0]

    explainer = Explainer(Net(4, 2).eval(), "epsilon")
    explainer.explain(torch.rand(1, 4), target)
    explainer.replay(torch.rand(1, 4)).explain_all([target])
    assert len(seen) >= 5
    assert not any(seen)
    assert torch.backends.cudnn.allow_tf32 is before


def test_one_forward_pass_serves_targets_one_after_the_other(network):
    model, x, _ = network("yolov5n")
    replay = Explainer(model).replay(x)
    twice = [replay.explain(lambda out, a=a: out[1]["scores"][:, 0, a]) for a in (5, 60, 5)]
    torch.testing.assert_close(twice[0].relevance, twice[2].relevance)
    assert twice[0].constants.tolist() == pytest.approx(twice[2].constants.tolist())
    assert pearson(twice[0].relevance, twice[1].relevance) < 0.99


def test_without_an_account_the_map_is_the_same_and_the_constants_unknown(network):
    model, x, target = network("yolov5n")
    explained = Explainer(model).explain(x, target, ledger=False)
    torch.testing.assert_close(explained.relevance, Explainer(model).explain(x, target).relevance)
    assert explained.constants.isnan().all()
