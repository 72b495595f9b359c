"""Digests that say what made a result: code, settings, files."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
DIGEST_LENGTH = 16


def text_digest(*parts: str) -> str:
    """Short hexadecimal SHA-256 of strings, their borders kept apart."""
    sha = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogateescape")
        sha.update(len(encoded).to_bytes(8, "big") + encoded)
    return sha.hexdigest()[:DIGEST_LENGTH]


def settings_digest(settings: Any) -> str:
    """Digest of a JSON-like value, independent of the order of its keys."""
    return text_digest(json.dumps(settings, sort_keys=True, default=str))


def file_sha256(path: str | Path) -> str:
    """Full hexadecimal SHA-256 of a file's content."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def code_digest(stage: str) -> str:
    """Digest of a stage's modules and of the modules that all stages share.

    Rules carry it as a parameter, because Snakemake doesn't follow imports: a changed module re-runs its stage and,
    through their inputs, those after it.
    """
    files = sorted((PACKAGE / stage).rglob("*.py")) + sorted(PACKAGE.glob("*.py"))
    return text_digest(*(f"{path.relative_to(PACKAGE)}\n{path.read_text('utf-8')}" for path in files))
