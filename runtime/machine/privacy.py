"""What libraries would report about their users, and files that they would leave in the home folder: switched off in this one place.

bcm-edge sends nothing. Libraries that it uses do, unless they are told otherwise before they are imported:

- ONNX Runtime (1.32 and newer) sends events to a Microsoft server, and keeps a device ID and a database in ~/.cache/Microsoft.
- OpenVINO sends events to Google Analytics, and keeps an ID and counts in ~/intel.
- Ray sends reports of its use, where they are not switched off.

A setting that a user made in the environment is left as it is. docs/privacy.md lists what is written where.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ...errors import OutputError
from .cache_folder import cache_directory

TELEMETRY_OFF = {  # environment variable → the value that its library documents for "off"; child processes inherit them
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
OPENVINO_TELEMETRY = "openvino_telemetry"  # OpenVINO has no variable; without this module it uses a stub of its own, which sends nothing

FOLDERS = {  # environment variable → the folder of the cache in which its library is to keep what it would keep in the home folder
    "MPLCONFIGDIR": "matplotlib",
    "CUDA_CACHE_PATH": "cuda",
}


def switch_off_telemetry() -> None:
    """For this process, and for those that it starts. `import bcm_edge` does this; a library that was imported before is not affected."""
    for name, value in TELEMETRY_OFF.items():
        if not os.environ.get(
            name
        ):  # empty is what a container's configuration makes of a variable that is not set
            os.environ[name] = value
    modules: dict[str, Any] = sys.modules
    modules.setdefault(OPENVINO_TELEMETRY, None)  # None: importing it raises ImportError


def keep_files_in_cache() -> None:
    """Have libraries keep their files in the cache folder. The command line does this; a program that imports bcm_edge keeps its own."""
    logging.getLogger("matplotlib").setLevel(
        logging.ERROR
    )  # without a folder it goes on with a temporary one, and says so in three lines
    with suppress(OutputError):  # there is no cache folder
        for name, folder in FOLDERS.items():
            if not os.environ.get(name):
                os.environ[name] = str(cache_directory() / folder)


@contextmanager
def home_folder(folder: Path) -> Iterator[None]:
    """Another home folder for the block, for libraries that write there and have no setting. Processes started in it keep it."""
    before = os.environ.get("HOME")
    os.environ["HOME"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("HOME")
        os.environ.update({} if before is None else {"HOME": before})
