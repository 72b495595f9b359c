"""Command line: ``python -m mammoflow.phantom --help``."""

import argparse
import logging
import sys

from mammoflow.errors import MammoflowError
from mammoflow.phantom.hospital import generate
from mammoflow.phantom.machines import MACHINES


def main() -> int:
    """Make a hospital as the arguments say; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m mammoflow.phantom",
        description="Make a phantom hospital: DICOM mammograms, an expert's annotations and the hidden truth.",
    )
    parser.add_argument("directory", help="where to make it; must not hold a hospital yet")
    parser.add_argument("--name", default="hospital", help="with the seed decides everything (default: %(default)s)")
    parser.add_argument("--patients", type=int, default=54, help="patients, four images each (default: %(default)s)")
    parser.add_argument("--malignant", type=int, help="of them with a malignant lesion (default: four in nine)")
    parser.add_argument("--benign", type=int, help="of the others with benign lesions only (default: two thirds)")
    parser.add_argument(
        "--machines",
        nargs="+",
        default=["alpha", "beta", "gamma"],
        choices=list(MACHINES),
        help="(default: %(default)s)",
    )
    parser.add_argument("--scale", type=float, default=1.0, help="enlarges the matrix of 640 to 880 rows (default: 1)")
    parser.add_argument("--seed", type=int, default=20230817, help="(default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    asked = vars(parser.parse_args())
    if asked["malignant"] is None:
        asked["malignant"] = asked["patients"] * 4 // 9
    if asked["benign"] is None:
        asked["benign"] = (asked["patients"] - asked["malignant"]) * 2 // 3
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        generate(root=asked.pop("directory"), **asked)
    except MammoflowError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
