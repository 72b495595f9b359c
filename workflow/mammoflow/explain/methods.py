"""Ways to explain one number of a model: the engine's composites, and captum's methods to compare them with.

Captum (BSD licence; Kokhlikyan et al. 2020, arXiv:2009.07896) computes integrated gradients (Sundararajan et al. 2017),
input x gradient, occlusion (Zeiler and Fergus 2014) and Grad-CAM (Selvaraju et al. 2017).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from captum.attr import FeatureAblation, InputXGradient, IntegratedGradients, LayerAttribution, LayerGradCam
from numpy.typing import NDArray
from torch import Tensor, nn

from mammoflow.errors import ConfigError
from mammoflow.explain.engine import Explainer

COMPOSITES = ("epsilon", "epsilon_gamma_flat", "zplus")
COMPARED = ("input_x_gradient", "integrated_gradients", "occlusion", "grad_cam")
METHODS = (*COMPOSITES, *COMPARED)
STEPS = 8  # of integrated gradients
BATCH = 24  # pictures a pass of integrated gradients
CELLS = 4  # occluded cells on each side of the neighbourhood of a frame; the rest of the picture is one more

Select = Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True)
class Cases:
    """Judgements of one model, explained together.

    Attributes
    ----------
    model : network in evaluation mode.
    x : float tensor, (N, 1, S, S), its inputs; integrated gradients start from 0, black for a detector.
    select : function from the model's output and the case number of each of its samples, (M,), to the explained number
        of each, (M,): a case may occur several times in a batch, perturbed.
    boxes : (N, 4) array, the frame of each case, ``x1, y1, x2, y2`` in pixels of the input.
    cameras : dotted name of the layer that Grad-CAM reads for each case; none where no layer keeps the picture's
        geometry.
    """

    model: nn.Module
    x: Tensor
    select: Select
    boxes: NDArray[np.float64]
    cameras: tuple[str, ...]

    def numbers(self) -> Tensor:
        """Case numbers 0 to N - 1."""
        return torch.arange(len(self.x), device=self.x.device)

    def blank(self) -> Tensor:
        """Return inputs in which nothing of a frame's size can be seen: blurred by half the frames' median side."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        return blurred(self.x, float(np.median(sides)) / 2)

    def values(self, x: Tensor, numbers: Tensor | None = None) -> Tensor:
        """Explained numbers of a batch."""
        return self.select(self.model(x), self.numbers() if numbers is None else numbers)


def near_boxes(boxes: NDArray[np.float64], size: int, factor: float = 2.0) -> NDArray[np.int64]:
    """Neighbourhood of each frame in whole pixels, (N, 4): `factor` times as wide and high, cut at the picture."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * factor
    low = np.clip(np.floor(centre - half), 0, size - CELLS)
    high = np.clip(np.ceil(centre + half), low + CELLS, size)
    return np.hstack([low, high]).astype(np.int64)


def method_maps(name: str, cases: Cases, gamma: float) -> NDArray[np.float64] | None:
    """Explain all cases by one method.

    Parameters
    ----------
    name : one of `COMPOSITES` or `COMPARED`.
    gamma : of the gamma rule.

    Returns
    -------
    float64 array, (N, S, S), signed; None when the method doesn't fit the architecture.

    Raises
    ------
    ConfigError
        No method has this name.
    """
    if name in COMPOSITES:
        explainer = Explainer(cases.model, name, gamma=gamma)
        return _array(
            explainer.explain(cases.x, lambda output: cases.select(output, cases.numbers()), ledger=False).relevance
        )
    if name not in COMPARED:
        raise ConfigError(
            f"explain.faithfulness.methods in config.yaml: '{name}' isn't known; choose of {', '.join(METHODS)}"
        )
    found = _compared(name, cases)
    return None if found is None else _array(found)


def _array(maps: Tensor) -> NDArray[np.float64]:
    return maps[:, 0].detach().double().cpu().numpy()


def _compared(name: str, cases: Cases) -> Tensor | None:
    more = (cases.numbers(),)
    if name == "input_x_gradient":
        return InputXGradient(cases.values).attribute(cases.x.clone().requires_grad_(), additional_forward_args=more)
    if name == "integrated_gradients":
        method = IntegratedGradients(cases.values)
        batch = max(len(cases.x), BATCH)
        return method.attribute(cases.x, n_steps=STEPS, additional_forward_args=more, internal_batch_size=batch)
    return _occlusion(cases) if name == "occlusion" else _grad_cam(cases)


def _occlusion(cases: Cases) -> Tensor:
    """Spread what each cell's loss of detail changes evenly over the cell."""
    cells = _cells(cases)
    with torch.no_grad():
        changes = FeatureAblation(cases.values).attribute(
            cases.x, baselines=cases.blank(), feature_mask=cells, additional_forward_args=(cases.numbers(),)
        )
    sizes = torch.stack([torch.bincount(cell.ravel(), minlength=CELLS**2 + 1) for cell in cells])
    return changes / sizes.gather(1, cells.flatten(1)).reshape(cells.shape)


def _grad_cam(cases: Cases) -> Tensor | None:
    if not cases.cameras:
        return None
    found = torch.zeros_like(cases.x)
    for name in sorted(set(cases.cameras)):
        method = LayerGradCam(cases.values, cases.model.get_submodule(name))
        x = cases.x.clone().requires_grad_()
        seen = method.attribute(x, additional_forward_args=(cases.numbers(),), relu_attributions=True)
        enlarged = LayerAttribution.interpolate(seen, tuple(cases.x.shape[2:]), "bilinear").detach()
        mine = torch.tensor([camera == name for camera in cases.cameras], device=found.device)
        found[mine] = enlarged[mine].to(found)
    return found


def _cells(cases: Cases) -> Tensor:
    """Cell of each pixel, (N, 1, S, S): a grid about the frame, and everything else as cell 0."""
    size = cases.x.shape[-1]
    cells = torch.zeros((len(cases.x), 1, size, size), dtype=torch.long, device=cases.x.device)
    for cell, (x1, y1, x2, y2) in zip(cells, near_boxes(cases.boxes, size, 1.5), strict=True):
        rows = torch.arange(y2 - y1, device=cells.device) * CELLS // (y2 - y1)
        columns = torch.arange(x2 - x1, device=cells.device) * CELLS // (x2 - x1)
        cell[0, y1:y2, x1:x2] = 1 + rows[:, None] * CELLS + columns[None, :]
    return cells


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Pictures without detail, (N, 1, S, S): blurred by a Gaussian of standard deviation `sigma`, pixels."""
    reach = max(1, round(3 * sigma))
    weights = torch.exp(-((torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device) / sigma) ** 2) / 2)
    weights /= weights.sum()
    padded = nn.functional.pad(x, (reach, reach, reach, reach), mode="replicate")
    down = nn.functional.conv2d(padded, weights[None, None, :, None])
    return nn.functional.conv2d(down, weights[None, None, None, :])
