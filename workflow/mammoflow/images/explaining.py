"""Why one picture looks as it does: every step from the file to the picture, with its numbers."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.uid import UID

from mammoflow.errors import RenderError
from mammoflow.files import write_bytes, write_text
from mammoflow.images.png import encode_png
from mammoflow.images.rendering import Record, draw
from mammoflow.images.stored import Stored, read_stored
from mammoflow.images.windows import is_inverted, modality_values, padding
from mammoflow.index.headers import describe

BAR = 40  # characters of the longest bar in the text
# What tells how the pixels are meant; none of them identifies a patient
ATTRIBUTES = (
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PhotometricInterpretation",
    "PresentationLUTShape", "RescaleSlope", "RescaleIntercept", "RescaleType", "WindowCenter", "WindowWidth",
    "WindowCenterWidthExplanation",
    "VOILUTFunction", "PixelPaddingValue", "PixelPaddingRangeLimit", "PixelIntensityRelationship",
    "PixelIntensityRelationshipSign", "BurnedInAnnotation", "LossyImageCompression",
)  # fmt: skip
SEQUENCES = ("ModalityLUTSequence", "VOILUTSequence")

Explanation = dict[str, Any]


def explain_image(path: str | Path, window: dict[str, Any], out: str | Path) -> Explanation:
    """Render a file and write what was done to ``explanation.json``, ``explanation.txt`` and ``picture.png``.

    Parameters
    ----------
    path : DICOM, PNG, PGM or TIFF file.
    window : see `mammoflow.images.render`.
    out : directory to write to, made when missing.

    Returns
    -------
    The steps in their order: `header` (attributes that say how pixels are meant; no name, id, date or path), `index`
    (what the index says of it), `stored`, `modality`, `voi`, `inversion`, `padding`, `breast`, `picture` (with the
    count of each of 256 grey levels). Where there is no picture, `refused` holds reason and message instead of the
    steps not reached, and no picture is written.
    """
    out = Path(out)
    told: Explanation = {"window_asked": window} | _of_header(Path(path))
    try:
        stored = read_stored(path)
        told["stored"] = _of_stored(stored)
        picture, record = draw(stored, window, told["index"].get("machine", "unknown"))
        told |= _of_drawing(stored, picture, record)
    except RenderError as error:
        told["refused"] = {"reason": error.reason, "message": str(error).replace(Path(path).name, "the file")}
        picture = None
    write_text(out / "explanation.json", json.dumps(told, indent=1) + "\n")
    write_text(out / "explanation.txt", as_text(told))
    if picture is not None:
        write_bytes(out / "picture.png", encode_png(picture))
    return told


def as_text(told: Explanation) -> str:
    """Return an explanation as lines for a person to read, with a histogram of bars."""
    lines = []
    for step, numbers in told.items():
        lines += ["", step.replace("_", " ").upper()]
        shown = {name: value for name, value in numbers.items() if name != "histogram"}
        lines += [f"  {name.replace('_', ' ')}: {_shown(value)}" for name, value in shown.items()]
    if "picture" in told:
        lines += ["", "GREY LEVELS OF THE PICTURE", *_bars(told["picture"]["histogram"])]
    return "\n".join(lines).lstrip("\n") + "\n"


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _bars(histogram: list[int]) -> list[str]:
    bins = np.reshape(histogram, (16, 16)).sum(axis=1)
    longest = max(int(bins.max()), 1)
    return [
        f"  {16 * n:3d}..{16 * n + 15:3d} {'#' * round(BAR * count / longest)} {count}" for n, count in enumerate(bins)
    ]


def _of_header(path: Path) -> Explanation:
    """Tell what the header says; a file without one (a picture file, or none at all) has nothing to say."""
    try:
        header = dcmread(path, stop_before_pixels=True)
        known = describe(header)._asdict()
        values = {keyword: _plain(header[keyword].value) for keyword in ATTRIBUTES if keyword in header}
        values |= {
            keyword: [_lut(item) for item in header[keyword].value] for keyword in SEQUENCES if keyword in header
        }
    except Exception as error:  # whatever damage there is, the attempt to read the pixels tells of it
        return {"header": {"read": f"no: {type(error).__name__}"}, "index": {}}
    known["transfer_syntax"] = UID(known["transfer_syntax_uid"]).name
    return {"header": values, "index": known}


def _plain(value: Any) -> Any:
    if isinstance(value, str | int | float):
        return value if isinstance(value, int | float) else str(value)
    return [_plain(one) for one in value] if hasattr(value, "__iter__") else str(value)


def _lut(item: Any) -> str:
    entries, first, bits = item.LUTDescriptor
    return f"{entries} entries from value {first} on, {bits} bits"


def _of_stored(stored: Stored) -> Explanation:
    height, width = stored.patterns.shape
    low, high = stored.range()
    return {
        "decoder": stored.decoder,
        "rows": height,
        "columns": width,
        "bits": stored.bits,
        "signed": stored.signed,
        "lowest": low,
        "highest": high,
        "distinct_values": int(np.count_nonzero(_occurring(stored))),
    }


def _occurring(stored: Stored) -> NDArray[np.int64]:
    """Count each pattern, shape (2^bits,)."""
    return np.bincount(stored.patterns.ravel(), minlength=2**stored.bits)


def _of_drawing(stored: Stored, picture: NDArray[np.uint8], record: Record) -> Explanation:
    values, padded, occurring = modality_values(stored), padding(stored), _occurring(stored)
    seen = values[occurring > 0]
    histogram = np.bincount(picture.ravel(), minlength=256)
    method = "ModalityLUTSequence" if "ModalityLUTSequence" in stored.header else "RescaleSlope and RescaleIntercept"
    has_method = "ModalityLUTSequence" in stored.header or "RescaleSlope" in stored.header
    return {
        "modality": {
            "by": method if has_method else "nothing, values stay",
            "lowest": float(seen.min()),
            "highest": float(seen.max()),
            "of_lowest_possible": float(values.min()),
            "of_highest_possible": float(values.max()),
        },
        "voi": json.loads(record.window),
        "inversion": {"inverted": is_inverted(stored), "photometric_interpretation": stored.photometric_interpretation},
        "padding": {
            "values": int(padded.sum()),
            "pixels": int(occurring[padded].sum()),
            "share_of_pixels": round(float(occurring[padded].sum() / stored.patterns.size), 4),
        },
        "breast": {
            "box_x1_y1_x2_y2": list(record.breast_box) if record.breast_box else "none found",
            "chest_wall_at": record.chest_wall or "unknown",
            "grey_percentiles_5_50_95": list(record.greys),
        },
        "picture": {
            "lowest": int(picture.min()),
            "highest": int(picture.max()),
            "mean": round(float(cv2.mean(picture)[0]), 3),
            "black_pixels_share": round(float(histogram[0] / picture.size), 4),
            "white_pixels_share": round(float(histogram[255] / picture.size), 4),
            "pixel_digest": record.pixel_digest,
            "histogram": histogram.tolist(),
        },
    }
