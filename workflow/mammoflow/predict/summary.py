"""The figures of a prediction in words, for people."""

from typing import Any

from mammoflow.report.wording import rate_text

TRUTHS = {"expert": "lesions of the expert's classes", "any_lesion": "all lesions"}


def summarise(document: dict[str, Any], overlap: dict[str, int], with_truth: bool) -> str:
    """Return the key figures of a metrics document as Markdown.

    Parameters
    ----------
    document : what `mammoflow.report.metrics.measure` gave.
    overlap : patients and pictures shared with the study that trained the models.
    with_truth : whether the lesions are known.
    """
    counts = document["counts"][0]
    lines = [
        f"# {document['title']}",
        "",
        f"{counts['pictures']} images of {counts['patients']} patients, judged by the frozen models of all folds; "
        f"{sum(row['files'] for row in counts['excluded'])} files left out. Square brackets: 95 % intervals over "
        "resamples of patients. Research use only; not a medical device.",
    ]
    if any(overlap.values()):
        lines += [
            "",
            f"**{overlap['patients']} patients and {overlap['pictures']} pictures of these are in the study that "
            "trained the models: the figures are no test.**",
        ]
    if not with_truth:
        return "\n".join([*lines, "", "No truth was given: detections and scores only.", ""])
    lines += ["", document["verdict"]["text"], "", *_detection(document), *_crops(document), *_verdicts(document)]
    return "\n".join([*lines, "", document["rules"]["hit"], document["rules"]["two_stage"], ""])


def _detection(document: dict[str, Any]) -> list[str]:
    lines = ["## Detection", ""]
    for row in document["detection"]:
        at = row["at_mining_threshold"]
        lines.append(
            f"- {row['detector']}: located {rate_text(at['located'])}, incorrect {rate_text(at['incorrect'])}, "
            f"negative images with a frame {rate_text(at['negative_with_frame'])}, frames per image "
            f"{rate_text(at['frames_per_image'])}"
        )
        for curve in row["froc"]:
            rule = "IoU only" if curve["hit_rule"] == "iou_only" else "report's hit rule"
            points = ", ".join(
                f"{rate_text(point['sensitivity'])} @{point['false_positives_per_image']:g}"
                for point in curve["points"]
            )
            lines.append(f"  - {curve['lesions']} {TRUTHS[curve['truth']]}, {rule}: sensitivity {points}")
    return [*lines, ""]


def _crops(document: dict[str, Any]) -> list[str]:
    lines = ["## Crops", ""]
    for row in document["classification"]:
        lines.append(
            f"- {row['classifier']}: AUC {rate_text(row['roc_auc'])} on {row['crops']} crops ({row['malignant']} "
            f"malignant); shortcut baseline {rate_text(row['shortcut']['roc_auc'])}, centre hidden "
            f"{rate_text(row['masked']['roc_auc'])}, Brier score {rate_text(row['calibration']['brier'])}"
        )
    return [*lines, ""]


def _verdicts(document: dict[str, Any]) -> list[str]:
    lines = ["## Images, breasts and patients", ""]
    for row in document["two_stage"]:
        for level in row["levels"]:
            lines.append(
                f"- {row['detector']} and {row['classifier']}, {level['level']}: AUC {rate_text(level['roc_auc'])} on "
                f"{level['units']} ({level['malignant']} malignant); detector alone "
                f"{rate_text(level['detector_roc_auc'])}"
            )
    return lines
