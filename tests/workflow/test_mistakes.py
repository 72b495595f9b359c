"""A user's mistakes end in one message, before any job, without a traceback."""

import shutil
import subprocess
import sys

import pytest

MISTAKES = [
    (["--config", "detect={'epoch': 3}"], "did you mean `epochs`"),
    (["--config", "device=gpu"], "expected one of cpu, cuda"),
    (["--config", "roots={'hospital': '/data'}"], "the root of a phantom is results/phantom/hospital, not /data"),
    (["--config", "labels={'folds': 40}"], "labels.folds"),
    (["diagnose"], "--config study=DIR"),
    (["diagnose", "--config", "study=none"], "none"),
    (["predict"], "MAMMOFLOW_PREDICT_ROOT"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(given) for given, _ in MISTAKES])
def test_one_message(root, tmp_path, arguments, message):
    shutil.copy(root / "config.yaml", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", str(root / "Snakefile"), "--directory", str(tmp_path),
         "--cores", "1", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert message in output
    assert "Traceback" not in output
    assert not (tmp_path / "results").exists()
