import hashlib
import hmac
import os
import stat
import subprocess
import sys

import pytest

from mammoflow.errors import ConfigError
from mammoflow.index.keys import key, secret
from mammoflow.index.listing import list_files, listing_digest


@pytest.fixture
def tree(tmp_path):
    for name in ("a/one", "a/deep/two", "b/three"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def test_every_file_once_sorted(tree):
    assert [file.path for file in list_files(str(tree))] == ["a/deep/two", "a/one", "b/three"]
    assert [file.path for file in list_files(str(tree), ["b", "a/deep", "a"])] == ["a/deep/two", "a/one", "b/three"]
    assert [file.path for file in list_files(str(tree), ["b/three"])] == ["b/three"]
    assert list_files(str(tree))[0].size == len("a/deep/two")


def test_links_are_followed_but_not_in_circles(tree, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "four").write_text("4")
    (tree / "b/linked").symlink_to(other)
    (tree / "b/loop").symlink_to(tree)
    (tree / "b/nowhere").symlink_to(tree / "missing")
    names = [file.path for file in list_files(str(tree), ["b"])]
    assert "b/linked/four" in names
    assert "b/nowhere" in names
    assert not any("loop/b/" in name for name in names)


@pytest.mark.parametrize("change", ["add", "remove", "resize", "touch", "rename"])
def test_digest_sees_every_change(tree, change):
    before, elsewhere = listing_digest(str(tree)), listing_digest(str(tree), "b")
    one = tree / "a/one"
    {
        "add": lambda: (tree / "a/new").write_text(""),
        "remove": one.unlink,
        "resize": lambda: one.write_text("longer than before"),
        "touch": lambda: os.utime(one, ns=(0, 1)),
        "rename": lambda: one.rename(tree / "a/eno"),
    }[change]()
    assert listing_digest(str(tree)) != before
    assert listing_digest(str(tree), "b") == elsewhere


def test_digest_does_not_depend_on_where_the_root_is(tree, monkeypatch):
    monkeypatch.setenv("SOME_ROOT", str(tree))
    assert listing_digest("$SOME_ROOT") == listing_digest(str(tree))
    moved = tree.rename(tree.with_name("moved"))
    assert listing_digest(str(moved)) == listing_digest(str(moved) + "/")


def test_missing_directory_names_itself_and_the_setting(tree):
    with pytest.raises(ConfigError, match=r"nothing/here.*root.*roots="):
        listing_digest("nothing/here")
    with pytest.raises(ConfigError, match="labels"):
        listing_digest(str(tree), "labels")


def test_listing_imports_nothing_heavy():
    code = (
        "import sys; import mammoflow.index.listing; "
        "print(sorted({'numpy', 'pandas', 'pydicom', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_key_is_hmac():
    expected = hmac.new(b"salt", b"patient\0p1", hashlib.sha256).hexdigest()[:16]
    assert key(b"salt", "patient", "p1") == expected
    assert len({key(b"salt", "patient", "p1"), key(b"salt", "study", "p1"), key(b"other", "patient", "p1")}) == 3


def test_public_salt_follows_the_seed():
    assert secret("public", 1) == secret("public", 1) != secret("public", 2)


def test_secret_file_is_made_once_and_private(tmp_path, monkeypatch):
    monkeypatch.setenv("KEYS", str(tmp_path / "keys"))
    made = secret("$KEYS/secret", 1)
    path = tmp_path / "keys/secret"
    assert len(made) == 32
    assert path.read_bytes() == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret("$KEYS/secret", 2) == made
    assert os.listdir(path.parent) == ["secret"]


def test_secret_inside_results_or_too_short_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for inside in ("results/secret", str(tmp_path / "results/a/secret"), "x/../results/secret"):
        with pytest.raises(ConfigError, match=r"deidentify\.secret_file.*results"):
            secret(inside, 1)
    (tmp_path / "short").write_bytes(b"123")
    with pytest.raises(ConfigError, match="3 bytes"):
        secret("short", 1)
    with pytest.raises(ConfigError, match=r"deidentify\.secret_file"):
        secret(str(tmp_path), 1)
