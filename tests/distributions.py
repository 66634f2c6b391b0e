"""Environments that contain only some of the packages installed here, as links. Nothing is downloaded."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
from importlib.metadata import Distribution
from pathlib import Path

# pip reads no configuration of this machine and no index, so every dependency must be in the environment.
OFFLINE = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def link(names: list[str], site: Path) -> None:
    """Link the named packages and all that they require, without extras, into a site-packages folder."""
    for distribution in _with_dependencies(names):
        top_level = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
        for name in top_level:
            if not (site / name).exists():  # several packages add modules to a folder such as google
                (site / name).symlink_to(Path(str(distribution.locate_file(name))))


def _with_dependencies(names: list[str]) -> list[Distribution]:
    distributions: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        distribution = _installed(name)
        if name in distributions or distribution is None:
            continue
        distributions[name] = distribution
        lines = [line for line in distribution.requires or () if "extra ==" not in line]
        waiting += [re.split(r"[ ;<>=!~(\[]", line)[0] for line in lines]
    return list(distributions.values())


def _installed(name: str) -> Distribution | None:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:  # required only on another system or Python
        return None


class Environment:
    """A virtual environment that contains only the named packages and what they require."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        paths = {"base": str(folder), "platbase": str(folder)}
        link(names, Path(sysconfig.get_path("purelib", "venv", paths)))

    def install(self, *requirements: str) -> subprocess.CompletedProcess[str]:
        """Run `pip install`, offline."""
        command = [sys.executable, "-m", "pip", "--python", str(self.folder), "install", *requirements]
        return self._run(command, None, OFFLINE)

    def run(self, program: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment."""
        return self._run([str(self.folder / "bin" / program), *map(str, arguments)], cwd, {})

    def _run(
        self, command: list[str], cwd: Path | None, more: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | more
        return subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
