"""How far a method's maps can be trusted: figures beside a blind control and a random map.

Every figure is of one map and one model, on the model's input. The control blob is drawn at the frame by someone who
never looked at the model: a figure that it reaches as well says nothing about the model.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mammoflow.explain.composites import head_of
from mammoflow.explain.maps import blob, relevance_in_box
from mammoflow.explain.methods import Cases, method_maps, near_boxes

CONTROLS = ("control_blob", "control_random")
STAGES = ("head", "upper_half", "all")
POOL = 4  # pixels a side of the blocks that are deleted, inserted and pointed at
SHARES = (0.125, 0.25, 0.5, 1.0, 2.0)  # of the frame's area: how much is deleted or inserted
LEAST_CHANGE = 0.5  # logits: shares of less than that are shares of nothing
NOISE = 0.01  # standard deviation of the noise added for stability, share of the inputs' range
BATCH = 16  # perturbed pictures a forward pass

Maps = NDArray[np.float64]


def control_maps(name: str, cases: Cases, seed: int) -> Maps:
    """Draw maps (N, S, S) that never looked at the model: a blob at each frame, or noise."""
    size = cases.x.shape[-1]
    if name == "control_blob":
        return np.stack([blob(box, size, size).astype(np.float64) for box in cases.boxes])
    return np.random.default_rng(seed).standard_normal((len(cases.x), size, size))


def pooled(maps: Maps) -> Maps:
    """Sum over blocks of `POOL` x `POOL` pixels, (N, S / POOL, S / POOL)."""
    count, height, width = maps.shape
    rows, columns = height // POOL, width // POOL
    blocks = maps[:, : rows * POOL, : columns * POOL].reshape(count, rows, POOL, columns, POOL)
    return blocks.sum((2, 4))


def points_into_box(maps: Maps, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pointing game: 1 where the block of most relevance has its centre in the frame, else 0, (N,).

    Zhang et al. 2018, arXiv:1608.00507.
    """
    hits = []
    for one, (x1, y1, x2, y2) in zip(pooled(maps), boxes, strict=True):
        row, column = np.unravel_index(int(np.argmax(one)), one.shape)
        x, y = (column + 0.5) * POOL, (row + 0.5) * POOL
        hits.append(float(x1 <= x < x2 and y1 <= y < y2))
    return np.array(hits)


def likeness(first: Maps, second: Maps, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """|Pearson| of two maps in the neighbourhood of each frame, (N,); NaN where one of them is constant."""
    found = []
    for one, other, (x1, y1, x2, y2) in zip(first, second, near_boxes(boxes, first.shape[-1]), strict=True):
        a, b = one[y1:y2, x1:x2].ravel(), other[y1:y2, x1:x2].ravel()
        a, b = a - a.mean(), b - b.mean()
        norm = np.sqrt((a @ a) * (b @ b))
        found.append(abs(float(a @ b)) / norm if norm > 0 else np.nan)
    return np.array(found)


def perturbation_areas(maps: Maps, cases: Cases) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Areas under the deletion and the insertion curve of each map, (N,) each.

    Blocks go in the order of their relevance, from an eighth of to twice the frame's area. Deleted ones become those of
    the blurred picture; inserted ones come back into it. The explained number is counted from that of the blurred
    picture (0) to that of the untouched one (1), and the area is the mean over the curve: low is good for deletion,
    high for insertion (Petsiuk et al. 2018, arXiv:1806.07421). NaN where blurring the whole picture changes the number
    by less than `LEAST_CHANGE`.
    """
    low = cases.blank()
    with torch.no_grad():
        whole, none = (cases.values(x).double().cpu().numpy() for x in (cases.x, low))
    masks = torch.from_numpy(np.stack([_first_blocks(one, box) for one, box in zip(maps, cases.boxes, strict=True)]))
    masks = masks.to(cases.x)[:, :, None]
    deleted = cases.x[:, None] * (1 - masks) + low[:, None] * masks
    inserted = low[:, None] * (1 - masks) + cases.x[:, None] * masks
    change = np.where(np.abs(whole - none) >= LEAST_CHANGE, whole - none, np.nan)
    deletion, insertion = (((_curve(cases, x) - none[:, None]) / change[:, None]).mean(1) for x in (deleted, inserted))
    return deletion, insertion


def _first_blocks(one: Maps, box: NDArray[np.floating]) -> NDArray[np.float64]:
    """Masks (steps, S, S) of the blocks of most relevance, up to each of `SHARES` of the frame's area."""
    blocks = pooled(one[None])[0]
    order = np.argsort(-blocks, axis=None, kind="stable")
    area = (box[2] - box[0]) * (box[3] - box[1]) / POOL**2
    masks = np.zeros((len(SHARES), *one.shape))
    for mask, part in zip(masks, SHARES, strict=True):
        chosen = np.zeros(blocks.size)
        chosen[order[: max(1, round(part * area))]] = 1
        grown = np.kron(chosen.reshape(blocks.shape), np.ones((POOL, POOL)))
        mask[: grown.shape[0], : grown.shape[1]] = grown
    return masks


def _curve(cases: Cases, x: Tensor) -> NDArray[np.float64]:
    """Explained numbers (N, steps) of perturbed pictures (N, steps, 1, S, S)."""
    count, steps = x.shape[:2]
    numbers = cases.numbers().repeat_interleave(steps)
    flat = x.reshape(count * steps, *x.shape[2:])
    with torch.no_grad():
        values = [
            cases.values(flat[start : start + BATCH], numbers[start : start + BATCH])
            for start in range(0, len(flat), BATCH)
        ]
    return torch.cat(values).double().cpu().numpy().reshape(count, steps)


def randomise(model: nn.Module, stage: str, x: Tensor, seed: int) -> None:
    """Give the last layers of a model new random weights, in place: the head, the upper half, or all.

    Batch normalisations that follow new weights get statistics of `x`, so that activations keep their size. Adebayo et
    al. 2018, arXiv:1810.03292.

    Parameters
    ----------
    model : network in evaluation mode; layers in the order of their definition.
    stage : one of `STAGES`.
    x : inputs, (N, ...), for the statistics.
    """
    layers = [(name, module) for name, module in model.named_modules() if _reset(module) is not None]
    head = head_of(model)
    in_head = [name == head or name.startswith(f"{head}.") for name, _ in layers]
    first = {"head": len(layers), "upper_half": len(layers) // 2, "all": 0}[stage]
    chosen = [module for at, (_, module) in enumerate(layers) if at >= first or in_head[at]]
    kept = [(module, module.momentum) for module in chosen if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in chosen:
            _reset(module)()
    for norm, _ in kept:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
        norm.train()
    with torch.no_grad():
        model(torch.cat([x, x.flip(-1)]) if len(x) == 1 else x)
    for norm, momentum in kept:
        norm.momentum = momentum
        norm.eval()


def _reset(module: Any) -> Any:
    """Return what gives a layer new weights; None of modules without weights of their own."""
    own = "_reset_parameters" if isinstance(module, nn.MultiheadAttention) else "reset_parameters"
    return getattr(module, own, None)


def noisy(cases: Cases, seed: int) -> Tensor:
    """Return the inputs with Gaussian noise of standard deviation `NOISE`."""
    noise = np.random.default_rng(seed).standard_normal(tuple(cases.x.shape)).astype(np.float32)
    reach = cases.x.amax() - cases.x.amin()
    return cases.x + NOISE * reach * torch.from_numpy(noise).to(cases.x)


def measure(
    cases: Cases,
    noisy_cases: Cases,
    randomised: dict[str, Cases],
    others: Cases | None,
    methods: Sequence[str],
    gamma: float,
    seed: int,
) -> list[dict[str, Any]]:
    """Figures of every method and control on every case.

    Parameters
    ----------
    cases : judgements of one model.
    noisy_cases : the same on inputs with a little noise.
    randomised : stage -> the same with a randomised copy of the model.
    others : the same pictures and frames, judged by the model of another fold; None when there is none.
    methods : see `mammoflow.explain.methods.method_maps`; those that don't fit the architecture are left out.
    gamma : of the gamma rule.
    seed : of the random control.

    Returns
    -------
    One dictionary per method and case: ``case`` (its number), ``method``, and the figures of
    `mammoflow.tables.FAITHFULNESS`.
    """
    rows = []
    for name in (*CONTROLS, *methods):
        control = name in CONTROLS
        maps = control_maps(name, cases, seed) if control else method_maps(name, cases, gamma)
        if maps is None:
            continue
        deletion, insertion = perturbation_areas(maps, cases)
        columns: dict[str, Any] = {
            "deletion": deletion,
            "insertion": insertion,
            "mass_in_box": [
                relevance_in_box(one.astype(np.float32), box)[0] for one, box in zip(maps, cases.boxes, strict=True)
            ],
            "pointing": points_into_box(maps, cases.boxes),
        }
        if not control:
            again = {"stability": noisy_cases, **{f"randomised_{stage}": one for stage, one in randomised.items()}}
            if others is not None:
                again["fold_agreement"] = others
            for column, same in again.items():
                changed = method_maps(name, same, gamma)
                assert changed is not None
                columns[column] = likeness(maps, changed, cases.boxes)
        rows += [
            {"case": case, "method": name, **{column: float(values[case]) for column, values in columns.items()}}
            for case in range(len(cases.x))
        ]
    return rows
