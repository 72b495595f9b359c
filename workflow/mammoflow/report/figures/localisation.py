"""Figures 2, 3 and 6: lesions located in whole mammograms, the expert's frame beside the machine's."""

import textwrap

import pandas as pd
from matplotlib.figure import Figure

from mammoflow.boxes import clip, expand
from mammoflow.report.detection import hit_rule, outcomes
from mammoflow.report.figures import panels
from mammoflow.report.figures.style import DETECTION, EXPERT, new, words
from mammoflow.report.froc import judge
from mammoflow.report.study import IMAGE, Cohort, Study, each, framed
from mammoflow.report.wording import percent, rate_text


def comparison(study: Study, metrics: dict) -> Figure:
    """Figure 2: the expert's frames above, the detector's with their confidence below."""
    internal = [cohort for cohort in study.cohorts if cohort.role == "internal"]
    chosen = [_chosen(study, cohort, 4) for cohort in internal]
    if not chosen or chosen[0].empty:
        return words("Figure 2. No lesion framed by the expert was located by the detector.")
    return _two_rows(study, chosen[0], internal[0])


def _chosen(study: Study, cohort: Cohort, count: int) -> pd.DataFrame:
    table = outcomes(study, study.settings["crops"]["detector"], cohort)
    return panels.spread(table[table["outcome"] == "located"], "best_score", count)


def _two_rows(study: Study, images: pd.DataFrame, cohort: Cohort) -> Figure:
    frames = study.frames(study.settings["crops"]["detector"], cohort)
    figure = new(7.4, 5.6)
    axes = figure.subplots(2, len(images), squeeze=False)
    for column, image in enumerate(each(images)):
        panels.show(axes[0, column], image, title=panels.view_name(image))
        panels.expert_frames(axes[0, column], study, image)
        panels.show(axes[1, column], image)
        panels.detected_frames(axes[1, column], frames, image)
    axes[0, 0].set_ylabel("Expert's frames", color="black")
    axes[1, 0].set_ylabel(f"Detections ({study.settings['crops']['detector']})", color="black")
    return figure


def microcalcifications(study: Study, metrics: dict) -> Figure:
    """Figure 3: malignant microcalcifications and the confidence they were found with."""
    detector = study.settings["crops"]["detector"]
    best = max(
        (found for cohort in study.cohorts for found in [_best(study, cohort, detector)] if found),
        key=lambda f: f[0],
        default=None,
    )
    if best is None:
        return words("Figure 3. No malignant microcalcifications were located by the detector.")
    score, image, lesion, detection = best
    region = clip(expand(_around(lesion, detection), 2.2), image.width, image.height)[0]
    figure = new(6.4, 4.0)
    whole, near = figure.subplots(1, 2, width_ratios=[1, 1.25])
    panels.show(whole, image, title=f"Mammogram ({panels.view_name(image)})")
    panels.show(near, image, region, title=f"Microcalcifications, confidence {percent(score)}")
    for axes in (whole, near):
        panels.frame(axes, panels.box_of(lesion), EXPERT)
        panels.frame(axes, panels.box_of(detection), DETECTION, percent(score))
    _legend(figure)
    return figure


def _best(study: Study, cohort: Cohort, detector: str) -> tuple | None:
    """Score, image, lesion and detection of the surest malignant calcifications found; None when there are none."""
    true = framed(cohort.of(study.true_lesions))
    wanted = true[(true["lesion_type"] == "calcifications") & (true["pathology"] == "malignant")]
    wanted = wanted.merge(study.pictures[IMAGE], on=IMAGE)
    frames = study.frames(detector, cohort)
    judged = judge(frames, wanted, wanted.iloc[:0], cohort.of(study.pictures), hit_rule(study))
    if not judged.hit.any():
        return None
    detection = next(each(frames[judged.hit].head(1)))
    image = next(each(panels.of_image(study.pictures, detection)))
    at = int(judged.lesion_score.argmax())
    return detection.score, image, next(each(wanted.iloc[[at]])), detection


def _around(lesion: panels.Row, detection: panels.Row) -> list[float]:
    return [
        min(lesion.x1, detection.x1),
        min(lesion.y1, detection.y1),
        max(lesion.x2, detection.x2),
        max(lesion.y2, detection.y2),
    ]


def _legend(figure: Figure) -> None:
    handles = [
        figure.axes[0].plot([], [], color=color, label=name)[0]
        for color, name in ((EXPERT, "truth"), (DETECTION, "detection"))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)


def external(study: Study, metrics: dict) -> Figure:
    """Figure 6: localisation on the external data sets by the frozen models."""
    cohorts = [cohort for cohort in study.cohorts if cohort.role == "external"]
    chosen = {cohort: _framed_images(study, cohort, 4) for cohort in cohorts}
    if not cohorts:
        return words("Figure 6. The study has no external data set.")
    if all(rows.empty for rows in chosen.values()):
        return words("Figure 6. No image of an external data set got a frame at the mining threshold.")
    figure = new(7.4, 3.4 * len(cohorts))
    for part, cohort in zip(figure.subfigures(len(cohorts), 1, squeeze=False)[:, 0], cohorts, strict=True):
        _cohort_row(part, study, metrics, cohort, chosen[cohort])
    return figure


def _framed_images(study: Study, cohort: Cohort, count: int) -> pd.DataFrame:
    table = outcomes(study, study.settings["crops"]["detector"], cohort)
    frames = study.frames(study.settings["crops"]["detector"], cohort)
    top = frames.groupby(IMAGE)["score"].max().rename("top_score")
    table = table.join(top, on=IMAGE)
    return panels.spread(table[table["frames"] > 0], "top_score", count)


def _cohort_row(part, study: Study, metrics: dict, cohort: Cohort, images: pd.DataFrame) -> None:  # type: ignore[no-untyped-def]
    detector = study.settings["crops"]["detector"]
    entry = next(row for row in metrics["detection"] if row["detector"] == detector and row["cohort"] == cohort.name)
    located = rate_text(entry["at_mining_threshold"]["located"])
    part.suptitle(f"{cohort.name}: lesions located on {located} of the images with one", fontsize=9.5)
    frames = study.frames(detector, cohort)
    axes = part.subplots(1, 4, squeeze=False)[0]
    for panel in axes[len(images) :]:
        panel.set_axis_off()
    for panel, image in zip(axes, each(images), strict=False):
        panels.show(panel, image, title=f"{panels.view_name(image)}\n{textwrap.fill(image.machine, 20)}")
        panels.truth_frames(panel, study, image)
        panels.detected_frames(panel, frames, image)
