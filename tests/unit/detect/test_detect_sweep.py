from mammoflow import tables
from mammoflow.config import sweep_points, sweep_settings
from mammoflow.detect.sweep import rank

SWEEP = {
    "detector": "yolov5n",
    "folds": [0, 2],
    "validation_share": 0.3,
    "grid": {"learning_rate": [0.1, 0.2], "augment.fliplr": [0, 1]},
}


def test_every_combination_is_a_point_laid_over_the_settings():
    assert sweep_points(SWEEP) == [
        {"learning_rate": rate, "augment.fliplr": flip} for rate in (0.1, 0.2) for flip in (0, 1)
    ]
    settings = {"learning_rate": 0.5, "validation_share": 0, "augment": {"fliplr": 0.5, "scale": 0.3}, "epochs": 3}
    assert sweep_settings(settings, SWEEP, 1) == {
        "learning_rate": 0.1, "validation_share": 0.3, "augment": {"fliplr": 1, "scale": 0.3}, "epochs": 3,
    }  # fmt: skip
    assert settings["augment"]["fliplr"] == 0.5


def test_points_are_ranked_by_the_mean_of_their_folds_best_validation(tmp_path):
    figures = {(0, 0): [0.1, 0.4], (0, 2): [0.2, 0.2], (1, 0): [0.9, 0.1], (1, 2): [0.0, 0.3], (2, 0): [0, 0],
               (2, 2): [0, 0], (3, 0): [0.3, 0.3], (3, 2): [0.3, 0.1]}  # fmt: skip
    histories = {}
    for key, column in figures.items():
        histories[key] = tmp_path / f"{key[0]}-{key[1]}.csv"
        histories[key].write_text("epoch,lesion_ap50\n" + "".join(f"{n},{v}\n" for n, v in enumerate(column, start=1)))
    rank(histories, SWEEP, tmp_path / "table.tsv")
    table = tables.read(tables.SWEEP, tmp_path / "table.tsv")
    # means of the best: (0.4 + 0.2) / 2, (0.9 + 0.3) / 2, 0, (0.3 + 0.3) / 2: points 0 and 3 are equal
    assert list(table["point"]) == [1, 0, 3, 2]
    assert table["settings"][0] == "learning_rate=0.1, augment.fliplr=1"
    assert (table["lowest"][0], table["highest"][0], table["folds"][0]) == (0.3, 0.9, 2)
    # equal epochs: the later; means of 1 and 2 are rounded to the even number
    assert list(table["epoch"]) == [2, 2, 2, 2]
