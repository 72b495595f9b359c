"""How figures are written out, and the words that say how each was counted."""

from typing import Any

from mammoflow.report.detection import hit_rule
from mammoflow.report.faithfulness import DEPENDENT, STABLE
from mammoflow.report.study import Study


def rate_text(rate: dict[str, Any], sign: bool = False, digits: int = 2) -> str:
    """Return a figure with its interval as text: ``0.83 [0.76, 0.89]``; its note when there is no figure."""
    if rate["value"] is None:
        return f"none ({rate['note']})"
    form = f"{{:{'+' if sign else ''}.{digits}f}}"
    if rate["low"] is None:
        return f"{form.format(rate['value'])} [no interval: too few patients]"
    return f"{form.format(rate['value'])} [{form.format(rate['low'])}, {form.format(rate['high'])}]"


def rules(study: Study) -> dict[str, str]:
    """Return how each figure was counted, in words."""
    resamples = study.settings["report"]["bootstrap"]
    rule = hit_rule(study)
    weighed = (
        " A lesion's confidence is weighed before it counts and is shown: the geometric mean of what the detector says "
        "and its share of what it says of all frames in the image and the patient's other breast (detect.rivals)."
    )
    return {
        "hit": f"Report's rule: {rule.words()}. IoU-only rule: the same without the centre.",
        "froc": (
            "Every picture counts, negative ones included; pictures with a target lesion that has no frame are left "
            "out. Lesion sensitivity is the share of target lesions found by at least one detection at the lowest "
            "score whose false positives per image don't exceed the given number. Several detections of one lesion "
            "are no false positives." + (weighed if study.settings["detect"]["rivals"] else "")
        ),
        "truth_expert": (
            "Targets are the lesions the expert framed for the detector. A false positive is a detection that finds "
            "neither such a lesion nor any other true lesion; a detection that finds only another true lesion (a "
            "benign one, which the study wants to mine) is ignored: neither found nor false."
        ),
        "truth_any_lesion": "Targets are all true lesions, benign ones included. A false positive finds none of them.",
        "average_precision": (
            "Area under the precision-recall curve over all points, precision made monotone; each lesion goes to its "
            "highest-scoring detection, further detections of it count as false here."
        ),
        "located": (
            "Of the pictures with an expert's lesion, at the mining threshold of the patient's fold: located, at "
            "least one frame finds an expert's lesion; other_lesion, none does but one finds another true lesion; "
            "incorrect, there are frames and none finds a true lesion; no_frame, there is no frame. The four shares "
            "sum to 1."
        ),
        "negative": "Negative pictures are those whose directory says negative.",
        "mining": (
            "Benign crops that the machine framed on patients without a positive image, against the truth's benign "
            "lesions: precision, share of crops that find one; recall, share of them found by a crop; mean IoU over "
            "the crops that find one."
        ),
        "operating_points": (
            "sensitivity_0.9: the highest threshold with sensitivity of at least 0.9; specificity_0.9: the lowest with "
            "specificity of at least 0.9; each chosen on the other folds' cases (on all internal ones for external "
            "data sets), so what is reached here need not be 0.9; probability_0.5: calibrated probability of 0.5. "
            "Precision is TP / (TP + FP), which the paper's Eq. 1 calls specificity; specificity is TN / (TN + FP)."
        ),
        "two_stage": (
            "An image's score is the highest product of the detector's confidence and the classifier's calibrated "
            "probability over its frames: those at or above the mining threshold, and always its best one; 0 without a "
            "frame. A breast's or patient's score is the highest of its images. An image is malignant when the truth "
            "shows a malignant lesion on it, benign when it shows none and the image's directory doesn't contradict; "
            "a breast or patient is malignant when one of its images is. What can't be known is left out. The "
            "probability behind Brier score, calibration and decision curve comes from a logistic regression on the "
            "score's log odds, fitted on the other folds' images, breasts or patients (for external data sets on all "
            "internal ones)."
        ),
        "calibration": (
            "Temperature fitted by cross-validation inside the training folds, after the class weights of the loss are "
            "undone. Brier score: mean squared distance of probability and truth. Expected error: mean distance of "
            "probability and share of malignant crops over five groups of rising probability. Net benefit: share of "
            "true positives minus share of false positives times t / (1 - t), t being the probability from which one "
            "would act."
        ),
        "comparison": (
            "Difference of AUCs on the same crops: interval over resamples of patients, and DeLong's two-sided test, "
            "which takes crops as independent and is too sure where patients have several."
        ),
        "coco": (
            "faster-coco-eval: mean over IoU of at least 0.50, 0.55 .. 0.95, 101 points of recall, the 100 surest "
            "detections of an image, over all true lesions."
        ),
        "masked": (
            "The middle square of half the crop's side is replaced by the mean grey of the rest, and the classifier, "
            "which never saw such crops, judges it again: what it still tells apart, it tells from the surroundings."
        ),
        "groups": (
            "density: as the truth states it (ACR's a to d, or mini-MIAS' tissue); brightness: thirds of the breast's "
            "median grey among its machine's images, no density; "
            "malignant_type: malignant crops of one type against all benign ones; benign_content: benign crops that "
            "show one type of true lesion, or none, against all malignant ones."
        ),
        "shortcut": (
            "Logistic regression on the frame's area, aspect and position, the detector's score, the crop's mean grey"
            " and the machine, trained in the study's own patient-wise folds on the crops that teach the classifiers. "
            "Clearly better: the interval of the "
            "paired difference of AUCs lies above 0."
        ),
        "nipple": (
            "Found: the best nipple detection reaches the lowest score allowed and finds the true nipple's frame by "
            "the report's rule. Error: mm at the detector between the frames' centres, where there is such a "
            "detection."
        ),
        "relevance": (
            "Blob: what a blob drawn at the frame would have, by someone who never looked at the model; no share of "
            "relevance in a frame or on a lesion that the blob reaches as well says anything of the model. Flagged: "
            "more than half of the relevance lies outside the breast."
        ),
        "faithfulness": (
            "A method passes when its maps change with the weights of the model's upper half (|Pearson| near the frame "
            f"below {DEPENDENT:g}), stay under a little noise (above {STABLE:g}) and pick pixels whose loss lowers the "
            "explained number more than those of a random map. Deletion and insertion go from an eighth of to twice "
            "the frame's area. Few images: differences of a few hundredths mean nothing. RT-DETR isn't tried: it "
            "numbers its queries anew in every picture, so none can be followed to a perturbed one."
        ),
        "interval": (
            f"95 % percentile intervals of {resamples} resamples of patients; null when fewer than half of them give a"
            " figure."
        ),
    }


def percent(share: float) -> str:
    """Percentage as text: ``87 %``; below 1 % one digit that counts, ``0.03 %``: few films make unsure detectors."""
    value = 100 * share
    text = f"{value:.0f}" if value >= 0.95 else f"{float(f'{value:.1g}'):.4f}".rstrip("0").rstrip(".")
    return f"{text} %"
