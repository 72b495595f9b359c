import json
import logging
import math
import time

import pytest

from mammoflow.errors import AnnotationError
from mammoflow.labels.readers import read_lesions, read_truth

EDGES = ["x1", "y1", "x2", "y2"]
YOLO = {"format": "yolo", "path": "frames", "classes": ["malignant", "nipple"]}
VOC = {"format": "voc", "path": "frames"}
COCO = {"format": "coco", "path": "frames.json"}
TABLE = {"format": "table", "path": "truth.tsv"}
HEADER = "path\tfinding\tpathology\tlesion_type\tdensity\tx1\ty1\tx2\ty2\n"


def voc(name="malignant", box=(10, 20, 30, 50), size=(200, 100)):
    edges = "".join(f"<{e}>{v}</{e}>" for e, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return f"<annotation>{sides}<object><name>{name}</name><bndbox>{edges}</bndbox></object></annotation>"


def coco(**changes):
    content = {
        "images": [{"id": 7, "file_name": "a.png", "width": 200, "height": 100}],
        "categories": [{"id": 1, "name": "malignant"}, {"id": 2, "name": "nipple"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 20, 20, 30]}],
    }
    return json.dumps(content | changes)


def coco_annotation(**changes):
    return coco(annotations=[{"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 20, 20, 30]} | changes])


@pytest.fixture
def read(tmp_path, catalogue):
    """Write files below a root and read one entry; the data set has images a.dcm (200 x 100 pixels) and more."""

    def run(entry, files, images=("positive/a.dcm",), expert_classes=("malignant",)):
        for path, text in files.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
        index, sources = catalogue(*images)
        return read_lesions("hospital", tmp_path, [entry], index, sources, list(expert_classes))

    return run


# The same frame in every format: x 10..30, y 20..50 of 200 x 100 pixels (width x height).
SAME_FRAME = {
    "yolo": (YOLO, {"frames/a.txt": "0 0.1 0.35 0.1 0.3\n"}),
    "voc": (VOC, {"frames/a.xml": voc()}),
    "coco": (COCO, {"frames.json": coco()}),
    "table": (TABLE, {"truth.tsv": HEADER + "positive/a.dcm\tlesion\tmalignant\tunknown\tb\t10\t20\t30\t50\n"}),
}


@pytest.mark.parametrize("source", SAME_FRAME)
def test_each_format_gives_the_frame_worked_out_by_hand(read, source):
    row = read(*SAME_FRAME[source]).iloc[0]
    assert [row[edge] for edge in EDGES] == pytest.approx([10, 20, 30, 50], abs=1e-9)
    assert (row["image_id"], row["finding"], row["pathology"], row["source"]) == ("i0", "lesion", "malignant", source)
    assert row["expert"]
    assert row["flag"] == ""


def test_classes_become_finding_and_pathology(read):
    text = "".join(f"{number} 0.{number + 1} 0.5 0.1 0.1\n" for number in range(4))
    entry = {**YOLO, "classes": ["malignant", "benign", "lesion", "nipple"]}
    lesions = read(entry, {"frames/a.txt": text}, expert_classes=["malignant", "unknown"])
    assert list(lesions["finding"]) == ["lesion", "lesion", "lesion", "nipple"]
    assert list(lesions["pathology"]) == ["malignant", "benign", "unknown", ""]
    assert list(lesions["lesion_type"]) == ["unknown", "unknown", "unknown", "nipple"]
    assert list(lesions["expert"]) == [True, False, True, True]
    assert list(lesions["lesion_id"]) == ["i0-0", "i0-1", "i0-2", "i0-3"]


def test_lesions_are_numbered_within_their_image_over_all_entries(tmp_path, catalogue):
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "a.txt").write_text("0 0.1 0.35 0.1 0.3\n")
    (tmp_path / "frames.json").write_text(coco_annotation(category_id=2))
    index, sources = catalogue("a.dcm", "b.dcm")
    lesions = read_lesions("hospital", tmp_path, [YOLO, COCO], index, sources, ["malignant"])
    assert list(lesions["lesion_id"]) == ["i0-0", "i0-1"]


def test_no_frames_give_an_empty_table(read):
    assert len(read(YOLO, {"frames/a.txt": "\n"})) == 0


def test_a_frame_that_sticks_out_by_less_than_a_pixel_is_clipped(read):
    lesions = read(VOC, {"frames/a.xml": voc(box=(-0.9, 0, 20, 100.5))})
    assert lesions[EDGES].iloc[0].tolist() == [0, 0, 20, 100]


@pytest.mark.parametrize(
    "box", [(-1, 0, 20, 50), (0, -7, 20, 50), (150, 0, 201, 50), (0, 50, 20, 101), (300, 1, 310, 9)]
)
def test_a_frame_that_sticks_out_by_a_pixel_is_refused(read, box):
    with pytest.raises(
        AnnotationError, match=r"frames/a\.xml object 1: box .* outside its image of 200 x 100 .*expected inside"
    ):
        read(VOC, {"frames/a.xml": voc(box=box)})


@pytest.mark.parametrize(
    ("entry", "files", "message"),
    [
        (YOLO, {"frames/a.txt": "0 0.1 0.35 0.1\n"}, r"a\.txt line 1: 4 values, expected 5"),
        (YOLO, {"frames/a.txt": "\n0 .1 .3 .1 .3 0.9\n"}, r"a\.txt line 2: 6 values, expected 5"),
        (YOLO, {"frames/a.txt": "2 0.1 0.35 0.1 0.3"}, r"class number `2`, expected 0 to 1 \(malignant, nipple\)"),
        (YOLO, {"frames/a.txt": "-1 0.1 0.35 0.1 0.3"}, "class number `-1`"),
        (YOLO, {"frames/a.txt": "0.5 0.1 0.35 0.1 0.3"}, r"class number `0\.5`"),
        (YOLO, {"frames/a.txt": "0 0.1 x 0.1 0.3"}, "`0.1 x 0.1 0.3`, expected numbers"),
        (YOLO, {"frames/a.txt": "0 0.1 nan 0.1 0.3"}, "expected finite numbers"),
        (YOLO, {"frames/a.txt": "0 0.1 0.35 inf 0.3"}, "expected finite numbers"),
        (YOLO, {"frames/a.txt": "0 0.1 0.35 0 0.3"}, "inverted or empty"),
        (YOLO, {"frames/a.txt": "0 0.1 0.35 -0.1 0.3"}, "inverted or empty"),
        (YOLO, {"frames/a.txt": "0 10 35 10 30"}, "outside its image"),
        (YOLO, {"frames/a.txt": b"\xff\xfe0 0.1"}, r"frames/a\.txt: can't be read \(not UTF-8 text\)"),
        (YOLO, {"frames/b.txt": ""}, r"frames/b\.txt: no image of the data set is called `b`"),
        (YOLO, {"frames/a.md": ""}, r"frames: no \.txt file in it"),
        (YOLO, {"frames/classes.txt": "malignant\n", "frames/a.txt": ""}, r"classes\.txt: 1 classes .* expected the 2"),
        (YOLO, {"frames/classes.txt": "nipple\nmalignant\n", "frames/a.txt": ""}, "in this order"),
        (VOC, {"frames/a.xml": "<annotation><object>"}, r"frames/a\.xml: no plain XML"),
        (VOC, {"frames/a.xml": "<plist/>"}, "XML of `plist`, expected `annotation`"),
        (VOC, {"frames/a.xml": voc("Cyst")}, "class `Cyst`, expected one of malignant, benign, lesion, nipple"),
        (VOC, {"frames/a.xml": voc().replace("xmax", "right")}, "no `bndbox/xmax`"),
        (VOC, {"frames/a.xml": voc(box=(10, "left", 30, 50))}, "object 1: .*expected numbers"),
        (VOC, {"frames/a.xml": voc(box=(30, 20, 10, 50))}, "inverted or empty"),
        (VOC, {"frames/a.xml": voc(box=("nan", 20, 10, 50))}, "expected finite numbers"),
        (VOC, {"frames/a.xml": voc(size=(100, 200))}, "drawn on 100 x 200 pixels, but its image has 200 x 100"),
        (COCO, {"frames.json": "{"}, r"frames\.json: no JSON"),
        (COCO, {"frames.json": "[" * 100_000}, r"frames\.json: no JSON"),
        (COCO, {"frames.json": "[]"}, "no list `images`, expected COCO JSON"),
        (COCO, {"frames.json": coco(categories={})}, "no list `categories`"),
        (
            COCO,
            {"frames.json": coco(images=[{"id": 7}])},
            r"images\[0\]: .* expected an object with `id` and `file_name`",
        ),
        (COCO, {"frames.json": coco(images=[{"id": 7, "file_name": "a.png"}] * 2)}, "id 7 occurs twice"),
        (
            COCO,
            {"frames.json": coco(images=[{"id": 7, "file_name": "c.png"}])},
            "no image of the data set is called `c.png`",
        ),
        (
            COCO,
            {"frames.json": coco(images=[{"id": 7, "file_name": "a.png", "width": 9, "height": 9}])},
            "drawn on 9 x 9",
        ),
        (COCO, {"frames.json": coco_annotation(image_id=8)}, r"annotations\[0\]: image_id 8 isn't among"),
        (COCO, {"frames.json": coco_annotation(category_id=None)}, r"category_id None isn't among"),
        (COCO, {"frames.json": coco_annotation(bbox=[1, 2, 3])}, r"bbox \[1, 2, 3\], expected 4 numbers"),
        (COCO, {"frames.json": coco_annotation(bbox=[1, 2, "3", 4])}, "expected 4 numbers"),
        (COCO, {"frames.json": coco_annotation(bbox=[1, 2, True, 4])}, "expected 4 numbers"),
        (COCO, {"frames.json": coco_annotation(bbox=[1, 2, float("nan"), 4])}, "the number NaN"),
        (COCO, {"frames.json": coco_annotation(bbox=[10, 20, 0, 30])}, "inverted or empty"),
        (TABLE, {"truth.tsv": "path\tfinding\n"}, r"truth\.tsv: no column `pathology`"),
        (
            TABLE,
            {"truth.tsv": HEADER + "a.dcm\tlesion\tmalignant\tunknown\tb\t1\t2\t3\t4\n"},
            "line 2: `a.dcm` is no image",
        ),
        (TABLE, {"truth.tsv": HEADER + "positive/a.dcm\tlesion\tbad\tunknown\tb\t1\t2\t3\t4\n"}, "pathology `bad`"),
        (
            TABLE,
            {"truth.tsv": HEADER + "positive/a.dcm\tlesion\t\tunknown\tb\t1\t2\t3\t4\n"},
            "lesion with pathology ``",
        ),
        (TABLE, {"truth.tsv": HEADER + "positive/a.dcm\tnipple\tbenign\tnipple\tb\t1\t2\t3\t4\n"}, "none for a nipple"),
        (TABLE, {"truth.tsv": HEADER + "positive/a.dcm\tlesion\n"}, "not as many values"),
        (TABLE, {"truth.tsv": HEADER + "positive/a.dcm\tlesion\tbenign\tother\tb\t1\t2\t3\tx\n"}, "expected numbers"),
        (TABLE, {"truth.tsv": HEADER + "positive/a.dcm\tlesion\tbenign\tother\tb\t1\t2\t\t4\n"}, "expected numbers"),
        (TABLE, {}, r"truth\.tsv: can't be read \(No such file"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_and_expectation(read, entry, files, message):
    with pytest.raises(AnnotationError, match=message):
        read(entry, files)


@pytest.mark.parametrize(
    "bomb",
    [
        '<!DOCTYPE a [<!ENTITY x "malignant">]>' + voc("&x;"),
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + voc("&x;"),
    ],
)
def test_xml_entities_are_refused(read, bomb):
    with pytest.raises(AnnotationError, match="no plain XML"):
        read(VOC, {"frames/a.xml": bomb})


MILLION = 1_000_000


@pytest.mark.parametrize(
    ("entry", "file", "content"),
    [
        (YOLO, "frames/a.txt", "".join(f"0 0.1 0.35 0.1 0.{n + 1:07d}\n" for n in range(MILLION))),
        (
            COCO,
            "frames.json",
            coco(annotations=[]).replace(
                '"annotations": []',
                '"annotations": ['
                + ",".join(
                    f'{{"id":{n},"image_id":7,"category_id":1,"bbox":[1,2,3,{1 + n / MILLION}]}}'
                    for n in range(MILLION)
                )
                + "]",
            ),
        ),
    ],
    ids=["yolo", "coco"],
)
def test_a_million_frames_are_refused_at_once(read, entry, file, content):
    started = time.process_time()
    with pytest.raises(AnnotationError, match=r"(line 1001|annotations\[1000\]): more than 1000 frames on one image"):
        read(entry, {file: content})
    assert time.process_time() - started < 10


def test_an_annotation_file_that_would_fill_the_memory_is_refused_unread(read, tmp_path):
    (tmp_path / "frames").mkdir()
    with (tmp_path / "frames" / "a.txt").open("wb") as sparse:
        sparse.truncate(600 << 20)
    with pytest.raises(AnnotationError, match=r"frames/a\.txt: 629145600 bytes, expected .* at most 536870912"):
        read(YOLO, {})


@pytest.mark.parametrize("name", ["../a.dcm", "../../etc/passwd", "/etc/passwd", "$(touch x).png", "a.dcm; rm -rf ."])
def test_a_name_that_leads_elsewhere_finds_no_file(read, name):
    """Names are looked up among the images of the index only; the directories before one just choose among equals."""
    entry = {"id": 7, "file_name": name}
    if name == "../a.dcm":
        assert len(read(COCO, {"frames.json": coco(images=[entry])})) == 1
        return
    with pytest.raises(AnnotationError, match="no image of the data set is called"):
        read(COCO, {"frames.json": coco(images=[entry])})


def test_an_unknown_size_in_voc_is_no_contradiction(read):
    assert len(read(VOC, {"frames/a.xml": voc(size=None)})) == 1
    assert len(read(VOC, {"frames/a.xml": voc(size=(0, 0))})) == 1


def test_a_table_row_without_edges_has_no_box_and_teaches_nobody(read):
    lesions = read(TABLE, {"truth.tsv": HEADER + "positive/a.dcm\tlesion\tmalignant\tother\tb\t\t\t\t\n"})
    row = lesions.iloc[0]
    assert all(math.isnan(row[edge]) for edge in EDGES)
    assert (row["flag"], row["expert"]) == ("no_coordinates", False)


def test_the_same_frame_twice_is_refused_and_both_places_named(read):
    with pytest.raises(AnnotationError, match=r"a\.txt line 3: the same frame as frames/a\.txt line 1"):
        read(YOLO, {"frames/a.txt": "0 0.1 0.35 0.1 0.3\n\n0 0.1 0.35 0.1 0.3\n"})


def test_a_malignant_frame_on_a_negative_image_is_refused(read):
    negative = [("negative/a.dcm", {"directory_label": "negative"})]
    message = r"frames/a\.txt line 1: a malignant lesion on negative/a\.dcm, which lies in the negative directory"
    with pytest.raises(AnnotationError, match=message):
        read(YOLO, {"frames/a.txt": "0 0.1 0.35 0.1 0.3\n"}, images=negative)
    nipple = read(YOLO, {"frames/a.txt": "1 0.1 0.35 0.1 0.3\n"}, images=negative)
    assert list(nipple["finding"]) == ["nipple"]


def test_annotations_of_excluded_images_are_left_out_and_counted(read, caplog):
    images = ["a.dcm", ("b.dcm", {"status": "excluded", "reason": "unreadable_header", "rows": 0, "columns": 0})]
    with caplog.at_level(logging.WARNING, "mammoflow"):
        lesions = read(YOLO, {"frames/a.txt": "", "frames/b.txt": "0 0.1 0.35 0.1 0.3\n"}, images=images)
    assert len(lesions) == 0
    assert "annotations of 1 excluded images are left out" in caplog.text


def test_positive_images_without_a_lesion_are_counted(read, caplog):
    images = ["a.dcm", "b.dcm", "c.dcm", ("d.dcm", {"directory_label": "negative"})]
    with caplog.at_level(logging.WARNING, "mammoflow"):
        read(YOLO, {"frames/a.txt": "0 0.1 0.35 0.1 0.3\n", "frames/b.txt": "1 0.1 0.35 0.1 0.3\n"}, images=images)
    assert "2 usable images of the positive directory have no lesion annotated" in caplog.text


@pytest.mark.parametrize("entry", [YOLO, VOC, COCO, TABLE])
def test_messages_hold_no_path_above_the_root(read, tmp_path, entry):
    files = dict.fromkeys(("frames/a.txt", "frames/a.xml", "frames.json", "truth.tsv"), "nonsense\n")
    with pytest.raises(AnnotationError) as error:
        read(entry, files)
    assert str(tmp_path) not in str(error.value)


def test_truth_is_read_apart_or_copied(tmp_path, catalogue, make_lesions):
    index, sources = catalogue("positive/a.dcm")
    lesions = make_lesions({"image_id": "i0"})
    assert read_truth("hospital", tmp_path, None, index, sources, lesions, ["malignant"]).equals(lesions)
    rows = ["malignant\tmass_spiculated\tb\t10\t20\t30\t50", "benign\tcalcifications\tb\t60\t20\t80\t50"]
    (tmp_path / "truth.tsv").write_text(HEADER + "".join(f"positive/a.dcm\tlesion\t{row}\n" for row in rows))
    truth = read_truth("hospital", tmp_path, TABLE, index, sources, lesions, ["malignant"])
    assert list(truth["lesion_type"]) == ["mass_spiculated", "calcifications"]
    assert list(truth["expert"]) == [True, False]


@pytest.mark.parametrize("source", SAME_FRAME)
def test_annotations_of_absent_images_are_left_out_only_when_asked(tmp_path, catalogue, source):
    entry, files = SAME_FRAME[source]
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    index, sources = catalogue("positive/b.dcm")
    assert len(read_lesions("hospital", tmp_path, [entry], index, sources, ["malignant"], partial=True)) == 0
    with pytest.raises(AnnotationError):
        read_lesions("hospital", tmp_path, [entry], index, sources, ["malignant"])
