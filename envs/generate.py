"""Write envs/<stage>.yaml, one conda environment a stage, with the versions of requirements.lock.

`uv run envs/locked.py python envs/generate.py`; a test fails when a file differs from what this would write.
"""

import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOCK = HERE.parent / "requirements.lock"
PYTHON = "3.11"

TABLES = ["pandas", "pandera", "pyarrow", "numpy"]
PIXELS = ["pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls",
          "opencv-python-headless", "scipy", "pillow"]  # fmt: skip
DETECTOR = ["torch", "torchvision", "ultralytics", "ensemble-boxes", "safetensors", "opencv-python-headless"]
CLASSIFIER = ["torch", "torchvision", "timm", "safetensors", "scikit-learn", "scipy", "opencv-python-headless"]
STAGES = {
    "phantom": [*TABLES, *PIXELS, "imagecodecs"],
    "index": [*TABLES, *PIXELS],
    "labels": [*TABLES, "defusedxml"],
    "images": [*TABLES, *PIXELS],
    "detect": [*TABLES, *DETECTOR],
    "crops": [*TABLES, "opencv-python-headless", "pillow"],
    "classify": [*TABLES, *CLASSIFIER],
    "explain": [*TABLES, *DETECTOR, *CLASSIFIER, "captum", "matplotlib"],
    "anatomy": [*TABLES, "opencv-python-headless"],
    "report": [*TABLES, "scikit-learn", "matplotlib", "jinja2", "jsonschema", "pillow", "opencv-python-headless"],
    "diagnose": [*TABLES, *PIXELS, *DETECTOR, *CLASSIFIER],
}
SHARED = ["pyyaml", "jsonschema"]  # mammoflow's own modules, in every stage


def locked_versions(lock: str) -> dict[str, str]:
    """Versions by package of a lock's text; the first pin that holds for PYTHON where there are several."""
    versions: dict[str, str] = {}
    for name, version, marker in re.findall(r"^([a-z0-9._-]+)==([^\s;\\]+)(?: ; ([^\\\n]+))?", lock, re.MULTILINE):
        later_only = re.search(r"python_full_version >= '3\.1[2-9]|sys_platform == 'never'", marker)
        if not later_only:
            versions.setdefault(name, version)
    return versions


def environment(stage: str, lock: str) -> str:
    """Text of a stage's environment file.

    Python from conda-forge, the packages from the Python registry: the very files whose versions the lock pins.
    """
    versions = locked_versions(lock)
    packages = sorted({*STAGES[stage], *SHARED})
    pins = "\n".join(f"      - {name}=={versions[name]}" for name in packages)
    return (
        f"# Stage {stage}. Written by envs/generate.py from requirements.lock; edit there.\n"
        f"channels:\n  - conda-forge\n  - nodefaults\ndependencies:\n  - python={PYTHON}\n  - pip\n  - pip:\n{pins}\n"
    )


def main() -> None:
    """Write every stage's file."""
    lock = LOCK.read_text("utf-8")
    for stage in STAGES:
        (HERE / f"{stage}.yaml").write_text(environment(stage, lock), encoding="utf-8")


if __name__ == "__main__":
    main()
