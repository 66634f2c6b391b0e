"""Find out what can run on this machine, what cannot, and what the user can do about it."""

from __future__ import annotations

import importlib.util
import itertools
import os
import platform
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import BackendError, BcmError, MissingExtraError, OutputError
from ..backends import backend_module, playing
from ..engines.store import Engine, broken_engines, engines, misfit
from ..machine.cache_folder import CACHE_FIX, cache_directory
from ..machine.gpu import Gpu, probe
from ..machine.install_hints import Extra, install_line
from ..machine.installed import missing_cuda_core, missing_tensorrt, tensorrt_line, tensorrt_version
from ..machine.jetpack import install_lines, jetpack
from ..machine.jetson import jetson, power_advice
from ..machine.processor import board_name
from ..machine.resources import threads
from ..machine.temporary import LEAST, TEMPORARY_FIX, temporary_directory
from ..storage.bundle import Bundle, open_bundle

# The names of packages on PyPI that differ from the names of their modules: module → package.
PACKAGES = {"sklearn": "scikit-learn", "skimage": "scikit-image", "grpc": "grpcio"}

# Extra of pyproject.toml → (its purpose, the modules that it installs)
EXTRAS: dict[Extra, tuple[str, tuple[str, ...]]] = {
    "export": ("exporting checkpoints", ("torch", "onnx", "onnxruntime", "safetensors")),
    "quantize": ("calibrating and int8 graphs", ("torch", "onnx", "onnxruntime", "sklearn", "matplotlib")),
    "debug": ("bisecting", ("polygraphy", "onnx", "onnxruntime")),
    "train": ("training", ("torch", "safetensors", "sklearn", "matplotlib")),
    "tensorboard": ("event files of training for TensorBoard", ("tensorboardX",)),
    "accelerate": ("training on several GPUs", ("accelerate", "torch")),
    "serve": ("writing Triton repositories", ("tritonclient", "grpc", "onnx", "onnxruntime")),
    "scale": ("mapping many images on Ray", ("ray", "pyarrow", "onnxruntime")),
    "evaluate": ("evaluating", ("torch", "safetensors", "sklearn", "skimage", "jinja2", "matplotlib")),
    "diffusers": ("the pipeline for diffusers", ("diffusers", "torch", "onnxruntime")),
}

_DRIVER = "install NVIDIA's driver, if this machine has an NVIDIA GPU; other backends do not need it"


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    # What was checked, for people.
    subject: str
    ok: bool
    detail: str
    # The command or action that solves the problem; never "" for a check that failed.
    fix: str = ""
    # Whether no bundle can run until the problem is solved.
    blocks: bool = False


def examine(bundle: Path | None = None) -> list[Finding]:
    """Check the machine, the backends, the extras, the folders and, if given, a bundle with its engines.

    On machines with a GPU, TensorRT is imported, because on a Jetson nothing else reports its version, and
    ONNX Runtime, which reports its providers. The libraries of other backends are not imported.
    """
    findings = [_machine(), *_jetson(), _gpu(), *_backends(), *_extras(), _cache(), _temporary()]
    if bundle is not None:
        findings += _bundle(bundle)
    return findings


def missing_packages(extra: Extra) -> list[str]:
    """Return the packages of an extra that are not installed, as pip calls them."""
    _, modules = EXTRAS[extra]
    return [PACKAGES.get(name, name) for name in modules if importlib.util.find_spec(name) is None]


def require_extra(extra: Extra, needed_by: str = "this command") -> None:
    """Raise MissingExtraError, with the pip command, if packages of an extra are not installed."""
    if missing := missing_packages(extra):
        raise MissingExtraError(
            f"{needed_by} needs packages that are not installed ({', '.join(missing)}); {install_line(extra)}"
        )


def _machine() -> Finding:
    name = board_name() or platform.machine()
    versions = f"{platform.system()}, Python {platform.python_version()}, numpy {np.__version__}"
    detail = f"{name}, {versions}"
    try:
        return Finding("machine", True, f"{detail}, {threads()} of {os.cpu_count()} processors")
    except BackendError as error:
        return Finding("machine", False, f"{detail}; {error}", "unset BCM_EDGE_THREADS", blocks=True)


def _jetson() -> list[Finding]:
    """Return the JetPack release, and whether the board runs at full speed; nothing on other machines."""
    release = jetpack()
    if release is None:
        return []
    lines = install_lines(release).splitlines() if _lacks_libraries() else []
    board = jetson()
    mode = (board or {}).get("power_mode") or "power mode unknown"
    advice = power_advice(board)
    slow = ", slower than this board can be" if advice else ""
    return [
        Finding("JetPack", release.ok, str(release), release.fix or " && ".join(lines)),
        Finding("power", not advice, f"{mode}{slow}", advice),
    ]


def _lacks_libraries() -> bool:
    try:
        gpu = probe()
    except BackendError:
        return True
    return bool(missing_tensorrt(gpu) or missing_cuda_core(gpu))


def _gpu() -> Finding:
    try:
        gpu = probe()
    except BackendError as error:
        return Finding("GPU", True, f"{error}; bundles run on the CPU")
    if problem := missing_tensorrt(gpu):
        return Finding("GPU", True, f"{gpu}; {problem.partition(';')[0]}")
    try:
        return Finding("GPU", True, f"{gpu}, TensorRT {tensorrt_version()}")
    except BackendError as error:
        return _failed("GPU", str(error), tensorrt_line(gpu, again=True))


def _failed(subject: str, message: str, otherwise: str, blocks: bool = False) -> Finding:
    """Return a failed check. Its fix is the end of the message, after the last "; ".

    otherwise: the fix for a message without "; ".
    """
    problem, separator, fix = message.rpartition("; ")
    return Finding(subject, False, problem if separator else fix, fix if separator else otherwise, blocks)


def _backends() -> list[Finding]:
    reasons = {name: backend_module(name).unavailable("fp32") for name in playing()}
    none_runs = all(reasons.values())
    findings = []
    for reason, group in itertools.groupby(reasons, key=lambda name: reasons[name]):
        names = list(group)
        if reason:  # the same for all backends on a GPU if there is no driver
            subject = f"{'backend' if len(names) == 1 else 'backends'} {', '.join(names)}"
            findings.append(_failed(subject, reason, _DRIVER, blocks=none_runs))
        else:
            findings += [Finding(f"backend {name}", True, "can run bundles") for name in names]
    return findings


def _extras() -> list[Finding]:
    findings = []
    for extra, (purpose, _) in EXTRAS.items():
        if missing := missing_packages(extra):
            detail = f"{', '.join(missing)} not installed; not needed to run bundles"
            findings.append(Finding(purpose, False, detail, install_line(extra)))
        else:
            findings.append(Finding(purpose, True, "installed"))
    return findings


def _cache() -> Finding:
    try:
        folder = cache_directory()
    except OutputError as error:
        problem = str(error).removesuffix(f"; {CACHE_FIX}")
    else:
        existing = _existing(folder)
        problem = _cache_problem(folder, existing)
        if not problem:
            return Finding("cache", True, f"{folder} ({_free(existing)})")
    return Finding("cache", False, f"{problem}; bundles open slowly", CACHE_FIX)


def _cache_problem(folder: Path, existing: Path) -> str:
    """Return why the cache folder cannot be used, or "". existing: itself or the nearest folder above it."""
    if not existing.is_dir():
        return f"{folder} cannot be created, because {existing} is not a folder"
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"{folder}: {existing} cannot be written"
    if shutil.disk_usage(existing).free < LEAST:
        return f"{folder}: no space left on this disk"
    return ""


def _temporary() -> Finding:
    try:
        folder = temporary_directory()
    except OutputError as error:
        problem = str(error).removesuffix(f"; {TEMPORARY_FIX}")
        detail = f"{problem}; bench, build, calibrate and map need them"
        return Finding("temporary files", False, detail, TEMPORARY_FIX)
    return Finding("temporary files", True, f"{folder} ({_free(folder)})")


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest folder above it that exists and can be read."""
    # os.path.exists, because Path.exists raises PermissionError for them.
    return next(place for place in (folder, *folder.parents) if os.path.exists(place))  # noqa: PTH110


def _free(folder: Path) -> str:
    return f"{shutil.disk_usage(folder).free / 1e9:.1f} GB free"


def _bundle(path: Path) -> list[Finding]:
    try:
        bundle = open_bundle(path)
    except BcmError as error:
        again = "copy the bundle again, or export it again with bcm-edge export"
        return [_failed("bundle", str(error), again, blocks=True)]
    model = bundle.manifest.model
    detail = f"{path} is complete ({model.name}, {model.parameters / 1e6:.2f} M parameters)"
    return [Finding("bundle", True, detail), *_engines(bundle)]


def _engines(bundle: Bundle) -> list[Finding]:
    """Return one finding per engine. If no engine can run here, all intact ones share one finding."""
    build = f"bcm-edge build {shlex.quote(str(bundle.source))}"
    broken = [Finding("engine", False, str(engine), build) for engine in broken_engines(bundle)]
    whole = engines(bundle)
    if not whole:
        return broken
    try:
        gpu, version = probe(), tensorrt_version()
    except BackendError:
        names = ", ".join(engine.name for engine in whole)
        return [*broken, Finding("engines", True, f"for other machines: {names}")]
    return [*broken, *(_engine(engine, bundle, gpu, version) for engine in whole)]


def _engine(engine: Engine, bundle: Bundle, gpu: Gpu, version: str) -> Finding:
    reason = misfit(engine, bundle, gpu, version)
    if reason is None:
        return Finding("engine", True, f"{engine} fits this machine")
    fix = f"bcm-edge build {shlex.quote(str(bundle.source))} --precision {engine.facts.options.precision}"
    return Finding("engine", False, f"{engine.name} does not run here: {reason}", fix)
