"""Pictures of the run before, so that a shard of which one file changed converts that file alone.

Snakemake deletes a job's outputs before it starts. (Outputs flagged `update` stay, but it copies them all before the
job, and fails to after a job that was killed.) Hard links beside the shard's directory keep the pictures' content at no
cost, and survive a killed job too.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any

from isal import isal_zlib

Row = dict[str, Any]
log = logging.getLogger("mammoflow")


class Kept:
    """Rows and pictures of a shard's images by image_id.

    Parameters
    ----------
    directory : where they are kept, on the file system of the pictures; None keeps nothing.
    """

    def __init__(self, directory: str | Path | None):
        self.directory = None if directory is None else Path(directory)

    def restore(self, image_id: str, identity: str, pictures: Path) -> Row | None:
        """Link an image's pictures into `pictures` and return its row; None unless all is as it was kept.

        Parameters
        ----------
        identity : digest of all that the pictures follow from: file, settings, code.
        """
        if self.directory is None:
            return None
        try:
            record = json.loads(self._record(image_id).read_text("utf-8"))
            if record["identity"] != identity:
                return None
            for name, state in record["files"].items():
                if _state(self.directory / name) != state:  # edited in place, or spoilt by the disk
                    return None
                _link(self.directory / name, pictures / name)
        except (OSError, ValueError, KeyError):
            return None
        return dict(record["row"])

    def keep(self, image_id: str, identity: str, row: Row, pictures: Path, names: list[str]) -> None:
        """Keep an image's row and its pictures `names` below `pictures`."""
        if self.directory is None:
            return
        try:
            for name in names:
                _link(pictures / name, self.directory / name)
        except OSError as error:
            log.info("no hard links here (%s): unchanged images will be converted again", error.strerror)
            self.directory = None
            return
        files = {name: _state(self.directory / name) for name in names}
        partial = self._record(image_id).with_suffix(".partial")
        partial.write_text(json.dumps({"identity": identity, "row": row, "files": files}), encoding="utf-8")
        partial.replace(self._record(image_id))

    def forget_others(self, image_ids: set[str]) -> None:
        """Remove what is kept of images that aren't among `image_ids`."""
        if self.directory is None:
            return
        for path in self.directory.rglob("*"):
            if path.is_file() and path.name.split(".")[0] not in image_ids:
                path.unlink()

    def _record(self, image_id: str) -> Path:
        assert self.directory is not None
        return self.directory / f"{image_id}.json"


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, isal_zlib.crc32(path.read_bytes())]


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    os.link(source, target)
