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
        axes.plot(line["false_positive_rate"], line["sensitivity"], color=color, lw=1.2, ls="-.", label=label)
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


def calibration(metrics: dict) -> Figure:
    """Share of malignant crops against mean calibrated probability, of every classifier on internal crops."""
    figure = new(4.6, 5.0)
    axes = figure.subplots()
    for at, entry in enumerate(_internal(metrics)):
        groups = [group for group in entry["calibration"]["bins"] if group["malignant_share"]["value"] is not None]
        x = [group["mean_probability"] for group in groups]
        shares = [group["malignant_share"] for group in groups]
        y = [share["value"] for share in shares]
        color, label = LINES[at % len(LINES)], f"{entry['classifier']}, {_name(entry)}"
        axes.plot(x, y, "o-", color=color, lw=1.4, ms=4, label=label)
        known = [(a, share) for a, share in zip(x, shares, strict=True) if share["low"] is not None]
        axes.vlines([a for a, _ in known], [s["low"] for _, s in known], [s["high"] for _, s in known], color=color)
    if not axes.lines:
        return words("There is no crop whose probability could be checked.")
    axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
    axes.set(xlabel="Mean calibrated probability", ylabel="Share of malignant crops", xlim=(0, 1), ylim=(0, 1.01))
    axes.set_aspect("equal")
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def decision(metrics: dict) -> Figure:
    """Net benefit by threshold of every classifier on internal crops."""
    figure = new(4.6, 5.0)
    axes = figure.subplots()
    entries = [entry for entry in _internal(metrics) if entry["decision_curve"]["net_benefit"]]
    if not entries:
        return words("There is no set of crops with both classes.")
    for at, entry in enumerate(entries):
        label = f"{entry['classifier']}, {_name(entry)}"
        _band(axes, entry["decision_curve"], "threshold", "net_benefit", LINES[at % len(LINES)], label, entry)
    curve = entries[0]["decision_curve"]
    axes.plot(curve["threshold"], curve["treat_all"], color=GREY, lw=1.2, ls="-.", label="call every crop malignant")
    axes.axhline(0, color=GREY, lw=0.8, ls=":", label="call none malignant")
    top = max(value for entry in entries for value in entry["decision_curve"]["high"] if value is not None)
    axes.set(xlabel="Probability from which one would act", ylabel="Net benefit", xlim=(0, 1), ylim=(-0.15, top + 0.05))
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def two_stage(metrics: dict, what: str) -> Figure:
    """`roc` or `pr` curve of detector and first classifier together, by level, on internal images."""
    first = next((entry for entry in metrics["two_stage"] if entry["role"] == "internal"), None)
    levels = [level for level in first["levels"] if level["roc_auc"]["value"] is not None] if first else []
    if first is None or not levels:
        return words("There are no images of both classes.")
    figure = new(4.6, 5.0)
    axes = figure.subplots()
    x, y, area = {"roc": ("false_positive_rate", "sensitivity", "roc_auc"), "pr": ("recall", "precision", "pr_auc")}[
        what
    ]
    names = {"roc_auc": "AUC", "pr_auc": "average precision"}
    for at, level in enumerate(levels):
        label = f"{level['level']} ({level['units']}): {names[area]} {rate_text(level[area])}"
        _band(axes, level[f"{what}_curve"], x, y, LINES[at % len(LINES)], label, first)
    axes.set_title(f"{first['detector']} and {first['classifier']}")
    labels = {"roc": ("1 - specificity", "Sensitivity"), "pr": ("Recall (sensitivity)", "Precision")}[what]
    axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def _internal(metrics: dict) -> list[dict[str, Any]]:
    return [entry for entry in metrics["classification"] if entry["role"] == "internal" and entry["crops"]]


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
