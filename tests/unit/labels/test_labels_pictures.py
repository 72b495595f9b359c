import pytest

from mammoflow.errors import AnnotationError
from mammoflow.labels.pictures import Pictures


@pytest.fixture
def find(catalogue):
    def found(name, *files):
        picture = Pictures(*catalogue(*files)).named(name, "frames/x.txt")
        return picture and picture.path

    return found


@pytest.mark.parametrize(
    ("name", "files", "path"),
    [
        ("a", ["positive/a.dcm", "positive/b.dcm"], "positive/a.dcm"),
        ("a.dcm", ["positive/a.dcm"], "positive/a.dcm"),
        ("a.png", ["positive/a.dcm"], "positive/a.dcm"),
        ("1.2.840.77", ["raw/1.2.840.77", "raw/1.2.840.78"], "raw/1.2.840.77"),
        ("1.2.840.77", ["raw/1.2.840.77.dcm"], "raw/1.2.840.77.dcm"),
        ("p2/im", ["raw/p1/im.dcm", "raw/p2/im.dcm"], "raw/p2/im.dcm"),
        ("raw/p2/im.dcm", ["raw/p1/im.dcm", "raw/p2/im.dcm"], "raw/p2/im.dcm"),
        ("reader1/a", ["positive/a.dcm"], "positive/a.dcm"),
        ("a", [("old/a.dcm", {"status": "excluded"}), "new/a.dcm"], "new/a.dcm"),
        ("a", [("old/a.dcm", {"status": "excluded"})], None),
    ],
)
def test_an_annotation_finds_the_image_of_its_name(find, name, files, path):
    assert find(name, *files) == path


@pytest.mark.parametrize("name", ["b", "scan.2", "a.xml"])
def test_an_unknown_name_is_refused(find, name):
    with pytest.raises(AnnotationError, match=r"frames/x\.txt: no image of the data set is called"):
        find(name, "scan.dcm", "a.dcm")


@pytest.mark.parametrize("name", ["im", "p3/im"])
def test_an_ambiguous_name_is_refused(find, name):
    with pytest.raises(AnnotationError, match=r"2 images are called `im` \(p1/im\.dcm, p2/im\.dcm\), expected one"):
        find(name, "p1/im.dcm", "p2/im.dcm")


def test_excluded_images_asked_for_are_remembered_once(catalogue):
    pictures = Pictures(*catalogue(("a.dcm", {"status": "excluded"})))
    assert pictures.named("a", "x") is None
    assert pictures.at_path("a.dcm", "x") is None
    assert pictures.unusable == {"i0"}
