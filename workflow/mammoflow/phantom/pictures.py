"""Pictures of whole phantom breasts with the frames of what is in them: many, cheap, and of nobody."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mammoflow.phantom.hospital import VIEWS
from mammoflow.phantom.lesions import FAINTNESS
from mammoflow.phantom.machines import MACHINES, Machine
from mammoflow.phantom.patients import Patient, draw_patient
from mammoflow.phantom.picture import Box, View, draw_view
from mammoflow.phantom.streams import stream

KINDS = ("malignant", "benign")  # of patients, in turn; about half of the breasts drawn are free of lesions
VARIED = 0.3  # a machine's response, noise and window differ from those of its make by up to this share


def draw_pictures(seed: int, count: int, rows: int) -> Iterator[tuple[NDArray[np.uint8], list[tuple[str, Box]]]]:
    """Draw one view each of many patients, as many different machines and windows would show them.

    Parameters
    ----------
    seed : of all randomness; picture n is the same whatever `count` is.
    rows : a picture has at least as many.

    Yields
    ------
    The picture, uint8 (H, W), dense tissue bright, and the finding (``lesion`` or ``nipple``) and half-open box
    ``x1, y1, x2, y2``, pixels, of everything in it.
    """
    for number in range(count):
        rng = stream(seed, "picture", number)
        machine = _varied(rng, MACHINES[str(rng.choice(list(MACHINES)))])
        patient = Patient("pretraining", seed, KINDS[number % len(KINDS)], number, machine.name)
        side, view_position = VIEWS[rng.integers(len(VIEWS))]
        breasts, drawn = draw_patient(patient)
        lesions = [replace(one, contrast=one.contrast * rng.uniform(*FAINTNESS)) for one in drawn[side]]
        view = View(side, view_position, seed, patient.names)
        stored, truths, _ = draw_view(view, breasts[side], lesions, machine, max(1.0, rows / machine.rows))
        yield _exposed(rng, stored, machine), [("lesion" if each.lesion else "nipple", each.box) for each in truths]


def _varied(rng: np.random.Generator, machine: Machine) -> Machine:
    """Another machine of the same make. Inversion is left to files: here dense tissue is bright."""
    gamma, noise = (value * np.exp(rng.uniform(-VARIED, VARIED)) for value in (machine.gamma, machine.noise))
    return replace(machine, gamma=gamma, noise=noise, photometric_interpretation="MONOCHROME2")


def _exposed(rng: np.random.Generator, stored: NDArray[np.uint16], machine: Machine) -> NDArray[np.uint8]:
    """Grey levels by one of the machine's windows, its ends moved a little."""
    _, low, high = machine.windows[rng.integers(len(machine.windows))]
    low, high = low + rng.uniform(-VARIED, VARIED) * 0.3, high + rng.uniform(-VARIED, VARIED)
    dark, bright = machine.respond(np.array([low, high], np.float32))
    return np.rint(255 * np.clip((stored - dark) / (bright - dark), 0, 1)).astype(np.uint8)
