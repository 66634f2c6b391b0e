"""The pip command that installs an extra of this package, for the way in which the package is installed here.

The package is on no index, so `pip install 'bcm-edge[run]'` would find nothing.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

# The extras that a message may ask for; pyproject.toml defines them.
Extra = Literal[
    "run",
    "export",
    "quantize",
    "debug",
    "openvino",
    "serve",
    "scale",
    "train",
    "tensorboard",
    "accelerate",
    "evaluate",
    "diffusers",
    "gpu",
    "rtx",
    "trt10",
    "trt11",
    "jetson6",
    "jetson7",
]
NAME = "bcm-edge"
PACKAGE = Path(__file__).resolve().parents[2]


def install_line(extra: Extra, upgrade: bool = False) -> str:
    """Return the pip command that installs an extra, for example `pip install '.[export]'` in a checkout.

    upgrade: add --upgrade, for packages that are installed in a version that does not work.
    """
    return f"pip install {'--upgrade ' if upgrade else ''}{requirements(extra)}"


def requirements(extra: Extra) -> str:
    """Return what follows `pip install` to install an extra, quoted for a shell."""
    if _is_checkout(PACKAGE):
        return shlex.quote(_with_extra(PACKAGE, extra))
    try:
        distribution = importlib.metadata.distribution(NAME)
    except importlib.metadata.PackageNotFoundError:  # for example the archive in a Triton repository
        return f"'.[{extra}]' in a clone of {NAME}"
    if source := _source(distribution, extra):
        return shlex.quote(source)
    return " ".join(map(shlex.quote, packages_of(distribution.requires or [], extra)))


def packages_of(requires: list[str], extra: str) -> list[str]:
    """Return the requirements that only an extra has, as pip accepts them.

    requires: the lines `Requires-Dist` of a distribution, for example `onnxruntime>=1.21; extra == "run"`.
        Other conditions come before it: `…; python_version < "3.11" and extra == "gpu"`.
    """
    marker = re.compile(rf"""\s*(;|\band)\s*extra\s*==\s*["']{re.escape(extra)}["']\s*$""")
    return [marker.sub("", line) for line in requires if marker.search(line)]


def _source(distribution: importlib.metadata.Distribution, extra: str) -> str | None:
    """Return what the distribution was installed from, with the extra; None if that is unknown or gone.

    pip records it in direct_url.json (PEP 610), except for what comes from an index.
    """
    try:
        recorded = json.loads(distribution.read_text("direct_url.json") or "{}")
        url = str(recorded["url"])
    except (ValueError, KeyError, TypeError):
        return None
    if vcs := recorded.get("vcs_info"):
        return f"{NAME}[{extra}] @ {vcs['vcs']}+{url}@{vcs['commit_id']}"
    parts = urlsplit(url)
    if parts.scheme != "file":
        return f"{NAME}[{extra}] @ {url}"
    path = Path(unquote(parts.path))
    return _with_extra(path, extra) if path.is_file() or _is_checkout(path) else None


def _with_extra(path: Path, extra: str) -> str:
    """A checkout or a wheel, as an argument of pip: "." for the working folder."""
    return f"{'.' if path == Path.cwd() else path}[{extra}]"


def _is_checkout(folder: Path) -> bool:
    try:
        return f'\nname = "{NAME}"\n' in (folder / "pyproject.toml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
