import numpy as np
import pytest
from PIL import Image

from mammoflow.report.figures import FIGURES, draw, panels, relevance, style


@pytest.mark.parametrize("name", FIGURES)
def test_figure_shows_something(drawn, name):
    with Image.open(drawn / f"{name}.png") as picture:
        grey = np.asarray(picture.convert("L"))
    assert min(grey.shape) > 200  # a figure in words is lower: 1.6 inches at 80 dpi
    assert (grey < 128).mean() > 0.005
    assert (drawn / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert b"CreationDate" not in (drawn / f"{name}.pdf").read_bytes()


@pytest.mark.parametrize("name", ["fig05", "fig07"])
def test_same_input_same_bytes(made_up, made_up_metrics, drawn, name, tmp_path):
    draw(name, made_up, made_up_metrics, tmp_path / "a.png", tmp_path / "a.pdf")
    assert (tmp_path / "a.png").read_bytes() == (drawn / f"{name}.png").read_bytes()
    assert (tmp_path / "a.pdf").read_bytes() == (drawn / f"{name}.pdf").read_bytes()


def test_an_empty_study_says_so_in_words(empty):
    study, metrics = empty
    with style.styled():
        for name, function in FIGURES.items():
            figure = function(study, metrics)
            said = [text.get_text() for text in figure.texts]
            assert len(said) == 1, name
            assert said[0].startswith(f"Figure {int(name[3:])}. "), name


def test_quadrants_of_both_breasts(made_up, made_up_metrics):
    with style.styled():
        figure = FIGURES["fig05"](made_up, made_up_metrics)
    counts = {
        (row["image_laterality"], row["quadrant"]): row["frames"] for row in made_up_metrics["anatomy"][0]["quadrants"]
    }
    right, left = figure.axes
    # facing the patient, the right breast's upper outer quadrant is the reader's upper left
    for axes, side, x in ((right, "R", -1), (left, "L", 1)):
        placed = {
            tuple(np.sign(text.get_position()).astype(int)): text.get_text()
            for text in axes.texts
            if text.get_text().isdigit()
        }
        assert placed[x, 1] == str(counts[side, "upper_outer"])
        assert placed[-x, -1] == str(counts[side, "lower_inner"])


def test_the_shortcut_has_the_colour_of_its_protocol(made_up, made_up_metrics):
    own = next(row for row in made_up_metrics["classification"] if row["classifier"] == "resnet50")
    both = made_up_metrics | {"classification": [own, own | {"protocol": "paper"}]}
    lines = FIGURES["fig09"](made_up, both).axes[0].lines
    curves, shortcuts = ([line.get_color() for line in lines if line.get_linestyle() == style] for style in ("-", "-."))
    assert len(set(curves)) == 2
    assert shortcuts == curves


def test_figure_7_shows_the_breast_and_all_of_a_map(made_up):
    row = type("Row", (), {"x1": 5.0, "y1": 40.0, "x2": 60.0, "y2": 130.0})  # beyond the breast at the left and below
    image = next(iter(made_up.pictures.itertuples()))._replace(
        breast_x1=20, breast_y1=20, breast_x2=90, breast_y2=100, width=100, height=120
    )
    x1, y1, x2, y2 = panels.breast_region(image)
    assert x1 > 5
    assert y2 < 120
    assert relevance._around(row, image).tolist() == [5, y1, x2, 120]


def test_overlay_is_placed_without_its_scale(tmp_path):
    picture = np.zeros((50, 80, 3), dtype=np.uint8)
    picture[40:] = 255  # ten rows of scale below a map of 80 x 40
    Image.fromarray(picture).save(tmp_path / "o.png")
    row = type("Row", (), {"x1": 0, "y1": 0, "x2": 160, "y2": 80, "overlay_png": str(tmp_path / "o.png")})
    axes = style.new(2, 2).subplots()
    panels.overlay(axes, row)
    assert axes.images[0].get_array().shape[:2] == (40, 80)
    assert axes.images[0].get_array().max() == 0


def test_spread_takes_both_ends(made_up):
    chosen = panels.spread(made_up.detections.drop_duplicates("image_id"), "score", 3)["score"].tolist()
    scores = made_up.detections.drop_duplicates("image_id")["score"]
    assert (chosen[0], chosen[-1]) == (scores.max(), scores.min())
    assert chosen == sorted(chosen, reverse=True)
