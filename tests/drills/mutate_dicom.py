"""Damaged DICOM files by the thousand: valid ones of every transfer syntax, mutated by a seed, indexed and rendered.

    uv run envs/locked.py python tests/drills/mutate_dicom.py --count 20000 --seed 1 --json mutations.json

Each file must give a row of the index with status and reason, and a picture or a reason why there is none; without a
crash, within 10 s, and with less than 1 GB on top of what the libraries take (RLIMIT_AS of the process that reads it).
Seconds are CPU time of that process, so that a busy machine makes no file slow; it may wait for twelve times as long.
"""

import argparse
import json
import multiprocessing
import os
import random
import re
import resource
import struct
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import psutil
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

MOST_SECONDS = 10.0
MOST_WAIT = 12 * MOST_SECONDS
MOST_BYTES = 2**30
SHAPE = (40, 32)
ODD_NUMBERS = [0, 1, 2, 7, 8, 9, 12, 15, 16, 17, 32, 64, 255, 4096, 65535]
HUGE = [0, 1, 255, 4096, 16384, 32767, 65535]
VRS = [
    "AE",
    "AT",
    "CS",
    "DA",
    "DS",
    "FD",
    "FL",
    "IS",
    "LO",
    "OB",
    "OW",
    "PN",
    "SH",
    "SL",
    "SQ",
    "SS",
    "UI",
    "UL",
    "UN",
    "US",
    "UT",
]
FUNCTIONS = ["LINEAR", "LINEAR_EXACT", "SIGMOID", "CUBIC", ""]
TEXTS = ["", "nan", "inf", "1e400", "-1", "0", "1e-300", "9" * 16, "abc", "1\\2\\3", "\\", "é"]
WINDOWS = [{"mode": "dicom", "index": 0}, {"mode": "none"}, {"mode": "percentile", "low": 1, "high": 99}]


def valid_files() -> dict[str, bytes]:
    """One small file of each transfer syntax that is read."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    picture = (x * 90 + y * 25 + np.random.default_rng(0).integers(0, 99, SHAPE)).astype(np.uint16)
    grey = (picture >> 4).astype(np.uint8)
    lossless = bytes(imagecodecs.ljpeg_encode(picture, bitspersample=12))
    wavelets = {"level": 0, "reversible": True, "codecformat": "j2k", "bitspersample": 12}
    streams = {
        JPEGBaseline8Bit: imagecodecs.jpeg8_encode(grey, level=95),
        JPEGExtended12Bit: imagecodecs.jpeg_encode(picture, bitspersample=12, level=95),
        JPEGLossless: lossless,
        JPEGLosslessSV1: lossless,
        JPEGLSLossless: imagecodecs.jpegls_encode(picture),
        JPEGLSNearLossless: imagecodecs.jpegls_encode(picture, level=2),
        JPEG2000Lossless: imagecodecs.jpeg2k_encode(picture, **wavelets),
        JPEG2000: imagecodecs.jpeg2k_encode(picture, **wavelets),
        HTJ2KLossless: imagecodecs.htj2k_encode(picture, reversible=True),
        HTJ2KLosslessRPCL: imagecodecs.htj2k_encode(picture, reversible=True),
        HTJ2K: imagecodecs.htj2k_encode(picture, reversible=True),
    }
    native = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
    files = {syntax.name: _file(picture, syntax) for syntax in (*native, RLELossless)}
    return files | {
        syntax.name: _file(grey if syntax == JPEGBaseline8Bit else picture, syntax, bytes(stream))
        for syntax, stream in streams.items()
    }


def _file(picture: np.ndarray, syntax: Any, stream: bytes = b"") -> bytes:
    bits = 8 if picture.dtype == np.uint8 else 12
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.2", "1.2.3.4"
    header.ImageType = ["DERIVED", "PRIMARY", ""]
    header.StudyInstanceUID, header.PatientID, header.Modality = "1.2.3", "p1", "MG"
    header.Manufacturer, header.ImageLaterality, header.ViewPosition = "Maker", "L", "MLO"
    header.PatientOrientation, header.ImagerPixelSpacing = ["A", "R"], [0.07, 0.07]
    header.ViewCodeSequence = [_coded("R-10226", ViewModifierCodeSequence=[])]
    header.Rows, header.Columns = picture.shape
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated = 8 if bits == 8 else 16
    header.BitsStored, header.HighBit, header.PixelRepresentation = bits, bits - 1, 0
    header.RescaleIntercept, header.RescaleSlope = "0", "1"
    header.WindowCenter, header.WindowWidth, header.VOILUTFunction = "2000", "3000", "LINEAR"
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [256, 0, 12], list(range(0, 4096, 16))
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    header.VOILUTSequence = [table]
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntax if syntax != RLELossless else ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    big = ">" if syntax == ExplicitVRBigEndian else "<"
    pixels = encapsulate([stream]) if stream else picture.astype(f"{big}u{picture.itemsize}").tobytes()
    header.add_new("PixelData", "OB" if stream or bits == 8 else "OW", pixels)
    if syntax == RLELossless:
        header.compress(RLELossless, encoding_plugin="pydicom")
    buffer = BytesIO()
    header.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _coded(value: str, **more: Any) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    for keyword, given in more.items():
        setattr(item, keyword, given)
    return item


def truncated(content: bytes, rng: random.Random) -> bytes:
    """Cut the file off."""
    return content[: rng.randrange(len(content))]


def flipped_bits(content: bytes, rng: random.Random) -> bytes:
    """Turn up to 64 bits anywhere behind the preamble."""
    return _flip(content, rng, 132, len(content))


def flipped_header(content: bytes, rng: random.Random) -> bytes:
    """Turn up to 64 bits of the header."""
    return _flip(content, rng, 132, _pixels_at(content))


def flipped_pixels(content: bytes, rng: random.Random) -> bytes:
    """Turn up to 64 bits of the pixels or their codestream."""
    return _flip(content, rng, _pixels_at(content), len(content))


def lying_length(content: bytes, rng: random.Random) -> bytes:
    """Let an element say a length that isn't its own."""
    at, long_form = _element(content, rng)
    lies = [0, 1, 3, 0xFFFE, 0xFFFF] if not long_form else [0, 1, 2**16, 2**31 - 1, 2**32 - 2, 2**32 - 1]
    return _patch(content, at + (8 if long_form else 6), struct.pack("<I" if long_form else "<H", rng.choice(lies)))


def wrong_vr(content: bytes, rng: random.Random) -> bytes:
    """Give an element another value representation."""
    at, _ = _element(content, rng)
    return _patch(content, at + 4, rng.choice(VRS).encode())


def giant_picture(content: bytes, rng: random.Random) -> bytes:
    """Let the header, the codestream or both say other sizes."""
    where = rng.choice(["header", "codestream", "both"])
    rows, columns = rng.choice(HUGE), rng.choice(HUGE)
    if where != "codestream":
        for tag, size in ((b"\x28\x00\x10\x00", rows), (b"\x28\x00\x11\x00", columns)):
            at = content.find(tag)
            content = _patch(content, at + 8, struct.pack("<H", size)) if at >= 0 else content
    if where == "header":
        return content
    jpeg = re.search(rb"\xff[\xc0-\xc3\xf7]\x00[\x0b-\x14][\x02-\x10]", content[_pixels_at(content) :])
    wavelet = content.find(b"\xff\x4f\xff\x51")
    if wavelet >= 0:
        return _patch(content, wavelet + 8, struct.pack(">II", columns * rng.choice([1, 2**15]), rows))
    if jpeg:
        return _patch(content, _pixels_at(content) + jpeg.end(), struct.pack(">HH", rows, columns))
    return content


def nested_sequences(content: bytes, rng: random.Random) -> bytes:
    """Put sequences into sequences, up to 5,000 deep, some never closed."""
    depth = rng.choice([1, 10, 100, 1000, 5000])
    opened = (b"\x54\x00\x20\x02SQ\x00\x00" + b"\xff" * 4 + b"\xfe\xff\x00\xe0" + b"\xff" * 4) * depth
    closed = (b"\xfe\xff\x0d\xe0" + bytes(4) + b"\xfe\xff\xdd\xe0" + bytes(4)) * rng.choice([depth, depth // 2, 0])
    at = max(content.find(b"\x28\x00\x02\x00"), 132)
    return content[:at] + opened + closed + content[at:]


def spliced(content: bytes, rng: random.Random) -> bytes:
    """Take a piece out, or put it in elsewhere."""
    start = rng.randrange(132, len(content))
    piece = content[start : start + rng.choice([1, 2, 8, 100, 1000])]
    to = rng.randrange(132, len(content))
    return (
        content[:to] + piece + content[to:] if rng.random() < 0.5 else content[:start] + content[start + len(piece) :]
    )


def odd_values(content: bytes, rng: random.Random) -> bytes:
    """Write impossible values into a valid file."""
    header = dcmread(BytesIO(content))
    for _ in range(rng.choice([1, 2, 4])):
        choice = rng.randrange(4)
        if choice == 0:
            keyword = rng.choice(["BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel", "PixelRepresentation"])
            setattr(header, keyword, rng.choice(ODD_NUMBERS))
        elif choice == 1:
            keyword = rng.choice(["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "NumberOfFrames"])
            header.add_new(keyword, "LO", rng.choice(TEXTS))
        elif choice == 2:
            header.add_new("VOILUTFunction", "LO", rng.choice(FUNCTIONS))
            header.VOILUTSequence[0].add_new(
                "LUTDescriptor", "US", rng.choices(ODD_NUMBERS, k=rng.choice([0, 1, 3, 4]))
            )
        else:
            keyword = rng.choice(["PixelPaddingValue", "PixelPaddingRangeLimit"])
            header.add_new(keyword, "US", rng.choice(ODD_NUMBERS))
    buffer = BytesIO()
    header.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def bomb(content: bytes, rng: random.Random) -> bytes:
    """Deflate far more than a picture: a few hundred kilobytes that inflate to up to 1 GB."""
    at = content.find(b"1.2.840.10008.1.2.")
    meta = _patch(content[: 132 + 12], 132, content[132:144])
    size = 2 ** rng.choice([26, 28, 30])
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(size // 2**20)) + packer.flush()
    syntax = b"1.2.840.10008.1.2.1.99"
    group = b"\x02\x00\x10\x00UI" + struct.pack("<H", len(syntax)) + syntax
    length = b"\x02\x00\x00\x00UL\x04\x00" + struct.pack("<I", len(group))
    return (meta[:132] if at >= 0 else bytes(128) + b"DICM") + length + group + packed


MUTATIONS = {
    "truncated": (truncated, 10), "flipped bits": (flipped_bits, 10), "flipped bits, header": (flipped_header, 10),
    "flipped bits, pixels": (flipped_pixels, 10), "lying length": (lying_length, 10), "wrong VR": (wrong_vr, 10),
    "giant picture": (giant_picture, 10), "nested sequences": (nested_sequences, 5), "spliced": (spliced, 10),
    "odd values": (odd_values, 10), "deflate bomb": (bomb, 0.1),
}  # fmt: skip


def _pixels_at(content: bytes) -> int:
    return max(content.rfind(b"\xe0\x7f\x10\x00"), content.rfind(b"\x7f\xe0\x00\x10"), 200)


def _flip(content: bytes, rng: random.Random, start: int, end: int) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        changed[rng.randrange(start, end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _element(content: bytes, rng: random.Random) -> tuple[int, bool]:
    """Place of an element (explicit little endian, or what looks like one), and whether its length has 4 bytes."""
    found = list(re.finditer(rb"[\x02\x08\x10\x18\x20\x28\x54\xe0][\x00\x7f]..(?:[A-Z]{2})", content[132:], re.S))
    if not found:
        return rng.randrange(132, len(content) - 12), False
    at = 132 + rng.choice(found).start()
    return at, content[at + 4 : at + 6] in (b"OB", b"OW", b"SQ", b"UN", b"UT")


def _patch(content: bytes, at: int, piece: bytes) -> bytes:
    return content[:at] + piece + content[at + len(piece) :]


def mutated(seed: int, count: int) -> Iterator[tuple[str, str, bytes]]:
    """Yield name of the mutation, transfer syntax and content of `count` files; file n depends on seed and n alone."""
    files = sorted(valid_files().items())
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        name = rng.choices(list(MUTATIONS), [weight for _, weight in MUTATIONS.values()])[0]
        syntax, content = rng.choice(files)
        yield name, syntax, MUTATIONS[name][0](content, rng)


def read_one(path: Path, number: int) -> dict[str, Any]:
    """Index and render a file; what is raised besides the reader's own error is told as `failure`."""
    from mammoflow import tables
    from mammoflow.errors import RenderError
    from mammoflow.images import render
    from mammoflow.index.entries import PatientRule, read_entry
    from mammoflow.index.listing import ListedFile

    started = time.process_time()
    status = path.stat()
    told: dict[str, Any] = {"status": "", "reason": "", "render": "", "failure": ""}
    try:
        file = ListedFile(path.name, status.st_size, status.st_mtime_ns)
        row = read_entry(file, str(path.parent), "dicom", b"salt", PatientRule(), number % 10 == 0)
        row |= {"dataset": "d", "directory_label": "unknown", "size": file.size, "mtime_ns": file.mtime_ns}
        if number % 50 == 0:
            tables.from_rows(tables.INDEX, [row])
        told |= {"status": row["status"], "reason": row["reason"]}
        try:
            render(path, WINDOWS[number % len(WINDOWS)])
            told["render"] = "picture"
        except RenderError as error:
            told["render"] = error.reason
    except BaseException as error:
        told["failure"] = f"{type(error).__name__}: {error}"[:300]
    return told | {"s": time.process_time() - started}


def serve(pipe: Connection, directory: str) -> None:
    """Read files one after another in bounded memory; the process that is started for it."""
    warnings.simplefilter("ignore")
    read_one(Path(directory, "warm.dcm"), 0)  # libraries are loaded before memory is bounded
    with open("/proc/self/statm") as statm:
        taken = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken + MOST_BYTES, taken + MOST_BYTES))
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send(base)
    while (number := pipe.recv()) is not None:
        told = read_one(Path(directory, f"{number}.dcm"), number)
        pipe.send(told | {"mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024})


def cpu_seconds(pid: int | None) -> float:
    """CPU time that a process has taken; 0 when it is no more."""
    try:
        spent = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return spent.user + spent.system


class Reader:
    """A process that reads files, started again when it crashes or hangs."""

    def __init__(self, directory: str):
        self.directory = directory
        Path(directory, "warm.dcm").write_bytes(valid_files()["Explicit VR Little Endian"])
        self.start()

    def start(self) -> None:
        """Start the process."""
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, self.directory), daemon=True)
        self.process.start()
        other.close()
        self.pipe.recv()

    def read(self, number: int) -> dict[str, Any]:
        """Read file `number`; a crash or a hang is its failure."""
        self.pipe.send(number)
        try:
            if self.answers():
                return self.pipe.recv()
            failure = f"hangs for more than {MOST_SECONDS} s"
        except EOFError:
            self.process.join()
            failure = f"crashes, exit code {self.process.exitcode}"
        self.process.kill()
        self.process.join()
        self.start()
        return {"status": "", "reason": "", "render": "", "failure": failure, "s": MOST_SECONDS, "mb": 0.0}

    def answers(self) -> bool:
        """Wait for an answer; False when the process has computed, or this one has waited, for too long."""
        cpu, until = cpu_seconds(self.process.pid), time.monotonic() + MOST_WAIT
        while not self.pipe.poll(1.0):
            if cpu_seconds(self.process.pid) - cpu > MOST_SECONDS or time.monotonic() > until:
                return False
        return True

    def stop(self) -> None:
        """End the process."""
        self.pipe.send(None)
        self.process.join()


def drill(count: int, seed: int, first: int = 0, keep: Path | None = None) -> dict[str, Any]:
    """Run files `first` to `count`; return counts by mutation and outcome, slowest, largest and failures."""
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in MUTATIONS}
    failures, slowest, largest = [], 0.0, 0.0
    with tempfile.TemporaryDirectory(prefix="mammoflow-mutations-") as directory:
        reader = Reader(directory)
        for number, (name, syntax, content) in enumerate(mutated(seed, count)):
            if number < first:
                continue
            path = Path(directory, f"{number}.dcm")
            path.write_bytes(content)
            told = reader.read(number)
            path.unlink()
            slowest, largest = max(slowest, told["s"]), max(largest, told["mb"])
            outcomes[name][f"{told['reason'] or told['status']} -> {told['render']}"] += 1
            if told["failure"] or not told["status"] or (told["status"] == "excluded") != bool(told["reason"]):
                failures.append({"number": number, "mutation": name, "syntax": syntax, "told": told})
                if keep:
                    (keep / f"{seed}-{number}.dcm").write_bytes(content)
        reader.stop()
    return {"count": count - first, "seed": seed, "slowest_s": slowest, "most_mb": largest, "failures": failures,
            "outcomes": {name: dict(counts.most_common()) for name, counts in outcomes.items()}}  # fmt: skip


def main() -> None:
    """Run the drill; exit 1 when a file wasn't taken as it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--first", type=int, default=0, help="number of the first file, to see one again")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file to write the outcomes to")
    parser.add_argument("--keep", type=Path, help="directory for the files that failed")
    asked = parser.parse_args()
    result = drill(asked.count, asked.seed, asked.first, asked.keep)
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(
        f"{result['count']} files: {len(result['failures'])} failures, slowest {result['slowest_s']:.2f} s, "
        f"at most {result['most_mb']:.0f} MB more\n"
    )
    for failure in result["failures"][:20]:
        sys.stdout.write(f"{failure}\n")
    sys.exit(bool(result["failures"]))


if __name__ == "__main__":
    main()
