"""The pack for closed networks: what is cut from the lock, what is checked before it goes along."""

import hashlib
import re
import runpy

import pytest
import yaml


@pytest.fixture(scope="module")
def pack(root):
    return runpy.run_path(str(root / "envs" / "pack.py"))


def test_a_cut_of_the_lock_keeps_hashes_and_markers(root, pack):
    lock = (root / "requirements.lock").read_text()
    cut = pack["entries"](lock, {"numpy", "torch"})
    assert {line.split("==")[0] for line in cut.splitlines() if line[:1].isalpha()} == {"numpy", "torch"}
    assert cut.count("--hash=sha256:") == sum(
        entry.count("--hash=sha256:") for entry in re.split(r"\n(?=\w)", lock) if re.match("(numpy|torch)==", entry)
    )
    assert "python_full_version" in cut
    assert pack["entries"](lock, None) == lock.rstrip("\n") + "\n"


def test_the_packed_lock_names_the_digest_of_each_wheel(tmp_path, pack):
    (tmp_path / "Py_Thing.more-1.2-py3-none-any.whl").write_bytes(b"wheel")
    digest = hashlib.sha256(b"wheel").hexdigest()
    assert pack["packed_lock"](tmp_path) == f"py-thing-more==1.2 --hash=sha256:{digest}\n"


def test_weights_go_along_when_they_have_the_digest_that_the_config_gives(tmp_path, pack):
    weights, config = tmp_path / "coco.safetensors", tmp_path / "study.yaml"
    weights.write_bytes(b"weights")
    right = {"path": str(weights), "sha256": hashlib.sha256(b"weights").hexdigest()}
    config.write_text(yaml.safe_dump({"detect": {"weights": right}, "classify": {"weights": None}}))
    pack["pack_weights"](tmp_path / "pack", [config])
    assert (tmp_path / "pack" / "weights" / "coco.safetensors").read_bytes() == b"weights"

    config.write_text(yaml.safe_dump({"detect": {"weights": right | {"sha256": "0" * 64}}}))
    with pytest.raises(SystemExit, match=r"study\.yaml: detect\.weights\.sha256 isn't the digest of coco"):
        pack["pack_weights"](tmp_path / "pack2", [config])
    config.write_text(yaml.safe_dump({"classify": {"weights": right | {"path": "nowhere"}}}))
    with pytest.raises(SystemExit, match=r"classify\.weights\.path is nowhere"):
        pack["pack_weights"](tmp_path / "pack3", [config])
    assert not (tmp_path / "pack2").exists()
    assert not (tmp_path / "pack3").exists()
