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
    return _calibration(_classifiers(metrics), "crops", "")


def decision(metrics: dict) -> Figure:
    """Net benefit by threshold of every classifier on internal crops."""
    return _decision(_classifiers(metrics), "crop", "")


def two_stage_calibration(metrics: dict) -> Figure:
    """Share of malignant ones against the probability of detector and first classifier together, by level."""
    return _calibration(_levels(metrics), "ones", _together(metrics))


def two_stage_decision(metrics: dict) -> Figure:
    """Net benefit by threshold of detector and first classifier together, by level, on internal images."""
    return _decision(_levels(metrics), "one", _together(metrics))


def _calibration(entries: dict[str, dict[str, Any]], what: str, title: str) -> Figure:
    """Draw the calibration of entries, by their names in the legend."""
    figure = new(4.6, 5.0)
    axes = figure.subplots()
    for at, (label, entry) in enumerate(entries.items()):
        groups = [group for group in entry["calibration"]["bins"] if group["malignant_share"]["value"] is not None]
        x = [group["mean_probability"] for group in groups]
        shares = [group["malignant_share"] for group in groups]
        color = LINES[at % len(LINES)]
        axes.plot(x, [share["value"] for share in shares], "o-", color=color, lw=1.4, ms=4, label=label)
        known = [(a, share) for a, share in zip(x, shares, strict=True) if share["low"] is not None]
        axes.vlines([a for a, _ in known], [s["low"] for _, s in known], [s["high"] for _, s in known], color=color)
    if not axes.lines:
        return words(f"There are no {what} whose probability could be checked.")
    axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
    axes.set(xlabel="Mean probability", ylabel=f"Share of malignant {what}", xlim=(0, 1), ylim=(0, 1.01), title=title)
    axes.set_aspect("equal")
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def _decision(entries: dict[str, dict[str, Any]], what: str, title: str) -> Figure:
    """Draw the decision curves of entries, by their names in the legend."""
    figure = new(4.6, 5.0)
    axes = figure.subplots()
    entries = {label: entry for label, entry in entries.items() if entry["decision_curve"]["net_benefit"]}
    if not entries:
        return words("There is no set of both classes.")
    drawn: set[tuple[float, ...]] = set()
    for at, (label, entry) in enumerate(entries.items()):
        curve, color = entry["decision_curve"], LINES[at % len(LINES)]
        _band(axes, curve, "threshold", "net_benefit", color, label, entry)
        if tuple(curve["treat_all"]) not in drawn:  # classifiers judge the same crops, levels differ
            one = f"call every {what} malignant" if not drawn else None
            axes.plot(curve["threshold"], curve["treat_all"], color=GREY, lw=1.2, ls="-.", label=one)
            drawn.add(tuple(curve["treat_all"]))
    axes.axhline(0, color=GREY, lw=0.8, ls=":", label="call none malignant")
    top = max(value for entry in entries.values() for value in entry["decision_curve"]["high"] if value is not None)
    axes.set(xlabel="Probability from which one would act", ylabel="Net benefit", xlim=(0, 1), ylim=(-0.15, top + 0.05))
    axes.set_title(title)
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def two_stage(metrics: dict, what: str) -> Figure:
    """`roc` or `pr` curve of detector and first classifier together, by level, on internal images."""
    levels = [level for level in _levels(metrics).values() if level["roc_auc"]["value"] is not None]
    if not levels:
        return words("There are no images of both classes.")
    figure = new(4.6, 5.0)
    axes = figure.subplots()
    x, y, area = {"roc": ("false_positive_rate", "sensitivity", "roc_auc"), "pr": ("recall", "precision", "pr_auc")}[
        what
    ]
    names = {"roc_auc": "AUC", "pr_auc": "average precision"}
    for at, level in enumerate(levels):
        label = f"{level['level']} ({level['units']}): {names[area]} {rate_text(level[area])}"
        _band(axes, level[f"{what}_curve"], x, y, LINES[at % len(LINES)], label, level)
    axes.set_title(_together(metrics))
    labels = {"roc": ("1 - specificity", "Sensitivity"), "pr": ("Recall (sensitivity)", "Precision")}[what]
    axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def _classifiers(metrics: dict) -> dict[str, dict[str, Any]]:
    """Every classifier's figures on internal crops, by name."""
    internal = [entry for entry in metrics["classification"] if entry["role"] == "internal" and entry["crops"]]
    return {f"{entry['classifier']}, {_name(entry)}": entry for entry in internal}


def _first_two_stage(metrics: dict) -> dict[str, Any]:
    return next((entry for entry in metrics["two_stage"] if entry["role"] == "internal"), {})


def _levels(metrics: dict) -> dict[str, dict[str, Any]]:
    """Figures of detector and first classifier together on internal images, by level."""
    first = _first_two_stage(metrics)
    levels = [level for level in first.get("levels", []) if level["units"]]
    return {f"{level['level']} ({level['units']})": {**level, "role": first["role"]} for level in levels}


def _together(metrics: dict) -> str:
    first = _first_two_stage(metrics)
    return f"{first['detector']} and {first['classifier']}" if first else ""


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
