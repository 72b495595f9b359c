"""DICOM files to windowed PNGs: this stage, plain pydicom with OpenCV, DCMTK and the I/O floor, on the same files.

    uv run envs/locked.py python benchmarks/dicom.py --json results.json              # seeded files, 13.6 megapixel
    uv run envs/locked.py python benchmarks/dicom.py --dir DIR --json results.json    # any directory of DICOM files

Each method runs in a process of its own per transfer syntax, which converts the first file before the clock starts. In
each round they take turns over the same files: `cpu_ms` and `wall_ms` (per image) are medians of the rounds,
`ratio_vs_plain` and `times_floor` medians of ratios taken inside a round, so that a machine that is slow for a while
is so for all; `ratio_range` is their lowest and highest.

    stage         all that rule images_convert does: breast, digest, full-size and training picture; one thread
    stage+workers the same by `--workers` processes at a time, as a run on as many cores does
    render+write  what plain does, by this project: stored values, window, full-size PNG
    plain         dcmread, apply_modality_lut, apply_voi_lut in float64, 8 bits, cv2.imwrite
    dcmtk         dcmj2pnm or dcml2pnm with the file's first window, a process a file (where they are installed)
    floor         the file read, a picture copied, as many bytes as the PNG's written
    nvimagecodec  render+write with images.jpeg2000: gpu (JPEG 2000 and HTJ2K, where nvImageCodec and a GPU are there)

`pixels_equal` compares the pictures with plain's, pixel by pixel. `times_one_worker` is how much sooner several workers
are done than one by the clock, median and `one_worker_range` over the rounds; `--images` should be a multiple of them.
`first_image_s` is the time from the process's start to its first picture, `first_image_cpu_s` the CPU time of it.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import imagecodecs
import numpy as np
from pydicom import dcmread, uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut

Convert = Callable[[list[Path], Path], None]
METHODS = ("plain", "render+write", "stage", "stage+workers", "floor", "dcmtk", "nvimagecodec")
WINDOW = {"mode": "dicom", "index": 0}
SETTINGS = {"format": "png", "train_size": 1280, "breast_crop": True, "breast_margin": 0.05, "same_side": True}
JPEG_2000_FAMILY = {uid.JPEG2000, uid.JPEG2000Lossless, uid.HTJ2K, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL}
ENCODERS: dict[uid.UID, Callable[[np.ndarray], bytes]] = {
    uid.JPEGLosslessSV1: partial(imagecodecs.jpeg8_encode, lossless=True, predictor=1, bitspersample=12),
    uid.JPEGLSLossless: imagecodecs.jpegls_encode,
    uid.JPEG2000Lossless: partial(
        imagecodecs.jpeg2k_encode, reversible=True, level=0, bitspersample=12, codecformat="j2k"
    ),
    uid.HTJ2KLossless: partial(imagecodecs.htj2k_encode, reversible=True),
}


def main() -> None:
    """Run every method on every transfer syntax, print the rows and write them."""
    arguments = _arguments()
    if arguments.method:
        _report(arguments)
        return
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        folder = Path(arguments.dir) if arguments.dir else _seeded(root / "dicom", arguments)
        rows = []
        groups = {name: files for name, files in _by_syntax(folder).items() if arguments.syntax in uid.UID(name).name}
        for syntax, files in sorted(groups.items()):
            methods = [method for method in METHODS if _available(method, uid.UID(syntax), arguments.workers)]
            measured = _measured(methods, files, root, arguments)
            rows += _rows(uid.UID(syntax).name, measured, root)
    for row in rows:
        print(json.dumps(row))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", help="directory of DICOM files, in place of seeded ones")
    parser.add_argument("--syntax", default="", help="only transfer syntaxes in whose name this occurs")
    parser.add_argument("--images", type=int, default=4, help="seeded files a transfer syntax")
    parser.add_argument("--rows", type=int, default=4096, help="of seeded files")
    parser.add_argument("--columns", type=int, default=3328, help="of seeded files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="of method stage+workers")
    parser.add_argument("--rounds", type=int, default=3, help="over the files, all methods in turn")
    parser.add_argument("--json", help="file to write")
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    parser.add_argument("files", nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args()


def mammogram(rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Half an ellipse of smooth tissue with detector noise on black air: uint16, (rows, columns), 12 bits."""
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    inside = np.clip(1 - (x / (0.55 * columns)) ** 2 - ((y - rows / 2) / (0.42 * rows)) ** 2, 0, None)
    coarse = rng.normal(0, 1, (rows // 16, columns // 16)).astype(np.float32)
    texture = cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC)
    tissue = 800 + 2000 * inside + 200 * texture + rng.normal(0, 15, (rows, columns))
    return np.where(inside > 0, tissue, 0).clip(0, 4095).astype(np.uint16)


def _seeded(folder: Path, arguments: argparse.Namespace) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(arguments.seed)
    for number in range(arguments.images):
        picture = mammogram(arguments.rows, arguments.columns, rng)
        header = _header(picture)
        header.save_as(folder / f"{number}.native.dcm", enforce_file_format=True)
        for syntax, encode in ENCODERS.items():
            header.file_meta.TransferSyntaxUID = syntax
            header.PixelData = encapsulate([bytes(encode(picture))])
            header["PixelData"].VR = "OB"
            header.save_as(folder / f"{number}.{syntax}.dcm", enforce_file_format=True)
        header = _header(picture)
        header.compress(uid.RLELossless, generate_instance_uid=False)
        header.save_as(folder / f"{number}.rle.dcm", enforce_file_format=True)
    return folder


def _header(picture: np.ndarray) -> Dataset:
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = (
        uid.DigitalMammographyXRayImageStorageForPresentation
    )
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = uid.generate_uid()
    header.Rows, header.Columns = picture.shape
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    header.WindowCenter, header.WindowWidth = 2000, 3000
    header.PixelData = picture.tobytes()
    header["PixelData"].VR = "OW"
    return header


def _by_syntax(folder: Path) -> dict[str, list[str]]:
    groups = defaultdict(list)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            header = dcmread(path, stop_before_pixels=True)
            groups[str(header.file_meta.TransferSyntaxUID)].append(str(path))
        except Exception as error:
            print(f"{path.name}: left out: {error}", file=sys.stderr)
    return groups


def _available(method: str, syntax: uid.UID, workers: int) -> bool:
    if method == "stage+workers":
        return workers > 1
    if method == "nvimagecodec":
        found = importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.nvimgcodec")
        return syntax in JPEG_2000_FAMILY and found is not None
    if method == "dcmtk":
        return syntax not in JPEG_2000_FAMILY and shutil.which(_pnm(syntax)) is not None
    return True


def _pnm(syntax: uid.UID) -> str:
    """DCMTK's program that draws files of a transfer syntax."""
    return "dcml2pnm" if syntax in (uid.JPEGLSLossless, uid.JPEGLSNearLossless) else "dcmj2pnm"


def _measured(
    methods: list[str], files: list[str], root: Path, arguments: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Start a process a method, have them take turns, and return what each tells, the rounds' times among it."""
    workers, told = {}, {}
    for method in methods:
        workers[method] = _started(method, files, root, arguments)
        told[method] = _told(workers[method]) | {"rounds": []}
    for _ in range(arguments.rounds):
        for method, worker in workers.items():
            if "failed" not in told[method]:
                told[method]["rounds"].append(_told(worker, "round\n"))
    for method, worker in workers.items():
        if "failed" not in told[method]:
            told[method] |= _told(worker, "end\n")
        worker.communicate()
    return told


def _started(method: str, files: list[str], root: Path, arguments: argparse.Namespace) -> subprocess.Popen[str]:
    out = root / method
    (out / "train").mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "--method", method, "--out", str(out), "--workers", str(arguments.workers)]
    command += ["--started", str(time.time()), *files]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _told(worker: subprocess.Popen[str], asked: str = "") -> dict[str, Any]:
    if asked:
        worker.stdin.write(asked)
        worker.stdin.flush()
    line = worker.stdout.readline()
    return json.loads(line) if line else {"failed": worker.stderr.read().strip().splitlines()[-1]}


def _rows(syntax: str, measured: dict[str, dict[str, Any]], root: Path) -> list[dict[str, Any]]:
    rounds = {method: result.pop("rounds") for method, result in measured.items()}
    rows = []
    for method, result in measured.items():
        row = {"syntax": syntax, "method": method, **result}
        if rounds[method]:
            row |= {name: round(median(one[name] for one in rounds[method]), 1) for name in ("cpu_ms", "wall_ms")}
            row["images_per_s_core"] = round(1000 / row["cpu_ms"], 2)
            row |= _compared(rounds, method)
            row.setdefault("pixels_equal", _same(root / "plain", root / method))
        rows.append(row)
    for method in measured:
        shutil.rmtree(root / method)
    return rows


def _compared(rounds: dict[str, list[dict[str, float]]], method: str) -> dict[str, Any]:
    """Ratios inside the rounds to plain, the floor and one worker, where these could be measured."""
    compared: dict[str, Any] = {}
    if rounds["plain"]:
        ratios = _ratios(rounds, "plain", method)
        compared |= {"ratio_vs_plain": round(median(ratios), 2), "ratio_range": _range(ratios)}
    compared["times_floor"] = round(median(_ratios(rounds, method, "floor")), 2)
    if method == "stage+workers":
        sooner = _ratios(rounds, "stage", method, "wall_ms")
        compared |= {"times_one_worker": round(median(sooner), 2), "one_worker_range": _range(sooner)}
    return compared


def _ratios(rounds: dict[str, list[dict[str, float]]], over: str, under: str, name: str = "cpu_ms") -> list[float]:
    """Divide what one method took by what another took, round by round."""
    return [one[name] / other[name] for one, other in zip(rounds[over], rounds[under], strict=True)]


def _range(ratios: list[float]) -> list[float]:
    return [round(min(ratios), 2), round(max(ratios), 2)]


def _same(expected: Path, found: Path) -> bool | None:
    """Whether all pictures of a directory are those of another; None where the method makes none."""
    names = [path.name for path in found.glob("*.png")]
    if not names:
        return None
    pairs = ((cv2.imread(str(folder / name), cv2.IMREAD_UNCHANGED) for folder in (expected, found)) for name in names)
    return all(np.array_equal(one, other) for one, other in pairs)


def _report(arguments: argparse.Namespace) -> None:
    """Convert the files by one method whenever told to, and print what it took, children included."""
    files, out = [Path(name) for name in arguments.files], Path(arguments.out)
    convert, extra = {"stage": _stage, "stage+workers": _stage_by_workers, "render+write": _render, "plain": _plain,
                      "floor": _floor, "dcmtk": _dcmtk, "nvimagecodec": _nvimagecodec,
                      }[arguments.method](arguments.workers)  # fmt: skip
    convert(files[:1], out)
    first = {"first_image_s": round(time.time() - arguments.started, 2), "first_image_cpu_s": round(_cpu(), 2)}
    print(json.dumps({"images": len(files)} | first | extra), flush=True)
    while sys.stdin.readline() == "round\n":
        print(json.dumps(_timed(convert, files, out)), flush=True)
    print(json.dumps({"peak_mib": _peak()}), flush=True)


def _timed(convert: Convert, files: list[Path], out: Path) -> dict[str, float]:
    cpu, wall = _cpu(), time.perf_counter()
    convert(files, out)
    share = 1000 / len(files)
    return {"cpu_ms": (_cpu() - cpu) * share, "wall_ms": (time.perf_counter() - wall) * share}


def _peak() -> int:
    """Most memory of this process or a child, MiB; `ru_maxrss` of a process itself would begin with its parent's."""
    statuses = [Path(f"/proc/{process}/status").read_text("utf-8") for process in ("self", *_workers())]
    alive = [int(re.search(r"VmHWM:\s+(\d+)", status)[1]) for status in statuses]
    return round(max(*alive, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024)


def _cpu() -> float:
    """Seconds of this process, of children that have ended and of those that haven't."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    ticks = [
        Path(f"/proc/{process}/stat").read_text("utf-8").rpartition(")")[2].split()[11:13] for process in _workers()
    ]
    alive = sum(int(tick) for pair in ticks for tick in pair) / os.sysconf("SC_CLK_TCK")
    return alive + sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _workers() -> list[str]:
    """Children of this process that are alive."""
    return [one for file in Path("/proc/self/task").glob("*/children") for one in file.read_text("utf-8").split()]


def _each(one: Callable[[Path, Path], None]) -> Convert:
    def convert(files: list[Path], out: Path) -> None:
        for path in files:
            one(path, out / f"{path.stem}.png")

    return convert


def _stage(_: int) -> tuple[Convert, dict[str, Any]]:
    from mammoflow.images.converting import ShardImage, Target, convert_image

    def convert(files: list[Path], out: Path) -> None:
        target = Target("benchmark", WINDOW, SETTINGS, out, mask_labels=False)
        for path in files:
            convert_image(ShardImage(path.stem, "p", "unknown", "", path, ""), target=target)

    return convert, {}


def _stage_by_workers(workers: int) -> tuple[Convert, dict[str, Any]]:
    pools: list[ProcessPoolExecutor] = []

    def convert(files: list[Path], out: Path) -> None:
        if not pools:  # every worker converts a picture before the clock starts, as a single one does
            spawn = multiprocessing.get_context("spawn")
            pools.append(ProcessPoolExecutor(workers, spawn, _stage_share, (files[:1], out)))
        list(pools[0].map(_stage_share, (files[number::workers] for number in range(workers)), [out] * workers))

    return convert, {"workers": workers}


def _stage_share(files: list[Path], out: Path) -> None:
    _stage(1)[0](files, out)


def _render(_: int, jpeg2000: str = "cpu") -> tuple[Convert, dict[str, Any]]:
    from mammoflow.images.gpu import decoders
    from mammoflow.images.png import encode_png
    from mammoflow.images.rendering import look_up
    from mammoflow.images.stored import read_stored
    from mammoflow.images.windows import grey_table

    def one(path: Path, out: Path) -> None:
        stored = read_stored(path, decoders(jpeg2000))
        table, _ = grey_table(stored, WINDOW, "unknown", np.zeros(2**stored.bits, np.int64))
        out.write_bytes(encode_png(look_up(stored.patterns, table)))

    return _each(one), {}


def _plain(_: int) -> tuple[Convert, dict[str, Any]]:
    def one(path: Path, out: Path) -> None:
        header = dcmread(path)
        x = apply_voi_lut(apply_modality_lut(header.pixel_array, header).astype(np.float64), header)
        bits, signed = header.BitsStored, header.PixelRepresentation
        ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
        low, high = np.sort(apply_modality_lut(ends, header).astype(np.float64))
        grey = (x - low) / (high - low) * 255
        if header.PhotometricInterpretation == "MONOCHROME1":
            grey = 255 - grey
        cv2.imwrite(str(out), np.floor(np.round(grey, 6) + 0.5).astype(np.uint8))

    return _each(one), {}


def _floor(_: int) -> tuple[Convert, dict[str, Any]]:
    def one(path: Path, out: Path) -> None:
        path.read_bytes()
        size = dcmread(path, stop_before_pixels=True)
        picture = np.zeros((size.Rows, size.Columns), np.uint8).copy()
        out.with_suffix(".bin").write_bytes(picture.data[: size.Rows // 6])

    return _each(one), {}


def _dcmtk(_: int) -> tuple[Convert, dict[str, Any]]:
    def one(path: Path, out: Path) -> None:
        program = _pnm(dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)
        subprocess.run([program, "+Wi", "1", "--write-png", str(path), str(out)], check=True, capture_output=True)

    return _each(one), {}


def _nvimagecodec(workers: int) -> tuple[Convert, dict[str, Any]]:
    return _render(workers, jpeg2000="gpu")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    cv2.setNumThreads(1)
    main()
