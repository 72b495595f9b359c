"""Write the conda environments, one a stage, with the versions of requirements.lock.

`uv run envs/locked.py python envs/generate.py`; a test fails when a file differs from what this would write.

`<stage>.yaml` is for a stage without torch. With torch there are two, of which the rules take the one for the study's
`device`: `<stage>.cuda.yaml` has the lock's very files, `<stage>.cpu.yaml` the same versions built without CUDA, which
only PyTorch's own index has. A stage with Ultralytics has a `.post-deploy.sh` beside each, which Snakemake runs in the
new environment: pip would otherwise add opencv-python, which doesn't import without the system's libGL, over the
opencv-python-headless that is there.
"""

import re
from pathlib import Path
from typing import NamedTuple

from packaging.markers import Marker

HERE = Path(__file__).resolve().parent
LOCK = HERE.parent / "requirements.lock"
PYTHON = "3.11"
PLATFORM = {
    "python_version": PYTHON,
    "python_full_version": f"{PYTHON}.0",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}

TABLES = ["pandas", "pandera", "pyarrow", "numpy"]
PIXELS = ["pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls",
          "imagecodecs", "isal", "numba", "opencv-python-headless", "scipy", "pillow", "xxhash"]  # fmt: skip
DETECTOR = ["torch", "torchvision", "ultralytics", "ensemble-boxes", "onnx", "onnxruntime", "safetensors",
            "opencv-python-headless"]  # fmt: skip
CLASSIFIER = ["torch", "torchvision", "timm", "safetensors", "scikit-learn", "scipy", "opencv-python-headless"]
DRAWING = ["matplotlib", "jinja2", "pillow"]
STAGES = {
    "phantom": [*TABLES, *PIXELS],
    "index": [*TABLES, *PIXELS],
    "labels": [*TABLES, "defusedxml"],
    "images": [*TABLES, *PIXELS],
    "detect": [*TABLES, *PIXELS, *DETECTOR],
    "crops": [*TABLES, *PIXELS],
    "mining": [*TABLES, *PIXELS],
    "classify": [*TABLES, *PIXELS, *CLASSIFIER],
    "explain": [*TABLES, *PIXELS, *DETECTOR, *CLASSIFIER, "captum", "matplotlib"],
    "anatomy": [*TABLES, "opencv-python-headless"],
    "report": [*TABLES, *DRAWING, "scipy", "scikit-learn", "faster-coco-eval", "jsonschema", "opencv-python-headless"],
    "predict": [*TABLES, *PIXELS, *DETECTOR, *CLASSIFIER, "defusedxml", "faster-coco-eval"],
    "diagnose": [*TABLES, *PIXELS, *DETECTOR, *CLASSIFIER],
    "verify": TABLES,
}
SHARED = ["pyyaml", "jsonschema"]  # mammoflow's own modules, in every stage
# torch built without CUDA: where it is, and what it doesn't need
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CPU_BUILDS = ("torch", "torchvision")
CUDA_ONLY = re.compile(r"nvidia-(?!ml-py)|cuda-|triton$")
LATE = ("ultralytics",)  # asks for opencv-python


class Pin(NamedTuple):
    """A package of the lock: its version, its files' hashes, and the packages that need it."""

    name: str
    version: str
    hashes: tuple[str, ...]
    needed_by: tuple[str, ...]


def pins(lock: str) -> dict[str, Pin]:
    """List what PLATFORM installs from a lock's text (`uv pip compile --universal --generate-hashes`), by name."""
    found = {}
    for entry in re.split(r"\n(?=[a-z0-9])", lock):
        head = re.match(r"([a-z0-9._-]+)==([^\s;\\]+)(?: ; ([^\\\n]+?))? *\\?\n", entry)
        if head and (not head[3] or Marker(head[3]).evaluate(PLATFORM)):
            hashes = tuple(re.findall(r"--hash=(sha256:[0-9a-f]{64})", entry))
            needed_by = tuple(re.findall(r"^ +#(?: via)? +([a-z0-9._-]+)$", entry, re.MULTILINE))
            found[head[1]] = Pin(head[1], head[2], hashes, needed_by)
    return found


def closure(packages: list[str], locked: dict[str, Pin]) -> dict[str, Pin]:
    """List `packages` and all that they need, by name, in alphabetical order."""
    wanted, more = set(), set(packages)
    while more:
        wanted |= more
        more = {name for name, pin in locked.items() if wanted & set(pin.needed_by)} - wanted
    return {name: locked[name] for name in sorted(wanted)}


def variants(stage: str) -> list[str]:
    """Names of a stage's environments."""
    return [f"{stage}.cpu", f"{stage}.cuda"] if "torch" in STAGES[stage] else [stage]


def packages(name: str, lock: str) -> dict[str, Pin]:
    """List all packages of the environment `name`, by name, in alphabetical order."""
    stage, _, device = name.partition(".")
    found = closure([*STAGES[stage], *SHARED], pins(lock))
    return {name: pin for name, pin in found.items() if device != "cpu" or not CUDA_ONLY.match(name)}


def environment(name: str, lock: str) -> str:
    """Text of the file of environment `name`: Python and pip from conda-forge, the rest at the lock's versions."""
    stage, _, device = name.partition(".")
    build = dict.fromkeys(CPU_BUILDS, "+cpu") if device == "cpu" else {}
    lines = [
        f"{package}=={pin.version}{build.get(package, '')}"
        for package, pin in packages(name, lock).items()
        if package not in LATE
    ]
    if build:
        lines.insert(0, f"--extra-index-url {CPU_INDEX}")
    listed = "\n".join(f"      - {line}" for line in lines)
    return (
        f"# Stage {stage}. Written by envs/generate.py from requirements.lock; edit there.\n"
        f"channels:\n  - conda-forge\n  - nodefaults\ndependencies:\n  - python={PYTHON}\n  - pip\n  - pip:\n{listed}\n"
    )


def post_deploy(name: str, lock: str) -> str:
    """Text of the script that Snakemake runs in the new environment `name`; empty where none is needed."""
    late = [pin for package, pin in packages(name, lock).items() if package in LATE]
    if not late:
        return ""
    entries = "\n".join(
        " \\\n".join([f"{pin.name}=={pin.version}", *(f"    --hash={digest}" for digest in pin.hashes)]) for pin in late
    )
    return (
        "#!/bin/sh\n# Written by envs/generate.py. What asks for opencv-python, installed without it.\n"
        f"python -m pip install --no-deps --require-hashes -r /dev/stdin <<'PINS'\n{entries}\nPINS\n"
    )


def files(lock: str) -> dict[str, str]:
    """Text of every file that is made from a lock's text, by file name."""
    names = [name for stage in STAGES for name in variants(stage)]
    texts = {f"{name}.yaml": environment(name, lock) for name in names}
    return texts | {f"{name}.post-deploy.sh": text for name in names if (text := post_deploy(name, lock))}


def main() -> None:
    """Write all files, and remove those of environments that are no more."""
    texts = files(LOCK.read_text("utf-8"))
    for old in [*HERE.glob("*.yaml"), *HERE.glob("*.post-deploy.sh")]:
        if old.name not in texts:
            old.unlink()
    for name, text in texts.items():
        (HERE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
