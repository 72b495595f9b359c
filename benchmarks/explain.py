"""Time and memory of relevance maps beside one plain gradient, zennit and captum's integrated gradients.

    uv run envs/locked.py python benchmarks/explain.py [--rounds 7] [--device cpu] [--json FILE] [MODEL ...]

Every round runs all methods of a model one after the other, so that whatever else the machine does meets all of them.
On CPU, times are processor time of the one process, which work beside it on the machine lengthens least.
`ms_per_map` is the fastest round; `ratio_vs_gradient` the median over rounds of a method's time for one map over that
of one plain gradient of one input in float32 in the same round, `ratio_vs_like` over that in the row's own precision.
`peak_mib` is the most that tensors allocated during one call hold at a time, weights and input not counted. Networks
have random weights and calibrated normalisations: neither time nor memory depends on what they have learnt.

``mixed`` is the engine's default for a float32 model, values in float64 and messages in float32: its like is the
float64 gradient, which has the same forward pass. With several threads times are by the clock, since the processor's
would count all threads.

Each tool is shown at its best: models are prepared, copied and hooked before the clock starts; zennit gets fused
networks, which it needs to be right, and a context that stays open. The gamma composite is the same in both: flat at
the input, gamma 0.1, epsilon over the head. Where zennit has no row it has no rules for the network.
"""

import argparse
import contextlib
import copy
import gc
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import captum.attr
import timm
import torch
import zennit.canonizers
import zennit.composites
import zennit.core
import zennit.layer
import zennit.rules
import zennit.torchvision
import zennit.types
from timm.models.resnet import Bottleneck as TimmBottleneck
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from ultralytics.nn.modules.block import Bottleneck

from mammoflow.detect.model import build_model
from mammoflow.explain import Explainer
from mammoflow.explain.composites import head_of

MODELS = ("yolov5n", "yolov6n", "yolo11n", "resnet50", "vit_tiny_patch16_224")
PICTURE, CROP, CROPS = 256, 64, 32  # pixels, pixels, crops in a batch
TARGETS = 8  # detections explained from one forward pass
STEPS = 32  # of integrated gradients

Method = tuple[int, Callable[[], Any]]  # maps that a call makes, and the call
Name = tuple[str, str]  # method and precision
SINGLE, MIXED, DOUBLE = "float32", "mixed", "float64"
COMPOSITES = {"epsilon": "epsilon", "gamma composite": "epsilon_gamma_flat"}


class Sums(zennit.canonizers.AttributeCanonizer):
    """Make the shortcuts of Ultralytics' and timm's bottlenecks modules that zennit sees."""

    def __init__(self) -> None:
        super().__init__(self.attributes)

    @staticmethod
    def attributes(name: str, module: nn.Module) -> dict[str, Any] | None:
        """Forward method of a bottleneck whose sum is a module."""
        if isinstance(module, Bottleneck) and module.add:

            def forward(x: Tensor) -> Tensor:
                return module.canonizer_sum(torch.stack([x, module.cv2(module.cv1(x))], dim=-1))

        elif isinstance(module, TimmBottleneck):

            def forward(x: Tensor) -> Tensor:
                z = module.act1(module.bn1(module.conv1(x)))
                z = module.bn3(module.conv3(module.aa(module.act2(module.drop_block(module.bn2(module.conv2(z)))))))
                shortcut = x if module.downsample is None else module.downsample(x)
                return module.act3(module.canonizer_sum(torch.stack([z, shortcut], dim=-1)))

        else:
            return None
        return {"forward": forward, "canonizer_sum": zennit.layer.Sum()}


def zennit_composite(model: nn.Module, first: str, gamma: bool) -> zennit.core.Composite:
    """Return the same rules as `Explainer`'s composite ``epsilon_gamma_flat`` or ``epsilon``, for a fused network."""
    head = head_of(model)

    def hook(ctx: Any, name: str, module: nn.Module) -> Any:
        if isinstance(module, zennit.types.Convolution | nn.Linear):
            if not gamma or name == head or name.startswith(f"{head}."):
                return zennit.rules.Epsilon(epsilon=zennit.core.Stabilizer(0.01, norm_scale=True))
            return zennit.rules.Flat() if name == first else zennit.rules.Gamma(gamma=0.1)
        if isinstance(module, zennit.types.Activation | nn.SiLU):
            return zennit.rules.Pass()
        return zennit.rules.Norm() if isinstance(module, zennit.layer.Sum | zennit.types.AvgPool) else None

    return zennit.core.Composite(module_map=hook, canonizers=[Sums()])


def build(name: str) -> nn.Module:
    """Return a network with normalisations calibrated on noise, in evaluation mode."""
    torch.manual_seed(0)
    if name.startswith("yolo"):
        model = build_model(name)
    else:
        options: dict[str, Any] = {"img_size": CROP} if name.startswith("vit") else {}
        model = timm.create_model(name, in_chans=1, num_classes=2, **options)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    with torch.no_grad():
        model.train()(torch.rand(4, 1, 128 if norms else CROP, 128 if norms else CROP))
    return model.eval().requires_grad_(False)


def fused(name: str, model: nn.Module) -> nn.Module | None:
    """Copy of the network without batch normalisations, as zennit needs it; None if zennit has no rules for it."""
    fused: Any = copy.deepcopy(model)
    if name in ("yolov5n", "yolov6n"):
        return fused.fuse(verbose=False)
    if name != "resnet50":
        return None
    for module in fused.modules():
        for number in ("1", "2", "3"):
            norm = getattr(module, f"bn{number}", None)
            if isinstance(norm, nn.BatchNorm2d):
                setattr(module, f"conv{number}", fuse_conv_bn_eval(getattr(module, f"conv{number}"), norm))
                setattr(module, f"bn{number}", nn.Identity())
        if isinstance(getattr(module, "downsample", None), nn.Sequential):
            module.downsample = nn.Sequential(fuse_conv_bn_eval(module.downsample[0], module.downsample[1]))
    return fused


def plain(run: Callable[[Tensor], Tensor], x: Tensor) -> Method:
    """One plain gradient."""

    def call() -> Tensor:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(run(leaf).sum(), leaf)[0]

    return len(x), call


def explain_several(explainer: Explainer, x: Tensor, targets: list[Callable[[Any], Tensor]]) -> list[Any]:
    """Explain several targets of one forward pass."""
    return explainer.replay(x, ledger=False).explain_all(targets)


def explainer_of(model: nn.Module, composite: str, precision: str) -> Explainer:
    """Explainer in one of the three precisions."""
    if precision == DOUBLE:
        return Explainer(copy.deepcopy(model).double(), composite)
    return Explainer(model, composite, dtype=torch.float32 if precision == SINGLE else torch.float64)


@contextlib.contextmanager
def methods(name: str, device: str) -> Iterator[dict[Name, Method]]:
    """All methods for one network: maps per call and the call."""
    model = build(name).to(device)
    double: Any = copy.deepcopy(model).double()
    detects = name.startswith("yolo")
    side = PICTURE if detects else CROP

    def target(output: Any, anchor: int = 300) -> Tensor:
        return output[1]["scores"][:, 0, anchor] if detects else output[:, 1] - output[:, 0]

    x = torch.rand(1, 1, side, side, device=device)
    several = [partial(target, anchor=300 + 7 * number) for number in range(TARGETS)]
    batch = torch.rand(CROPS, 1, side, side, device=device)
    found: dict[Name, Method] = {}
    for precision, network, single, crops in ((SINGLE, model, x, batch), (DOUBLE, double, x.double(), batch.double())):
        found["gradient", precision] = plain(lambda leaf, n=network: target(n(leaf)), single)
        if not detects:
            found[f"gradient, {CROPS} crops", precision] = plain(lambda leaf, n=network: target(n(leaf)), crops)
    for precision, (label, composite) in itertools.product((SINGLE, MIXED, DOUBLE), COMPOSITES.items()):
        explainer = explainer_of(model, composite, precision)
        found[f"LRP {label}", precision] = 1, partial(explainer.explain, x, target, ledger=False)
        if precision == DOUBLE:
            continue
        if detects:
            found[f"LRP {label}, {TARGETS} targets", precision] = (
                TARGETS,
                partial(explain_several, explainer, x, several),
            )
        else:
            found[f"LRP {label}, {CROPS} crops", precision] = (
                CROPS,
                partial(explainer.explain, batch, target, ledger=False),
            )
        if precision == MIXED:
            found[f"LRP {label}, with the constants' account", precision] = 1, partial(explainer.explain, x, target)
    integrated = captum.attr.IntegratedGradients(lambda leaf: target(model(leaf)))
    found[f"captum integrated gradients, {STEPS} steps", SINGLE] = 1, lambda: integrated.attribute(x, n_steps=STEPS)
    with contextlib.ExitStack() as stack:
        for precision, label in itertools.product((SINGLE, DOUBLE), COMPOSITES):
            network = fused(name, model)
            if network is None:
                continue
            network, leaves = (network.double(), x.double()) if precision == DOUBLE else (network, x)
            first = "model.0.conv" if detects else "conv1"
            hooked = stack.enter_context(zennit_composite(network, first, label != "epsilon").context(network))
            found[f"zennit {label}", precision] = plain(lambda leaf, n=hooked: target(n(leaf)), leaves)
        yield found


def seconds(call: Callable[[], Any], device: str) -> float:
    """Time of a call: of the processor on one thread, by the clock on several or on a GPU."""
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    if device != "cpu":
        torch.cuda.synchronize()
    start = clock()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def peak_mib(call: Callable[[], Any], device: str) -> float:
    """Most memory that tensors allocated by a call hold at a time, MiB."""
    gc.collect()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = call()
    del result
    held = peak = 0
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20


def measure(name: str, rounds: int, device: str) -> list[dict[str, Any]]:
    """Rows of all methods for one network."""
    with methods(name, device) as found:
        times: dict[Name, list[float]] = {method: [] for method in found}
        for _, call in found.values():
            call()
        for _ in range(rounds):
            for method, (maps, call) in found.items():
                times[method].append(seconds(call, device) / maps)

        def ratio(method: Name, precision: str) -> float:
            base = times["gradient", precision]
            return round(statistics.median(own / one for own, one in zip(times[method], base, strict=True)), 2)

        return [
            {
                "model": name,
                "method": label,
                "precision": precision,
                "ms_per_map": round(1e3 * min(times[label, precision]), 3),
                "peak_mib": round(peak_mib(found[label, precision][1], device), 1),
                "ratio_vs_gradient": ratio((label, precision), SINGLE),
                "ratio_vs_like": ratio((label, precision), SINGLE if precision == SINGLE else DOUBLE),
            }
            for label, precision in found
        ]


def main() -> None:
    """Print the table, and write its rows if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="of torch on CPU")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = []
    print("| model | method | precision | ms per map | peak MiB | float32 gradients | gradients of its like |")
    print("|---|---|---|---|---|---|---|")
    for name in given.models:
        for row in measure(name, given.rounds, given.device):
            print("|", " | ".join(str(value) for value in row.values()), "|", flush=True)
            rows.append(row)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
