"""The patients of a phantom hospital: who they are, and what is in their breasts."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from pydicom.uid import generate_uid

from mammoflow.phantom.anatomy import Breast, draw_breasts
from mammoflow.phantom.dicom import Header
from mammoflow.phantom.lesions import Lesion, draw_lesion
from mammoflow.phantom.streams import digest, stream

SIDES = ["L", "R"]
BENIGN_COUNTS = [0.65, 0.28, 0.07]  # shares of benign patients with 1, 2, 3 lesions
SECOND_MALIGNANT = 0.12  # share of malignant patients with two malignant lesions
ADDED_BENIGN = 0.25  # share of malignant patients with a benign lesion besides
GOLDEN = (5**0.5 - 1) / 2
DAY = date(2014, 1, 6)  # of the earliest study


@dataclass(frozen=True)
class Patient:
    """A patient's place in the hospital; everything else about her follows from it.

    `kind` is malignant, benign or normal, `number` counts the patients of a kind from 0: more patients of one kind
    move nobody else.
    """

    dataset: str
    seed: int
    kind: str
    number: int
    machine: str

    @property
    def names(self) -> tuple[str | int, ...]:
        """Names of her random streams."""
        return self.dataset, self.kind, self.number

    @property
    def patient_id(self) -> str:
        """Patient ID of her files, unique in the hospital; says nothing of her kind."""
        return f"PHM-{digest(self.seed, *self.names).upper()}"

    @property
    def directory(self) -> str:
        """Directory of her files below the hospital's root, sorted by diagnosis as in the paper."""
        return f"raw/{'positive' if self.kind == 'malignant' else 'negative'}/{self.patient_id}"

    def stream(self, what: str) -> np.random.Generator:
        """Return her random stream for `what`."""
        return stream(self.seed, *self.names, what)


def patients_of(dataset: str, seed: int, counts: dict[str, int], machines: list[str]) -> Iterator[Patient]:
    """Give the patients of each kind, machines in turn."""
    for turn, (kind, count) in enumerate(counts.items()):
        for number in range(count):
            yield Patient(dataset, seed, kind, number, machines[(number + turn) % len(machines)])


def draw_patient(patient: Patient) -> tuple[dict[str, Breast], dict[str, list[Lesion]]]:
    """Draw a patient's breasts and their lesions, by laterality."""
    breasts = draw_breasts(patient.stream("breasts"))
    rng = patient.stream("lesions")
    lesions: dict[str, list[Lesion]] = {side: [] for side in SIDES}
    first = str(rng.choice(SIDES))
    for number, pathology in enumerate(_pathologies(rng, patient.kind)):
        side = first if number == 0 or pathology == "malignant" else str(rng.choice(SIDES))
        turn = _turn(patient) if number == 0 else rng.random()
        lesions[side].append(draw_lesion(rng, pathology, breasts[side], lesions[side], turn))
    return breasts, lesions


def _turn(patient: Patient) -> float:
    """Place of her number in a sequence that fills 0..1 evenly, so that a few patients have kinds in their shares."""
    start = stream(patient.seed, patient.dataset, patient.kind, "turn").random()
    return (start + patient.number * GOLDEN) % 1


def _pathologies(rng: np.random.Generator, kind: str) -> list[str]:
    if kind == "normal":
        return []
    if kind == "benign":
        return ["benign"] * int(rng.choice([1, 2, 3], p=BENIGN_COUNTS))
    second, added = rng.random() < SECOND_MALIGNANT, rng.random() < ADDED_BENIGN
    return ["malignant"] * (1 + second) + ["benign"] * added


def draw_header(patient: Patient, image_laterality: str, view_position: str, instance_number: int) -> Header:
    """Draw what a patient's file says of her; dates and identifiers are the seed's, never today's."""
    rng = patient.stream("header")
    study = DAY + timedelta(days=int(rng.integers(0, 2000)))
    age = int(rng.integers(40, 76))
    time = f"{rng.integers(8, 18):02d}{rng.integers(0, 60):02d}{rng.integers(0, 60):02d}"
    key = [str(part) for part in (patient.seed, *patient.names)]
    view = [image_laterality, view_position]
    return Header(
        patient_id=patient.patient_id,
        patient_name=f"PHANTOM^{patient.patient_id[4:8]}",
        birth_date=f"{study - timedelta(days=int(age * 365.25) + 90):%Y%m%d}",
        age=f"{age:03d}Y",
        study_date=f"{study:%Y%m%d}",
        study_time=time,
        accession_number=digest(patient.seed, *patient.names, "accession").upper(),
        study_uid=generate_uid(entropy_srcs=["study", *key]),
        series_uid=generate_uid(entropy_srcs=["series", *key, *view]),
        sop_instance_uid=generate_uid(entropy_srcs=["instance", *key, *view]),
        instance_number=instance_number,
        image_laterality=image_laterality,
        view_position=view_position,
    )
