import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from mammoflow.report import page
from mammoflow.report.figures import FIGURES

TEMPLATES = Path(__file__).parents[3] / "workflow" / "report"
_VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Collects links, sources, ids and alternative texts; notes tags that don't close."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.links, self.ids, self.missing_alt, self.tags = [], [], [], set(), 0, set()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.add(tag)
        if tag not in _VOID:
            self.open.append(tag)
        self.sources += [values["src"]] if "src" in values else []
        self.links += [values["href"]] if "href" in values else []
        self.ids |= {values["id"]} if "id" in values else set()
        self.missing_alt += tag == "img" and not values.get("alt")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def html(made_up, made_up_metrics, drawn, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "index.html"
    page.write(made_up, made_up_metrics, [str(drawn / f"{name}.png") for name in FIGURES], TEMPLATES, path)
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def checked(html):
    checker = Checker()
    checker.feed(html)
    return checker


def test_page_needs_nothing_from_outside(html, checked):
    assert not re.search(r"https?://", html)
    assert not re.search(r"url\(|@import", html)
    assert "script" not in checked.tags
    assert "link" not in checked.tags
    assert all(source.startswith("data:image/") for source in checked.sources)
    assert all(link.startswith("#") for link in checked.links)


def test_page_is_whole(html, checked):
    assert checked.open == []
    assert checked.missing_alt == 0
    assert {link[1:] for link in checked.links} <= checked.ids
    assert set(FIGURES) <= checked.ids


def test_page_says_what_the_metrics_say(html, made_up_metrics):
    assert made_up_metrics["verdict"]["text"] in html
    auc = made_up_metrics["classification"][0]["roc_auc"]
    assert f"<b>{auc['value']:.2f}</b>" in html
    assert "truncated_pixel_data" in html
    assert made_up_metrics["provenance"]["config_digest"] in html
    assert "/secret" not in html


def test_page_of_an_empty_study_escapes_its_title(empty, tmp_path):
    study, metrics = empty[0], empty[1] | {"title": "<script>A & B</script>"}
    for name in FIGURES:
        Image.new("L", (20, 10)).save(tmp_path / f"{name}.png")
    page.write(study, metrics, [str(tmp_path / f"{name}.png") for name in FIGURES], TEMPLATES, tmp_path / "index.html")
    text = (tmp_path / "index.html").read_text("utf-8")
    assert "There is no picture to show." in text
    assert "<script>" not in text
    assert "<h1>&lt;script&gt;A &amp; B&lt;/script&gt;</h1>" in text
    assert "nan" not in re.sub(r"data:image[^\"]*", "", text).lower().split()


def test_flat_settings():
    assert list(page.flat_settings({"a": {"b": 1}, "c": [{"d": "x"}], "e": [1, 2], "f": {}})) == [
        ("a.b", "1"),
        ("c[0].d", '"x"'),
        ("e", "[1, 2]"),
        ("f", "{}"),
    ]
