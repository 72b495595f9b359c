"""The tables between stages: names, units, dtypes and allowed values of their columns; reading and writing them.

All are tab-separated text with a header; an empty cell means unknown. Boxes are half-open pixels of the stored image
(see `mammoflow.boxes`). `read` and `write` refuse a table that doesn't fit its schema.
"""

from pathlib import Path

import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from mammoflow.errors import DataError
from mammoflow.files import whole_file

STATUSES = ["ok", "excluded"]
IMAGE_LABELS = ["positive", "negative", "unknown"]
LATERALITIES = ["L", "R", ""]
FINDINGS = ["lesion", "nipple"]
PATHOLOGIES = ["malignant", "benign", "unknown", ""]
DENSITY_NAMES = ["a", "b", "c", "d", "fatty", "fatty_glandular", "dense_glandular"]
LESION_TYPES = [
    "mass_spiculated",
    "mass_ill_defined",
    "mass_circumscribed",
    "calcifications",
    "architectural_distortion",
    "asymmetry",
    "other",
    "nipple",
    "unknown",
]
CROP_LABELS = ["malignant", "benign"]
PROTOCOLS = ["out_of_fold", "paper"]
SCREEN_REASONS = ["", "off_breast", "label", "nipple", "duplicate"]
HALVES = ["upper", "lower", "inner", "outer", "indeterminate"]
QUADRANTS = ["upper_outer", "upper_inner", "lower_outer", "lower_inner", "indeterminate"]
MAP_PARTS = ["score", "left", "top", "right", "bottom"]
MAP_METHODS = [
    "control_blob",
    "control_random",
    "epsilon",
    "epsilon_gamma_flat",
    "zplus",
    "input_x_gradient",
    "integrated_gradients",
    "occlusion",
    "grad_cam",
]
MAP_FLAGS = ["", "outside_breast", "no_relevance", "not_explained"]
EXTERNAL_FOLD = -1  # fold of patients whom no fold model ever saw; also the model fold of an ensemble of all folds


def _text(description: str, allowed: list[str] | None = None, pattern: str | None = None) -> pa.Column:
    checks = []
    if allowed is not None:
        checks.append(pa.Check.isin(allowed))
    if pattern is not None:
        checks.append(pa.Check.str_matches(pattern))
    return pa.Column(str, checks, coerce=True, description=description)


def _int(description: str, low: int | None = None) -> pa.Column:
    checks = [pa.Check.ge(low)] if low is not None else []
    return pa.Column("int64", checks, coerce=True, description=description)


def _float(description: str, low: float | None = None, high: float | None = None) -> pa.Column:
    checks = []
    if low is not None:
        checks.append(pa.Check.ge(low))
    if high is not None:
        checks.append(pa.Check.le(high))
    return pa.Column("float64", checks, nullable=True, coerce=True, description=description)


def _bool(description: str) -> pa.Column:
    return pa.Column(bool, coerce=True, description=description)


def _box(what: str) -> dict[str, pa.Column]:
    return {
        name: _float(f"{what}: {edge} edge, pixels of the stored image")
        for name, edge in (("x1", "left"), ("y1", "top"), ("x2", "right"), ("y2", "bottom"))
    }


def _point(name: str, taught: str, value: str) -> dict[str, pa.Column]:
    return {
        f"{name}_taught": _float(taught, 0),
        f"{name}_value": _float(f"{value}; empty when there is no lesion"),
        f"{name}_low": _float("lower end of its 95 % interval over resamples of patients"),
        f"{name}_high": _float("upper end"),
    }


_ID = r"^[0-9a-z_-]+$"
_IMAGE_ID = _text("image: salted hash of the SOP Instance UID, or of the content for other files", pattern=_ID)
_PATIENT_KEY = _text("patient: salted hash of the patient's id", pattern=r"^[0-9a-z_-]*$")
_DATASET = _text("name of the data set in config.yaml", pattern=_ID)


def _schema(name: str, columns: dict[str, pa.Column]) -> pa.DataFrameSchema:
    return pa.DataFrameSchema(columns, name=name, strict=True, ordered=True)


INDEX = _schema(
    "index",
    {
        "dataset": _DATASET,
        "image_id": _IMAGE_ID,
        "status": _text("`ok` or `excluded`", STATUSES),
        "reason": _text("why excluded: a code, empty when ok"),
        "kind": _text("what is special of the object, by its header: keys of index.policy, empty when nothing is"),
        "patient_key": _PATIENT_KEY,
        "study_key": _text("study: salted hash of the Study Instance UID, empty when unknown"),
        "directory_label": _text("what the directory says of the image", IMAGE_LABELS),
        "image_laterality": _text("breast side, empty when unknown", LATERALITIES),
        "view_position": _text("view as in DICOM (CC, MLO, ...), empty when unknown"),
        "rows": _int("height of the stored image, pixels; 0 when unknown", 0),
        "columns": _int("width of the stored image, pixels; 0 when unknown", 0),
        "bits_stored": _int("bits stored; 0 when unknown", 0),
        "photometric_interpretation": _text("as in DICOM; for other files MONOCHROME2"),
        "presentation_intent": _text("FOR PRESENTATION, FOR PROCESSING or empty"),
        "machine": _text("manufacturer and model, `unknown` when not given"),
        "transfer_syntax_uid": _text("DICOM transfer syntax, empty for other files"),
        "imager_pixel_spacing": _float("mm a pixel at the detector; empty when unknown", 0),
        "size": _int("bytes of the file", 0),
        "mtime_ns": _int("modification time of the file, ns"),
        "content_digest": _text("SHA-256 of the file, 16 hexadecimal digits; empty unless index.verify is content"),
    },
)

# Private: the only table that holds paths. No report, export or message shows it.
SOURCES = _schema("sources", {"image_id": _IMAGE_ID, "path": _text("path of the raw file below the data set's root")})

# Outside results/ and only when deidentify.map asks for it.
IDENTITIES = _schema(
    "identities",
    {
        "image_id": _IMAGE_ID,
        "patient_key": _PATIENT_KEY,
        "study_key": _text("study: salted hash of the Study Instance UID, empty when unknown"),
        "patient_id": _text("Patient ID of the file, empty when it has none"),
        "study_instance_uid": _text("Study Instance UID of the file"),
        "sop_instance_uid": _text("SOP Instance UID of the file"),
        "path": _text("path of the raw file below the data set's root"),
    },
)

LESIONS = _schema(
    "lesions",
    {
        "dataset": _DATASET,
        "image_id": _IMAGE_ID,
        "lesion_id": _text("frame, unique in the data set", pattern=_ID),
        "finding": _text("`lesion` or `nipple`", FINDINGS),
        "pathology": _text("malignant, benign or unknown; empty for a nipple", PATHOLOGIES),
        "lesion_type": _text("kind of lesion", LESION_TYPES),
        **_box("frame, empty when the expert gave none"),
        "source": _text("annotation format it came from"),
        "expert": _bool("whether the detector may learn from it"),
        "flag": _text("doubt about the frame, a code; empty when none"),
    },
)

ROUNDS = _schema(
    "rounds",
    {
        "round": _int("round of mining, 1 for detectors of the expert's frames alone", 1),
        "cohort": _text("data sets"),
        "figure": _text("what was measured"),
        "value": _float("its value, empty when there is nothing to count"),
        "low": _float("lower end of the 95 % interval over resamples of patients"),
        "high": _float("upper end"),
        "count": _int("lesions, frames or images it is a share of", 0),
    },
)

LEARNING = _schema(
    "learning",
    {
        "cohort": _text("data sets"),
        "detector": _text("detector that crops come from"),
        "truth": _text("lesions to be found: the expert's or all", ["expert", "any_lesion"]),
        "false_positives_per_image": _float("rate at which lesions are counted", 0),
        "lesions": _int("lesions to be found", 0),
        **_point(
            "fewer",
            "framed lesions of the expert that a detector without two folds learns from, mean over pairs of folds",
            "share of lesions that detectors without two folds find",
        ),
        **_point(
            "more",
            "framed lesions of the expert that a detector without one fold learns from, mean over folds",
            "share of lesions that detectors without one fold find",
        ),
        **_point("gain", "more_taught less fewer_taught", "more_value less fewer_value, on the same images"),
    },
)

DENSITIES = _schema(
    "densities",
    {
        "dataset": _DATASET,
        "image_id": _IMAGE_ID,
        "density": _text(
            "density of the breast as the truth states it: ACR's a to d, or mini-MIAS' tissue", DENSITY_NAMES
        ),
    },
)

# Hidden truth at pixel level: the evaluation alone reads it.
MASKS = _schema(
    "masks",
    {
        "dataset": _DATASET,
        "image_id": _IMAGE_ID,
        "region": _text("what the mask shows", ["lesion", "pectoral"]),
        **_box("smallest box around the mask"),
        "runs": _text("lengths of alternating runs outside and inside the mask, row by row within the box"),
    },
)

PATIENTS = _schema(
    "patients",
    {
        "dataset": _DATASET,
        "patient_key": _PATIENT_KEY,
        "role": _text("`internal` (cross-validated) or `external` (frozen models only)", ["internal", "external"]),
        "label": _text("positive when one of the patient's images is", IMAGE_LABELS),
        "annotated": _bool("whether the expert framed a lesion of this patient"),
        "fold": _int("fold whose models never see the patient; -1 for external patients", EXTERNAL_FOLD),
        "shard": _text("unit of work that holds the patient's images", pattern=r"^(annotated|other)-\d{3}$"),
    },
)

IMAGES = _schema(
    "images",
    {
        "dataset": _DATASET,
        "image_id": _IMAGE_ID,
        "patient_key": _PATIENT_KEY,
        "status": _text("`ok` or `excluded`", STATUSES),
        "reason": _text("why there is no picture: a code, empty when ok"),
        "png": _text("full-size windowed 8-bit picture, path below the working directory"),
        "train_png": _text("the breast's region at training size, chest wall at the left; see `transform`"),
        "width": _int("width of the stored image, pixels", 0),
        "height": _int("height of the stored image, pixels", 0),
        "transform": _text(
            "stored image -> training picture, JSON of `mammoflow.geometry.Transform`; scale_x < 0: mirrored"
        ),
        **{f"breast_{name}": column for name, column in _box("smallest box around the breast, empty if none").items()},
        "window": _text("window applied, as used: mode and numbers"),
        "pixel_digest": _text("64-bit XXH3 of the stored pixel values, 16 hexadecimal digits"),
        "grey_p05": _float("5th percentile of the breast in the windowed picture, 0..255", 0, 255),
        "grey_p50": _float("median of the breast in the windowed picture, 0..255", 0, 255),
        "grey_p95": _float("95th percentile of the breast in the windowed picture, 0..255", 0, 255),
        "flag": _text(
            "doubts about the picture, empty when none; `side_disagrees`: the chest wall is at the other side; "
            "`repeated_pixels`: another image of the shard has the same (for whole data sets: duplicates.tsv)"
        ),
        "labels_masked": _bool("whether all outside the breast was painted out, text with it"),
    },
)

MASTERS = _schema(
    "masters",
    {
        "dataset": _DATASET,
        "image_id": _IMAGE_ID,
        "master_png": _text("16-bit picture of the stored image's size before any window, dense tissue bright"),
        "offset": _float("modality value (after rescale) of grey 0; padding is 0 too"),
        "slope": _float("modality value = offset + slope * grey; negative where low values are bright"),
    },
)

TRAINING = _schema(
    "training",
    {
        "dataset": _DATASET,
        "image_id": _IMAGE_ID,
        "patient_key": _PATIENT_KEY,
        "fold": _int("fold of the patient", EXTERNAL_FOLD),
        "train_png": _text("picture at training size"),
        "label_file": _text("YOLO label file of that picture; empty file for an image without frames"),
        "lesions": _int("lesion frames to learn from in the image", 0),
        "nipples": _int("nipple frames in the image", 0),
        "unframed": _int("known lesions in the image without a frame to learn from", 0),
        "pixel_digest": _text("64-bit XXH3 of the stored pixel values, 16 hexadecimal digits"),
    },
)

DUPLICATES = _schema(
    "duplicates",
    {
        "dataset": _DATASET,
        "image_id": _IMAGE_ID,
        "pixel_digest": _text("64-bit XXH3 of the stored pixel values, 16 hexadecimal digits; of several images"),
        "fold": _int("fold of the image's patient, the same for all of a digest", EXTERNAL_FOLD),
    },
)

DETECTIONS = _schema(
    "detections",
    {
        "dataset": _DATASET,
        "image_id": _IMAGE_ID,
        "patient_key": _PATIENT_KEY,
        "detection_id": _text("detection, unique in the study", pattern=_ID),
        "detector": _text("architecture, for example yolov6n"),
        "model_fold": _int("fold whose model framed it: that of the patient, or -1 for the ensemble", EXTERNAL_FOLD),
        "held_out": _bool("whether the model never saw the patient"),
        "finding": _text("`lesion` or `nipple`", FINDINGS),
        "confidence": _float("what the detector says", 0, 1),
        "score": _float("what counts: the confidence, or that weighed against its rivals (`detect.rivals`)", 0, 1),
        **_box("frame"),
        "model_digest": _text("SHA-256 of the weights, 16 hexadecimal digits (several joined by +)"),
    },
)

THRESHOLDS = _schema(
    "thresholds",
    {
        "detector": _text("architecture"),
        "fold": _int("fold whose images it is applied to, -1 for external images", EXTERNAL_FOLD),
        "threshold": _float("lowest score of a mined frame", 0, 1),
        "false_frames_per_image": _float("reached on the images it was chosen on", 0),
        "sensitivity": _float("share of expert lesions found on the images it was chosen on", 0, 1),
        "images": _int("images it was chosen on", 0),
        "lesions": _int("expert lesions it was chosen on", 0),
    },
)

SWEEP = _schema(
    "sweep",
    {
        "point": _int("number of the combination", 0),
        "settings": _text("values of the grid's keys"),
        "sensitivity": _float(
            "on the parts put apart, mean over the report's false positives per image, folds and seeds", 0, 1
        ),
        "lowest": _float("lowest of the folds and seeds", 0, 1),
        "highest": _float("highest of the folds and seeds", 0, 1),
        "at_half": _float("sensitivity at 0.5 false positives per image, mean over folds and seeds", 0, 1),
        "lesions": _int("lesions that were to be found, in all folds and from all seeds", 0),
        "images": _int("images judged, likewise", 1),
    },
)

SWEEP_CLASSIFIERS = _schema(
    "sweep_classifiers",
    {
        "point": _int("number of the combination", 0),
        "settings": _text("values of the grid's keys"),
        "auc": _float("on the parts put apart, each at the epoch the others choose, mean over folds and seeds", 0, 1),
        "lowest": _float("lowest of the folds and seeds", 0, 1),
        "highest": _float("highest of the folds and seeds", 0, 1),
        "crops": _int("crops judged, in all folds and from all seeds", 2),
        "malignant": _int("malignant ones among them", 1),
    },
)

CURVE = _schema(
    "curve",
    {
        "detector": _text("architecture"),
        "fold": _int("fold left out: the others' images were judged; -1 for none left out", EXTERNAL_FOLD),
        "threshold": _float("lowest score of a mined frame", 0, 1),
        "false_frames_per_image": _float("on the images judged", 0),
        "sensitivity": _float("share of expert lesions found on the images judged", 0, 1),
        "precision": _float("share of the frames that find an expert's lesion, empty for no frame", 0, 1),
        "chosen": _bool("whether this is the fold's mining threshold"),
    },
)

SCREENED = _schema(
    "screened",
    {
        "dataset": _DATASET,
        "image_id": _IMAGE_ID,
        "patient_key": _PATIENT_KEY,
        "protocol": _text("how crops were gathered", PROTOCOLS),
        "detection_id": _text("lesion detection at or above the threshold", pattern=_ID),
        "score": _float("the detector's confidence", 0, 1),
        "threshold": _float("lowest score accepted", 0, 1),
        **_box("frame"),
        "breast_share": _float("share of the frame's area on the breast; empty when no breast was found", 0, 1),
        "kept": _bool("whether the frame may become a crop"),
        "reason": _text("why not; empty when kept", SCREEN_REASONS),
    },
)

CROPS = _schema(
    "crops",
    {
        "dataset": _DATASET,
        "crop_id": _text("crop, unique in the study and protocol", pattern=_ID),
        "image_id": _IMAGE_ID,
        "patient_key": _PATIENT_KEY,
        "fold": _int("fold of the patient, -1 for external patients", EXTERNAL_FOLD),
        "protocol": _text("how crops were gathered", PROTOCOLS),
        "label": _text("malignant or benign", CROP_LABELS),
        "origin": _text("`detection` (framed by the machine) or `expert`", ["detection", "expert"]),
        "detection_id": _text("detection it came from; empty for an expert's frame"),
        "lesion_id": _text("expert's frame it matched or is; empty for none"),
        "iou": _float("IoU with that frame", 0, 1),
        "score": _float("the detector's confidence", 0, 1),
        "threshold": _float("lowest score accepted", 0, 1),
        **_box("frame"),
        "crop_x1": _float("crop with margin: left edge, pixels of the stored image"),
        "crop_y1": _float("crop with margin: top edge, pixels of the stored image"),
        "crop_x2": _float("crop with margin: right edge, pixels of the stored image"),
        "crop_y2": _float("crop with margin: bottom edge, pixels of the stored image"),
        "png": _text("the crop, path below the working directory"),
        "model_digest": _text("SHA-256 of the detector's weights; empty for an expert's frame"),
        "config_digest": _text("digest of the settings that made it"),
    },
)

PREDICTIONS = _schema(
    "predictions",
    {
        "dataset": _DATASET,
        "crop_id": _text("crop", pattern=_ID),
        "image_id": _IMAGE_ID,
        "patient_key": _PATIENT_KEY,
        "fold": _int("fold of the patient, -1 for external patients", EXTERNAL_FOLD),
        "protocol": _text("how crops were gathered", PROTOCOLS),
        "classifier": _text("architecture, for example resnet50"),
        "label": _text("malignant or benign", CROP_LABELS),
        "probability": _float("of malignant, as the network says it", 0, 1),
        "calibrated": _float("probability of malignant, calibrated on the training folds' validation part", 0, 1),
        "masked": _float("the same of the crop with its centre hidden: what the surroundings alone tell", 0, 1),
        "model_fold": _int("fold whose model judged it, -1 for the mean of all folds", EXTERNAL_FOLD),
        "model_digest": _text("SHA-256 of the weights, 16 hexadecimal digits (several joined by +)"),
    },
)

FRAMES = _schema(
    "frames",
    {
        "dataset": _DATASET,
        "image_id": _IMAGE_ID,
        "patient_key": _PATIENT_KEY,
        "fold": _int("fold of the patient, -1 for external patients", EXTERNAL_FOLD),
        "protocol": _text("how the crops were gathered that the classifier learnt from", PROTOCOLS),
        "detection_id": _text("lesion detection that is judged", pattern=_ID),
        "detector": _text("architecture, for example yolov6n"),
        "score": _float("the detector's confidence", 0, 1),
        "accepted": _bool("whether it reaches the mining threshold; else it is its image's best"),
        **_box("frame"),
        "classifier": _text("architecture, for example resnet50"),
        "probability": _float("of malignant, as the network says it", 0, 1),
        "calibrated": _float("probability of malignant, calibrated", 0, 1),
        "model_fold": _int("fold whose model judged it, -1 for the mean of all folds", EXTERNAL_FOLD),
        "model_digest": _text("SHA-256 of the classifier's weights, 16 hexadecimal digits (several joined by +)"),
    },
)

_MAPS = {
    "dataset": _DATASET,
    "map_id": _text("map: key of its array in the container beside this table", pattern=_ID),
    "kind": _text("what was explained", ["detection", "crop"]),
    "part": _text("which number of it: its score, or an edge of its frame", MAP_PARTS),
    "model": _text("architecture"),
    "model_fold": _int("fold of the model", EXTERNAL_FOLD),
    "image_id": _IMAGE_ID,
    "explained_id": _text("detection_id or crop_id", pattern=_ID),
    "label": _text("lesion, malignant or benign"),
    "score": _float("confidence or probability explained", 0, 1),
    "explained_value": _float("the logit (or logit difference) that was explained"),
    "conservation_error": _float("|sum of relevance and constants' share - explained value| / |explained value|"),
    "relevance_in_box": _float("share of absolute relevance inside the frame", 0, 1),
    "box_area_share": _float("share of the map's area inside the frame: the share a flat map would have", 0, 1),
    "blob_in_box": _float("share of a blob drawn at the frame by someone who never looked at the model", 0, 1),
    "relevance_on_padding": _float("share of absolute relevance that fell on letterbox padding or off the image", 0, 1),
    **{f"frame_{name}": column for name, column in _box("frame that was explained").items()},
    **_box("source region that the map covers"),
    "reason": _text("why there is no map, and so no figure of it; empty when there is one"),
}

MAPS = _schema("maps", _MAPS)

_ZONES = {
    "lesion": "pixels of the true lesion that the frame finds; empty when it finds none",
    "border": "band inside the breast's outline",
    "pectoral": "pectoral muscle by the truth; empty when unknown",
    "label": "letters and film labels outside the breast",
    "outside": "everything outside the breast, labels included",
}

RELEVANCE = _schema(
    "relevance",
    {
        **_MAPS,
        **{f"on_{zone}": _float(f"share of absolute relevance: {what}", 0, 1) for zone, what in _ZONES.items()},
        **{f"area_{zone}": _float(f"share of the map's area: {what}", 0, 1) for zone, what in _ZONES.items()},
        "blob_on_lesion": _float("share of the control blob on the true lesion's pixels", 0, 1),
        "lesion_type": _text("kind of the true lesion that the frame finds; empty for none", ["", *LESION_TYPES]),
        "flag": _text("doubt about the map, a code; empty when none", MAP_FLAGS),
        "overlay_png": _text("picture, path below the working directory; empty when not drawn"),
    },
)

_FAITHFULNESS = {
    "deletion": "area under the deletion curve: 1 untouched, 0 blurred; low is good",
    "insertion": "area under the insertion curve: 0 blurred, 1 untouched; high is good",
    "mass_in_box": "share of absolute relevance inside the frame",
    "pointing": "1 when the block of most relevance lies in the frame, else 0",
    "stability": "|Pearson| near the frame with the map of the picture with a little noise; high is good",
    "fold_agreement": "|Pearson| near the frame with the map of another fold's model",
    "randomised_head": "|Pearson| near the frame with the map after the head's weights are randomised; low is good",
    "randomised_upper_half": "the same, upper half of the layers",
    "randomised_all": "the same, all layers",
}

FAITHFULNESS = _schema(
    "faithfulness",
    {
        "dataset": _DATASET,
        "kind": _text("what was explained", ["detection", "crop"]),
        "model": _text("architecture"),
        "model_fold": _int("fold of the model", 0),
        "patient_key": _PATIENT_KEY,
        "explained_id": _text("detection_id or crop_id", pattern=_ID),
        "method": _text("way of explaining, or a control that never looked at the model", MAP_METHODS),
        **{name: _float(what) for name, what in _FAITHFULNESS.items()},
    },
)

ANATOMY = _schema(
    "anatomy",
    {
        "dataset": _DATASET,
        "image_id": _IMAGE_ID,
        "patient_key": _PATIENT_KEY,
        "detection_id": _text("lesion detection that is located", pattern=_ID),
        "image_laterality": _text("breast side", LATERALITIES),
        "view_position": _text("view"),
        "nipple_x": _float("nipple, pixels of the stored image"),
        "nipple_y": _float("nipple, pixels of the stored image"),
        "nipple_source": _text("where the nipple is from", ["detector", "outline", "unknown"]),
        "nipple_score": _float("the detector's confidence in the nipple", 0, 1),
        "distance_mm": _float("from the nipple to the frame's centre, mm; empty without spacing", 0),
        "half": _text("half-plane: CC inner or outer, MLO upper or lower", HALVES),
        "quadrant": _text("of the breast, from both views", QUADRANTS),
    },
)

ALL = {
    schema.name: schema
    for schema in (
        INDEX,
        SOURCES,
        IDENTITIES,
        LESIONS,
        MASKS,
        DENSITIES,
        ROUNDS,
        LEARNING,
        PATIENTS,
        IMAGES,
        MASTERS,
        TRAINING,
        DUPLICATES,
        DETECTIONS,
        THRESHOLDS,
        SWEEP,
        SWEEP_CLASSIFIERS,
        CURVE,
        SCREENED,
        CROPS,
        PREDICTIONS,
        FRAMES,
        MAPS,
        RELEVANCE,
        FAITHFULNESS,
        ANATOMY,
    )
}


def empty(schema: pa.DataFrameSchema) -> pd.DataFrame:
    """Return a table of the schema's columns and dtypes without rows."""
    return schema.validate(pd.DataFrame({name: [] for name in schema.columns}))


def from_rows(schema: pa.DataFrameSchema, rows: list[dict]) -> pd.DataFrame:
    """Return a checked table of `rows` (possibly none), columns in the schema's order."""
    if not rows:
        return empty(schema)
    return _checked(schema, pd.DataFrame(rows)[list(schema.columns)], "the rows made here")


def read(schema: pa.DataFrameSchema, path: str | Path) -> pd.DataFrame:
    """Read a tab-separated table and check it.

    Raises
    ------
    DataError
        The file is missing or a column, dtype or value doesn't fit the schema.
    """
    texts = {name: str for name, column in schema.columns.items() if str(column.dtype).startswith("str")}
    try:
        table = pd.read_csv(
            path,
            sep="\t",
            dtype=texts,
            keep_default_na=False,
            na_values={name: [""] for name in schema.columns if name not in texts},
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: can't be read as a {schema.name} table: {error}") from error
    return _checked(schema, table, str(path))


def read_all(schema: pa.DataFrameSchema, paths: list[str] | list[Path]) -> pd.DataFrame:
    """Read several tables of one schema one below the other; no path gives an empty table."""
    tables = [table for path in paths if len(table := read(schema, path))]
    return pd.concat(tables, ignore_index=True) if tables else empty(schema)


def write(schema: pa.DataFrameSchema, table: pd.DataFrame, path: str | Path) -> None:
    """Check `table` and write it whole, tab-separated, rows in the order given."""
    checked = _checked(schema, table, str(path))
    with whole_file(path) as partial:
        checked.to_csv(partial, sep="\t", index=False, lineterminator="\n")


def _checked(schema: pa.DataFrameSchema, table: pd.DataFrame, where: str) -> pd.DataFrame:
    try:
        return schema.validate(table, lazy=True)
    except SchemaErrors as error:
        first = error.failure_cases.iloc[0]
        raise DataError(
            f"{where}: not of the form of table `{schema.name}`: column {first['column']}, {first['check']}, "
            f"found {first['failure_case']!r} ({len(error.failure_cases)} such in all)"
        ) from error


def documentation() -> str:
    """Return docs/tables.md: every column of every table with its dtype and meaning."""
    lines = [
        "# Tables",
        "",
        "Every table between stages, from `workflow/mammoflow/tables.py` "
        "(`uv run envs/locked.py python -m mammoflow.tables > docs/tables.md`). Tab-separated, with a header; an empty "
        "cell means unknown; boxes are half-open `x1, y1, x2, y2` in pixels of the stored image, origin top left.",
    ]
    for schema in ALL.values():
        lines += ["", f"## {schema.name}", "", "| column | dtype | meaning |", "|---|---|---|"]
        for name, column in schema.columns.items():
            dtype = "text" if str(column.dtype).startswith("str") else str(column.dtype)
            lines.append(f"| `{name}` | {dtype} | {column.description} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(documentation())
