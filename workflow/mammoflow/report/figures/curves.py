"""Figures 9, 10 and 11, and the FROC curves of the page: curves with their patient-bootstrap bands."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mammoflow.report.figures.style import GREY, LINES, new, words
from mammoflow.report.study import Study
from mammoflow.report.wording import rate_text

# timm names of classifiers built on attention; all others count as convolutional.
_TRANSFORMERS = ("vit", "deit", "swin", "beit", "cait", "eva", "maxvit")


def _first(study: Study, transformer: bool) -> str | None:
    names = study.settings["classify"]["architectures"]
    return next((name for name in names if name.startswith(_TRANSFORMERS) == transformer), None)


def cnn_roc(study: Study, metrics: dict) -> Figure:
    """Figure 9: ROC of the first convolutional classifier."""
    return _figure(study, metrics, 9, _first(study, False), "convolutional network", _roc)


def cnn_precision_recall(study: Study, metrics: dict) -> Figure:
    """Figure 10: precision and recall of the first convolutional classifier."""
    return _figure(study, metrics, 10, _first(study, False), "convolutional network", _precision_recall)


def transformer_roc(study: Study, metrics: dict) -> Figure:
    """Figure 11: ROC of the first vision transformer."""
    return _figure(study, metrics, 11, _first(study, True), "vision transformer", _roc)


def _figure(study: Study, metrics: dict, number: int, classifier: str | None, kind: str, draw: Any) -> Figure:
    if classifier is None:
        return words(f"Figure {number}. The study has no {kind} among its classifiers.")
    entries = [row for row in metrics["classification"] if row["classifier"] == classifier]
    entries = [row for row in entries if row["roc_auc"]["value"] is not None]
    if not entries:
        return words(f"Figure {number}. {classifier} judged no set of crops with both classes.")
    figure = new(4.6, 5.2)
    axes = figure.subplots()
    for at, entry in enumerate(entries):
        draw(axes, entry, LINES[at % len(LINES)])
    axes.set_title(f"{classifier}: malignant against benign crops")
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def _name(entry: dict[str, Any]) -> str:
    how = "out of fold" if entry["role"] == "internal" else "external"
    how = "paper's protocol" if entry["protocol"] == "paper" and entry["role"] == "internal" else how
    return f"{entry['cohort']} ({how})"


def _roc(axes: Axes, entry: dict[str, Any], color: str) -> None:
    curve = entry["roc_curve"]
    _band(
        axes,
        curve,
        "false_positive_rate",
        "sensitivity",
        color,
        f"{_name(entry)}: AUC {rate_text(entry['roc_auc'])}",
        entry,
    )
    shortcut = entry["shortcut"]
    if entry["role"] == "internal" and shortcut["roc_curve"]["sensitivity"]:
        line = shortcut["roc_curve"]
        label = f"shortcut baseline, same crops: AUC {rate_text(shortcut['roc_auc'])}"
        axes.plot(line["false_positive_rate"], line["sensitivity"], color=GREY, lw=1.2, ls="-.", label=label)
    axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
    axes.set(xlabel="1 - specificity", ylabel="Sensitivity", xlim=(0, 1), ylim=(0, 1.01), aspect="equal")


def _precision_recall(axes: Axes, entry: dict[str, Any], color: str) -> None:
    curve = entry["pr_curve"]
    text = f"{_name(entry)}: average precision {rate_text(entry['pr_auc'])}"
    _band(axes, curve, "recall", "precision", color, text, entry)
    axes.axhline(entry["malignant"] / entry["crops"], color=color, lw=0.8, ls=":")
    axes.set(xlabel="Recall (sensitivity)", ylabel="Precision", xlim=(0, 1), ylim=(0, 1.01), aspect="equal")


def _band(axes: Axes, curve: dict[str, Any], x: str, y: str, color: str, label: str, entry: dict[str, Any]) -> None:
    style = "-" if entry["role"] == "internal" else "--"
    axes.plot(curve[x], curve[y], color=color, lw=1.8, ls=style, label=label)
    known = [at for at, low in enumerate(curve["low"]) if low is not None]
    low, high = ([curve[bound][at] for at in known] for bound in ("low", "high"))
    if entry["role"] == "internal":
        axes.fill_between([curve[x][at] for at in known], low, high, color=color, alpha=0.15, lw=0)


def froc(metrics: dict, truth: str) -> Figure:
    """FROC curves of every detector and cohort on one truth (`expert` or `any_lesion`), report's hit rule."""
    figure = new(5.6, 5.0)
    axes = figure.subplots()
    for at, entry in enumerate(metrics["detection"]):
        found = next(row for row in entry["froc"] if row["truth"] == truth and row["hit_rule"] == "report")
        label = f"{entry['detector']}, {entry['cohort']} ({entry['role']}, {found['lesions']} lesions)"
        if found["lesions"]:
            curve = found["curve"]
            _band(axes, curve, "false_positives_per_image", "sensitivity", LINES[at % len(LINES)], label, entry)
    if not axes.lines:
        return words("There is no lesion to find.")
    ticks = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]
    axes.set(
        xscale="log", xlim=(0.02, 8), ylim=(0, 1.01), xlabel="False positives per image", ylabel="Lesion sensitivity"
    )
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(color="#DDDDDD", lw=0.6)
    figure.legend(loc="outside lower center", ncols=1)
    return figure
