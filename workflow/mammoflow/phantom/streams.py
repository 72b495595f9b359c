"""Independent random streams, each named by what it decides: no stream depends on how much another was used."""

import hashlib

import numpy as np


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the generator of `seed` that belongs to `names`, the same whichever others were asked for before.

    Parameters
    ----------
    seed : non-negative integer of the study.
    names : what the stream decides, for example data set, patient, view and ``"tissue"``.
    """
    sha = hashlib.sha256("\x1f".join(str(name) for name in names).encode()).digest()
    words = tuple(int.from_bytes(sha[i : i + 4], "big") for i in range(0, 16, 4))
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=words))


def digest(seed: int, *names: str | int) -> str:
    """Return 12 hexadecimal digits of `seed` and `names`: an identifier that says nothing of them."""
    return hashlib.sha256("\x1f".join(str(part) for part in (seed, *names)).encode()).hexdigest()[:12]
