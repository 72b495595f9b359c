"""Ultralytics without network, telemetry, auto-installs and files outside the job's own folder."""

import importlib
import os
import shutil
import tempfile
from functools import cache

import PIL.Image

INTEGRATIONS = ["sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb"]


@cache
def go_offline() -> str:
    """Set the environment that Ultralytics reads at import; return its private settings directory.

    Without this it resolves names on the Internet, writes below the user's home, installs missing packages and sends
    usage events. The settings directory is temporary; `import_unpatched` removes it.
    """
    directory = tempfile.mkdtemp(prefix="mammoflow-ultralytics-")
    os.environ.update(
        YOLO_OFFLINE="True",
        YOLO_AUTOINSTALL="False",
        YOLO_VERBOSE="False",
        YOLO_CONFIG_DIR=directory,
    )
    return directory


def import_unpatched() -> None:
    """Import Ultralytics and give Pillow its own `Image.open` back.

    Ultralytics replaces it by one that answers a file which is no picture with an attempt to install a HEIF reader,
    where other stages of the same process (`diagnose`) count on Pillow's own error. The settings are read once, at
    import: their directory goes at once, so that a process that is killed later leaves nothing behind.
    """
    patches = importlib.import_module("ultralytics.utils.patches")
    shutil.rmtree(go_offline(), ignore_errors=True)
    # Pillow's own, kept there; versions that patch nothing keep nothing
    PIL.Image.open = getattr(patches, "_image_open", PIL.Image.open)


def integrations_off() -> None:
    """Switch off, for this process, every tracker that Ultralytics would call if it finds its package installed."""
    from ultralytics.utils import SETTINGS

    # not SETTINGS.update: that writes the file, which is the user's own where Ultralytics was imported before
    dict.update(SETTINGS, dict.fromkeys(INTEGRATIONS, False), api_key="")
