"""Figures 4 and 5: the nipple, and where in the breast the frames lie."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Wedge

from mammoflow.report.figures import panels
from mammoflow.report.figures.style import DETECTION, NIPPLE, bare, new, words
from mammoflow.report.position import nipples
from mammoflow.report.study import Study, each
from mammoflow.report.wording import percent, rate_text

# Facing the patient: the right breast's outer side is on the reader's left.
# Degrees, counterclockwise from the reader's right.
_WEDGES = {
    "R": {"upper_inner": 0, "upper_outer": 90, "lower_outer": 180, "lower_inner": 270},
    "L": {"upper_outer": 0, "upper_inner": 90, "lower_inner": 180, "lower_outer": 270},
}
_ABBREVIATIONS = {
    "upper_outer": "upper outer",
    "upper_inner": "upper inner",
    "lower_outer": "lower outer",
    "lower_inner": "lower inner",
}


def nipple(study: Study, metrics: dict) -> Figure:
    """Figure 4: the nipple as the detector frames it, and as it is."""
    tables = [nipples(study, cohort) for cohort in study.cohorts[:1]]
    found = tables[0][tables[0]["found"]] if tables else None
    if found is None or found.empty:
        return words("Figure 4. No nipple was found by the detector.")
    chosen = panels.spread(found, "score", 4)
    figure = new(7.4, 3.4)
    axes = figure.subplots(1, 4)
    for panel in axes[len(chosen) :]:
        panel.set_axis_off()
    for panel, image in zip(axes, each(chosen), strict=False):
        panels.show(panel, image, title=panels.view_name(image))
        panels.frame(panel, panels.box_of(image), NIPPLE)
        detected = (image.detected_x1, image.detected_y1, image.detected_x2, image.detected_y2)
        panels.frame(panel, detected, DETECTION, percent(image.score), dashed=True)
    entry = metrics["anatomy"][0]
    figure.suptitle(
        f"Nipple found on {rate_text(entry['nipple_found'])} of the images, "
        f"mean error {rate_text(entry['nipple_error_mm'], digits=1)} mm",
        fontsize=9.5,
    )
    return figure


def quadrants(study: Study, metrics: dict) -> Figure:
    """Figure 5: frames per quadrant of each breast."""
    entries = [entry for entry in metrics["anatomy"] if entry["located_frames"]]
    if not entries:
        return words("Figure 5. No frame was located in the breast.")
    entry = entries[0]
    counts = {(row["image_laterality"], row["quadrant"]): row["frames"] for row in entry["quadrants"]}
    highest = max(1, max(count for (_, quadrant), count in counts.items() if quadrant != "indeterminate"))
    figure = new(6.6, 3.9)
    for axes, (side, name) in zip(figure.subplots(1, 2), (("R", "Right breast"), ("L", "Left breast")), strict=True):
        _scheme(axes, {quadrant: counts[side, quadrant] for quadrant in _WEDGES[side]}, side, highest)
        axes.set_title(f"{name}\n{counts[side, 'indeterminate']} more frames indeterminate")
    return figure


def _scheme(axes: Axes, counts: dict[str, int], side: str, highest: int) -> None:
    for quadrant, start in _WEDGES[side].items():
        share = counts[quadrant] / highest
        color = (1 - 0.85 * share, 1 - 0.55 * share, 1 - 0.28 * share)
        axes.add_patch(Wedge((0, 0), 1, start, start + 90, facecolor=color, edgecolor="#333333", lw=1))
        x, y = (1 if start in (0, 270) else -1), (1 if start in (0, 90) else -1)
        ink = "white" if share > 0.6 else "black"
        axes.text(0.44 * x, 0.44 * y, str(counts[quadrant]), ha="center", va="center", fontsize=15, color=ink)
        axes.text(0.42 * x, 0.22 * y, _ABBREVIATIONS[quadrant], ha="center", va="center", fontsize=7, color=ink)
    axes.add_patch(Circle((0, 0), 0.11, facecolor="#C98F80", edgecolor="#333333", lw=1))
    axes.add_patch(Circle((0, 0), 0.04, facecolor="#9E5F52"))
    axes.set(xlim=(-1.06, 1.06), ylim=(-1.06, 1.06), aspect="equal")
    bare(axes)
