"""Maps of networks against other tools' rules, of single layers against gradients, and engines broken on purpose."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
import zennit.canonizers
import zennit.core
import zennit.layer
import zennit.rules
import zennit.torchvision
import zennit.types
from lxt.explicit import functional as lxt
from timm.models.resnet import Bottleneck
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mammoflow.errors import ModelError
from mammoflow.explain import messages, operations
from mammoflow.explain.engine import Explainer, relevance
from mammoflow.explain.operations import Propagation
from mammoflow.explain.rules import Epsilon, Flat, Gamma


def lrp_0(layer):
    return Epsilon(0)


def worst(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


class TimmSums(zennit.canonizers.AttributeCanonizer):
    """Make the sum at the end of timm's bottleneck a module that zennit can see."""

    def __init__(self):
        super().__init__(self.attributes)

    @staticmethod
    def attributes(name, module):
        if not isinstance(module, Bottleneck):
            return None

        def forward(x):
            z = module.act1(module.bn1(module.conv1(x)))
            z = module.bn3(module.conv3(module.aa(module.act2(module.drop_block(module.bn2(module.conv2(z)))))))
            shortcut = x if module.downsample is None else module.downsample(x)
            return module.act3(module.canonizer_sum(torch.stack([z, shortcut], dim=-1)))

        return {"forward": forward, "canonizer_sum": zennit.layer.Sum()}


def zennit_map(model, x, canonizer):
    def rules(ctx, name, module):
        if isinstance(module, zennit.types.Convolution | nn.Linear):
            if name == "fc":
                return zennit.rules.Epsilon(epsilon=zennit.core.Stabilizer(0.01, norm_scale=True))
            return zennit.rules.Flat(stabilizer=1e-13) if name == "conv1" else zennit.rules.Gamma(0.1, stabilizer=1e-13)
        if isinstance(module, zennit.types.Activation):
            return zennit.rules.Pass()
        if isinstance(module, zennit.layer.Sum | zennit.types.AvgPool):
            return zennit.rules.Norm(stabilizer=1e-30)
        return None

    x = x.clone().requires_grad_()
    with zennit.core.Composite(module_map=rules, canonizers=[canonizer]).context(model) as hooked:
        out = hooked(x)[:, 1]
        (found,) = torch.autograd.grad(out, x, out.detach())
    return found


def without_norms(model):
    for module in model.modules():
        for number in "123":
            if isinstance(getattr(module, f"bn{number}", None), nn.BatchNorm2d):
                norm = getattr(module, f"bn{number}")
                setattr(module, f"conv{number}", fuse_conv_bn_eval(getattr(module, f"conv{number}"), norm))
                setattr(module, f"bn{number}", nn.Identity())
        if isinstance(getattr(module, "downsample", None), nn.Sequential):
            module.downsample = nn.Sequential(fuse_conv_bn_eval(module.downsample[0], module.downsample[1]))
    return model


@pytest.mark.slow
def test_timm_resnet50_maps_are_those_of_zennit(network):
    """zennit's canonizer for ResNets knows torchvision's bottleneck alone.

    timm's has other attributes (act1 to act3, aa, drop_block): the stock canonizer finds nothing to do and says
    nothing, each branch of every sum gets the whole relevance, and the map is wrong by orders of magnitude.
    """
    model, x, _ = network("resnet50")
    x = x[:1]

    def rules(layer):
        if layer.in_head:
            return Epsilon(0.01)
        return Flat(1e-13) if layer.reads_input else Gamma(0.1, 1e-13)

    found = relevance(model, x, lambda out: out[:, 1], rules)  # merges the normalisations by itself
    without_norms(model)
    assert worst(found, zennit_map(model, x, TimmSums())) < 1e-6
    assert worst(zennit_map(model, x, zennit.torchvision.ResNetCanonizer()), found) > 100


def lxt_vit(model, x):
    """Logits of timm's vision transformer, written with lxt's functions: their gradient is relevance."""
    size = model.patch_embed.proj.kernel_size[0]
    patches = F.unfold(x, size, stride=size).transpose(1, 2)
    z = lxt.linear_epsilon(patches, model.patch_embed.proj.weight.flatten(1), model.patch_embed.proj.bias, 0.0)
    z = torch.cat([model.cls_token.expand(len(x), -1, -1), z], 1)
    z = lxt.add2(z, model.pos_embed, epsilon=0.0)

    def norm(z, layer):
        return lxt.layer_norm_grad_fn.apply(z, layer.weight, layer.bias, layer.eps, 0.0)

    def linear(z, layer):
        return lxt.linear_epsilon(z, layer.weight, layer.bias, 0.0)

    for block in model.blocks:
        samples, tokens, width = z.shape
        heads = block.attn.num_heads
        qkv = linear(norm(z, block.norm1), block.attn.qkv).reshape(samples, tokens, 3, heads, width // heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        scores = lxt.matmul(lxt.mul2(query, block.attn.scale), key.transpose(-2, -1), epsilon=0.0)
        mixed = lxt.matmul(lxt.softmax(scores, -1), value, epsilon=0.0)
        attended = linear(mixed.transpose(1, 2).reshape(samples, tokens, width), block.attn.proj)
        z = lxt.add2(z, attended, epsilon=0.0)
        hidden = linear(norm(z, block.norm2), block.mlp.fc1)
        hidden = Identity.apply(hidden, F.gelu(hidden.detach()))
        z = lxt.add2(z, linear(hidden, block.mlp.fc2), epsilon=0.0)
    return linear(norm(z, model.norm)[:, 0], model.head)


class Identity(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, out):
        return out.clone()

    @staticmethod
    def backward(ctx, relevance):
        return relevance, None


def test_attnlrp_of_timms_vit_is_that_of_lxts_rules(network):
    model, x, target = network("vit_tiny_patch16_224")
    with torch.no_grad():
        for parameter in model.parameters():  # fresh biases are zero and fresh tokens nearly so
            parameter.add_(0.05 * torch.randn_like(parameter))
    leaf = x.clone().requires_grad_()
    logits = lxt_vit(model, leaf)
    torch.testing.assert_close(logits, model(x))
    # relevance of a difference of logits: each logit's own, the second with its sign
    start = torch.stack([-logits[:, 0], logits[:, 1]], 1).detach()
    (expected,) = torch.autograd.grad(logits, leaf, start)
    assert worst(relevance(model, x, target, lrp_0, attention="attn"), expected) < 1e-6


LAYERS = {
    "same padding, even kernel": (nn.Conv2d(2, 4, 4, padding="same"), (2, 2, 7, 8)),
    "same padding, dilated": (nn.Conv1d(2, 4, 3, padding="same", dilation=2), (2, 2, 9)),
    "valid padding": (nn.Conv2d(2, 4, 3, padding="valid"), (2, 2, 7, 8)),
    "volume": (nn.Conv3d(2, 4, 3, stride=(1, 2, 3), padding=(0, 1, 2)), (2, 2, 6, 7, 8)),
    "groups, stride that leaves pixels over": (nn.Conv2d(4, 4, 3, stride=3, dilation=2, groups=2), (2, 4, 13, 15)),
    "transposed, grouped": (nn.ConvTranspose2d(4, 4, 3, 2, 1, output_padding=1, groups=2), (2, 4, 5, 6)),
    "transposed, dilated": (nn.ConvTranspose1d(3, 4, 3, stride=2, dilation=2), (2, 3, 5)),
    "linear": (nn.Linear(5, 4), (2, 5)),
    "linear of tokens": (nn.Linear(5, 4), (2, 3, 5)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_lrp_0_of_one_layer_is_input_times_gradient(name, normalised):
    layer, shape = LAYERS[name]
    if normalised and name == "linear of tokens":
        norm = nn.BatchNorm1d(shape[1])  # of tokens, not of the layer's outputs: can't be merged
    else:
        norm = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)](4)
    for vector in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
        nn.init.uniform_(vector, 0.5, 2)
    model = nn.Sequential(layer, *[norm] * normalised).double().eval()
    x = torch.randn(shape, dtype=torch.float64)
    weights = torch.randn(model(x).shape, dtype=torch.float64)

    def target(out):
        return (out * weights).flatten(1).sum(1)

    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target(model(leaf)).sum(), leaf)
    explainer = Explainer(model, lrp_0)
    explained = explainer.explain(x, target)
    torch.testing.assert_close(explained.relevance, x * gradient, atol=1e-11, rtol=1e-10)
    assert float(explained.conservation_error.max()) < 1e-10
    assert bool(explainer.merges) == (normalised and name != "linear of tokens")


class Branches(nn.Module):
    """A layer whose output is read before its normalisation too, and one that two normalisations follow."""

    def __init__(self):
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)
        self.shared, self.norm2, self.norm3 = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        z = self.first(x)
        z = F.relu(self.norm1(z)) + z
        return (self.norm2(self.shared(z)) + self.norm3(self.shared(F.relu(z)))).flatten(1).sum(1)


def test_normalisations_that_others_depend_on_stay_apart(pictures):
    model = Branches()
    model.train()(pictures(4, 12))
    model = model.double().eval()
    x = pictures(2, 12).double()
    explainer = Explainer(model, "epsilon_gamma")
    explained = explainer.explain(x, lambda out: out)
    assert not explainer.merges
    torch.testing.assert_close(explained.value, model(x))
    assert float(explained.conservation_error.max()) < 1e-10


class Turning(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.norm, self.early = nn.Linear(3, 3), nn.BatchNorm1d(3), False

    def forward(self, x):
        z = self.layer(x)
        return self.norm(z) + z if self.early else self.norm(z)


def test_a_model_that_changes_its_course_is_refused():
    model = Turning().double().eval()
    explainer = Explainer(model, "epsilon")
    x = torch.randn(2, 3, dtype=torch.float64)
    explainer.explain(x, lambda out: out[:, 0])
    explainer._copy.early = True
    with pytest.raises(ModelError, match=r"'add'.*reads a layer's output that only went into a batch normalisation"):
        explainer.explain(x, lambda out: out[:, 0])


class Small(nn.Module):
    """Convolutions with biases, a shortcut, and a head."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x):
        z = F.relu(self.first(x))
        z = F.relu(self.second(z)) + z
        return self.head(z.mean((2, 3)))


def naive(model, x, composite):
    """Relevance of the first logit by the rules as the papers write them: contributions as explicit matrices."""

    def shares(matrix, bias, inputs, rule):
        parts = matrix * inputs  # (outputs, inputs)
        z = parts.sum(1) + bias
        if isinstance(rule, Flat):
            weights, total = (matrix != 0).double(), (matrix != 0).sum(1).double()
        else:
            gamma = rule.gamma if isinstance(rule, Gamma) else 0.0
            favoured = torch.where(z[:, None] >= 0, parts.clamp(min=0), parts.clamp(max=0))
            weights = parts + gamma * favoured
            own_bias = bias + gamma * torch.where(z >= 0, bias.clamp(min=0), bias.clamp(max=0))
            total = weights.sum(1) + own_bias
        size = rule.epsilon * total.square().mean().sqrt()
        return weights / (total + torch.where(total < 0, -size, size))[:, None]

    def matrix_of(layer, shape):
        basis = torch.eye(shape.numel(), dtype=torch.float64).reshape(-1, *shape)
        return F.conv2d(basis, layer.weight, None, padding=layer.padding).flatten(1).T

    first, second, head = composite
    one = F.relu(model.first(x))[0]
    two = F.relu(model.second(one[None]))[0]
    mean = (one + two).mean((1, 2))
    start = torch.tensor([float(model.head(mean)[0]), 0.0], dtype=torch.float64)
    in_mean = shares(model.head.weight, model.head.bias, mean, head).T @ start
    in_sum = (one + two) / (one + two).sum((1, 2), keepdim=True) * in_mean[:, None, None]
    through = torch.where(one + two > 0, two / (one + two), 0) * in_sum
    bias = model.second.bias[:, None].expand(-1, two[0].numel()).flatten()
    matrix = matrix_of(model.second, one.shape)
    in_one = in_sum - through + (shares(matrix, bias, one.flatten(), second).T @ through.flatten()).reshape(one.shape)
    bias = model.first.bias[:, None].expand(-1, one[0].numel()).flatten()
    matrix = matrix_of(model.first, x[0].shape)
    return (shares(matrix, bias, x.flatten(), first).T @ in_one.flatten()).reshape(x.shape)


def small():
    torch.manual_seed(3)
    model = Small().double().eval()
    for layer in (model.first, model.second, model.head):
        nn.init.uniform_(layer.bias, 0.05, 0.3)
    model.head.bias.data -= 1  # a negative score, whose own bias speaks for it
    return model.requires_grad_(False), torch.rand(1, 1, 6, 6, dtype=torch.float64)


COMPOSITES = {
    "epsilon": (Epsilon(0.1), Epsilon(0.1), Epsilon(0.1)),
    "gamma": (Gamma(0.4), Gamma(0.4), Gamma(0.4)),
    "flat": (Flat(), Gamma(0.4), Epsilon(0.1)),
}


def engine_is_right(name):
    """Whether the engine gives the naive map and its account closes."""
    model, x = small()
    rules = dict(zip(("first", "second", "head"), COMPOSITES[name], strict=True))
    explained = Explainer(model, lambda layer: rules[layer.name]).explain(x, lambda out: out[:, 0])
    same = worst(explained.relevance, naive(model, x, COMPOSITES[name]).detach()) < 1e-9
    return same, float(explained.conservation_error.max()) < 1e-10


@pytest.mark.parametrize("name", COMPOSITES)
def test_the_engine_gives_the_naive_map_and_closes_its_account(name):
    assert engine_is_right(name) == (True, True)


def negative_part(shares):
    last = shares.parts[-1]
    return dataclasses.replace(shares, parts=(*shares.parts[:-1], last._replace(weight=-last.weight)))


def unsigned_part(shares):
    return dataclasses.replace(shares, parts=tuple(part._replace(signed=False) for part in shares.parts))


def no_stabiliser(shares):
    return dataclasses.replace(shares, stabiliser=torch.zeros_like(shares.stabiliser))


def no_constant(shares):
    return dataclasses.replace(shares, constant=None, signed_constant=None)


def changed_rule(rule, change):
    def patch(monkeypatch):
        original = rule.shares
        monkeypatch.setattr(rule, "shares", lambda self, layer, x, z: change(original(self, layer, x, z)))

    return patch


def drop_the_add(monkeypatch):
    """Pass the sum's relevance to its first summand alone."""
    monkeypatch.setitem(operations._HANDLERS, "add", lambda mode, first, second: first + second.detach())


def forget_the_bias(monkeypatch):
    """Share the whole output among the inputs, as if there were no bias."""
    original = Epsilon.shares

    def shares(self, layer, x, z):
        own = original(self, dataclasses.replace(layer, bias=None), x, layer.linear(x, layer.weight))
        return dataclasses.replace(own, factor=own.factor * z / layer.linear(x, layer.weight))

    monkeypatch.setattr(Epsilon, "shares", shares)


def swap_the_activation(monkeypatch):
    """Pass relevance where ReLU gave nothing, and none where it gave something."""

    class Swapped(messages.Gate):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward((x <= 0).double())
            return F.relu(x)

    monkeypatch.setitem(operations._HANDLERS, "relu", lambda mode, x, inplace=False: Swapped.apply(x))


def forget_the_account(monkeypatch):
    monkeypatch.setattr(Propagation, "ledger_of", lambda self, value: None)


MUTATIONS = {
    "epsilon's sign swapped": ("epsilon", changed_rule(Epsilon, negative_part)),
    "gamma's sign swapped": ("gamma", changed_rule(Gamma, negative_part)),
    "gamma favours the positive everywhere": ("gamma", changed_rule(Gamma, unsigned_part)),
    "flat's sign swapped": ("flat", changed_rule(Flat, negative_part)),
    "stabiliser not entered": ("epsilon", changed_rule(Epsilon, no_stabiliser)),
    "bias not entered": ("gamma", changed_rule(Gamma, no_constant)),
    "bias forgotten": ("epsilon", forget_the_bias),
    "add dropped": ("epsilon", drop_the_add),
    "activation's gate swapped": ("epsilon", swap_the_activation),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_engine_fails(name, monkeypatch):
    composite, mutate = MUTATIONS[name]
    mutate(monkeypatch)
    assert engine_is_right(composite) != (True, True)


def test_an_engine_without_account_knows_no_constants(monkeypatch):
    forget_the_account(monkeypatch)
    assert engine_is_right("epsilon") == (True, False)
