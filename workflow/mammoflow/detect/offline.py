"""Ultralytics without network, telemetry, auto-installs and files outside the job's own folder."""

import atexit
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
    usage events. The settings directory is temporary and goes when the process ends.
    """
    directory = tempfile.mkdtemp(prefix="mammoflow-ultralytics-")
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(directory, ignore_errors=True) if os.getpid() == owner else None)
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
    where other stages of the same process (`diagnose`) count on Pillow's own error.
    """
    patches = importlib.import_module("ultralytics.utils.patches")
    # Pillow's own, kept there; versions that patch nothing keep nothing
    PIL.Image.open = getattr(patches, "_image_open", PIL.Image.open)


def integrations_off() -> None:
    """Switch off, for this process, every tracker that Ultralytics would call if it finds its package installed."""
    from ultralytics.utils import SETTINGS

    # not SETTINGS.update: that writes the file, which is the user's own where Ultralytics was imported before
    dict.update(SETTINGS, dict.fromkeys(INTEGRATIONS, False), api_key="")
