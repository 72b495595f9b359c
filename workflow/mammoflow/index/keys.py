"""Keys that stand for patients, studies and images: salted hashes, so that no table carries an identifier."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from mammoflow.errors import ConfigError

SECRET_BYTES = 32
KEY_LENGTH = 16
PUBLIC = "public"


def secret(secret_file: str, seed: int) -> bytes:
    """Return the study's salt.

    Parameters
    ----------
    secret_file : path of the file that holds it, made (32 random bytes, readable by its owner alone) when missing;
        ``public``: the salt follows from the seed, for data whose ids are no secret.
    seed : the study's seed.

    Raises
    ------
    ConfigError
        The path lies inside results/ (which may be deleted or handed on), can't be written, or holds too few bytes.
    """
    if secret_file == PUBLIC:
        return hashlib.sha256(f"mammoflow public salt {seed}".encode()).digest()
    path = outside_results("deidentify.secret_file", secret_file, "~/.config/mammoflow/secret")
    try:
        return _read_or_make(path)
    except OSError as error:
        raise ConfigError(
            f"deidentify.secret_file '{secret_file}': {error.strerror}: name a file that you can read and write"
        ) from error


def outside_results(setting: str, path: str, example: str) -> Path:
    """Expand $VARIABLES and ~ in the path of something private.

    Raises
    ------
    ConfigError
        It lies inside results/, which may be deleted or handed on.
    """
    expanded = Path(os.path.expandvars(path)).expanduser()
    if expanded.resolve().is_relative_to(Path("results").resolve()):
        raise ConfigError(
            f"{setting} '{path}' lies inside results/, which may be deleted or handed on: "
            f"choose a path outside it, for example {example}"
        )
    return expanded


def key(salt: bytes, kind: str, value: str) -> str:
    """Return the key of `value`: 16 lower-case hexadecimal digits of HMAC-SHA-256 (RFC 2104).

    Parameters
    ----------
    salt : what `secret` gave.
    kind : what `value` is (``patient``, ``study``, ``image``, ...): equal values of two kinds have unrelated keys.
    value : the identifier.
    """
    message = f"{kind}\0{value}".encode("utf-8", "surrogateescape")
    return hmac.new(salt, message, hashlib.sha256).hexdigest()[:KEY_LENGTH]


def _read_or_make(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    # complete before it has its name, and never over another: two jobs that start together share one secret
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    if not path.exists():
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(secrets.token_bytes(SECRET_BYTES))
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    content = path.read_bytes()
    if len(content) < SECRET_BYTES:
        raise ConfigError(
            f"deidentify.secret_file '{path}' holds {len(content)} bytes, at least {SECRET_BYTES} are needed: "
            f"restore it from a copy, or remove it (all keys change)"
        )
    return content
