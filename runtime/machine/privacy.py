"""Switch off telemetry of libraries, and keep their files out of the home folder.

bcm-edge sends nothing. Some libraries that it uses send data unless this is switched off before they are
imported:

- ONNX Runtime (1.32 and newer) sends events to a Microsoft server, and keeps a device ID and a database in
  ~/.cache/Microsoft.
- OpenVINO sends events to Google Analytics, and keeps an ID and counts in ~/intel.
- Ray sends reports of its use.
- huggingface_hub, which diffusers uses, can send counts, and describes the machine in its requests.

Environment variables that the user has set are not changed. docs/privacy.md lists every file that is written.
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

# Environment variable → the value that its library documents for "off". Child processes inherit them.
TELEMETRY_OFF = {
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
# OpenVINO has no such variable. If this module cannot be imported, it uses a stub, which sends nothing.
OPENVINO_TELEMETRY = "openvino_telemetry"

# Environment variable → folder in the cache, for files that the library would keep in the home folder.
FOLDERS = {
    "MPLCONFIGDIR": "matplotlib",
    "CUDA_CACHE_PATH": "cuda",
}


def switch_off_telemetry() -> None:
    """Switch off telemetry in this process and in the processes that it starts.

    `import bcm_edge` calls this. Libraries that were imported before are not affected.
    """
    for name, value in TELEMETRY_OFF.items():
        if not os.environ.get(name):  # container configurations set unset variables to ""
            os.environ[name] = value
    modules: dict[str, Any] = sys.modules
    modules.setdefault(OPENVINO_TELEMETRY, None)  # None: importing it raises ImportError


def keep_files_in_cache() -> None:
    """Make libraries keep their files in the cache folder.

    The command line calls this. A program that imports bcm_edge decides for itself.
    """
    # Without a folder, matplotlib uses a temporary one, and logs three lines about it.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    with suppress(OutputError):  # there is no cache folder
        for name, folder in FOLDERS.items():
            if not os.environ.get(name):
                os.environ[name] = str(cache_directory() / folder)


@contextmanager
def home_folder(folder: Path) -> Iterator[None]:
    """Use another home folder in the block, for libraries that write there and cannot be configured.

    Processes that are started in the block keep it.
    """
    before = os.environ.get("HOME")
    os.environ["HOME"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("HOME")
        if before is not None:
            os.environ["HOME"] = before
