import hashlib

from mammoflow import provenance


def test_digest_keeps_borders_apart():
    assert provenance.text_digest("ab", "c") != provenance.text_digest("a", "bc")


def test_settings_digest_ignores_order_only():
    assert provenance.settings_digest({"a": 1, "b": 2}) == provenance.settings_digest({"b": 2, "a": 1})
    assert provenance.settings_digest({"a": 1}) != provenance.settings_digest({"a": 2})


def test_file_digest(tmp_path):
    (tmp_path / "f").write_bytes(b"mammo")
    assert provenance.file_sha256(tmp_path / "f") == hashlib.sha256(b"mammo").hexdigest()


def test_code_digest_follows_the_stage_and_the_shared_modules(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    for name in ("boxes.py", "crops/cut.py", "detect/train.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")

    def digests():
        provenance.code_digest.cache_clear()
        return provenance.code_digest("crops"), provenance.code_digest("detect")

    before = digests()
    (tmp_path / "crops/cut.py").write_text("2")
    crops_changed = digests()
    assert crops_changed[0] != before[0]
    assert crops_changed[1] == before[1]
    (tmp_path / "boxes.py").write_text("2")
    both_changed = digests()
    assert all(new != old for new, old in zip(both_changed, crops_changed, strict=True))
    provenance.code_digest.cache_clear()
