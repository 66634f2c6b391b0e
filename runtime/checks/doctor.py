"""What runs on this machine, what does not, and the one line that fixes it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import BackendError, BcmError, OutputError
from ..backends import REAL, backend_module
from ..engines.store import Engine, engines, misfit
from ..machine.cache_folder import CACHE_FIX, cache_directory
from ..machine.gpu import Gpu, probe
from ..machine.install_hints import Extra, install_line
from ..machine.installed import missing_cuda_core, missing_tensorrt, tensorrt_version
from ..machine.jetpack import install_lines, jetpack
from ..machine.jetson import jetson, power_advice
from ..machine.resources import threads
from ..machine.temporary import LEAST, TEMPORARY_FIX, temporary_directory
from ..storage.bundle import Bundle, open_bundle

EXTRAS: dict[
    Extra, tuple[str, tuple[str, ...]]
] = {  # extra of pyproject.toml → (what it is for, the modules it brings)
    "export": ("exporting checkpoints", ("torch", "onnx", "onnxruntime", "safetensors")),
    "quantize": ("calibrating and int8 graphs", ("torch", "onnx", "onnxruntime", "sklearn", "matplotlib")),
    "debug": ("bisecting", ("polygraphy", "onnx", "onnxruntime")),
    "train": ("training", ("torch", "safetensors", "sklearn")),
    "serve": ("writing Triton repositories", ("tritonclient", "grpc", "onnx", "onnxruntime")),
    "scale": ("mapping many images on Ray", ("ray", "pyarrow", "onnxruntime")),
    "evaluate": ("evaluating", ("torch", "safetensors", "sklearn", "skimage", "jinja2", "matplotlib")),
}


@dataclass(frozen=True)
class Finding:
    """subject and detail for people; fix: the line that mends it, or ""; blocks: whether no bundle can run until it is mended."""

    subject: str
    ok: bool
    detail: str
    fix: str = ""
    blocks: bool = False


def examine(bundle: Path | None = None) -> list[Finding]:
    """Look at the machine, the backends, the extras, the folders and, if given, a bundle with its engines. TensorRT is imported where
    there is a GPU, as nothing else tells its version on a Jetson; no other backend's library is."""
    findings = [_machine(), *_jetson(), _gpu(), *_backends(), *_extras(), _cache(), _temporary()]
    if bundle is not None:
        findings += _bundle(bundle)
    return findings


def missing_modules(extra: Extra) -> list[str]:
    """Modules of an extra that are not installed."""
    return [name for name in EXTRAS[extra][1] if importlib.util.find_spec(name) is None]


def _machine() -> Finding:
    board = Path("/proc/device-tree/model")  # a Jetson names itself here
    name = board.read_text().strip("\0\n ") if board.is_file() else platform.machine()
    described = f"{name}, {platform.system()}, Python {platform.python_version()}, numpy {np.__version__}"
    try:
        return Finding("machine", True, f"{described}, {threads()} of {os.cpu_count()} processors")
    except BackendError as error:
        return Finding("machine", False, f"{described}; {error}", "unset BCM_EDGE_THREADS", blocks=True)


def _jetson() -> list[Finding]:
    """JetPack, and whether the board runs as fast as it can; nothing on any other machine."""
    found = jetpack()
    if found is None:
        return []
    advice = power_advice(jetson())
    mode = (jetson() or {}).get("power_mode") or "power mode unknown"
    lines = install_lines(found).splitlines() if _lacks_libraries() else []
    return [
        Finding("JetPack", found.ok, str(found), found.fix or " && ".join(lines)),
        Finding("power", not advice, f"{mode}{', slower than this board can be' if advice else ''}", advice),
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
        return Finding("GPU", True, f"none: {error}; bundles run on the processor")
    if missing := missing_tensorrt(gpu):
        return Finding("GPU", True, f"{gpu}; {missing.partition(';')[0]}")
    try:
        return Finding("GPU", True, f"{gpu}, TensorRT {tensorrt_version()}")
    except BackendError as error:
        return Finding("GPU", False, f"{gpu}; {error}")


def _backends() -> list[Finding]:
    reasons = {name: backend_module(name).unavailable("fp32") for name in REAL}
    none_runs = all(reasons.values())
    findings = []
    for name, reason in reasons.items():
        problem, _, fix = (reason or "").partition("; ")
        findings.append(
            Finding(
                f"backend {name}",
                not reason,
                problem or "can run bundles",
                fix,
                blocks=bool(reason) and none_runs,
            )
        )
    return findings


def _extras() -> list[Finding]:
    findings = []
    for extra, (purpose, _) in EXTRAS.items():
        missing = missing_modules(extra)
        detail = f"{', '.join(missing)} not installed; not needed to run bundles" if missing else "installed"
        findings.append(Finding(purpose, not missing, detail, install_line(extra) if missing else ""))
    return findings


def _cache() -> Finding:
    try:
        folder = cache_directory()
    except OutputError as error:
        return Finding(
            "cache", False, f"{str(error).removesuffix(f'; {CACHE_FIX}')}; bundles open slowly", CACHE_FIX
        )
    existing = _existing(folder)
    if not existing.is_dir():
        return Finding(
            "cache",
            False,
            f"{folder} cannot be made, as {existing} is not a folder; bundles open slowly",
            CACHE_FIX,
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding(
            "cache", False, f"{folder}: {existing} cannot be written; bundles open slowly", CACHE_FIX
        )
    if shutil.disk_usage(existing).free < LEAST:
        return Finding("cache", False, f"{folder}: no space left there; bundles open slowly", CACHE_FIX)
    return Finding("cache", True, f"{folder} ({_free(existing)})")


def _temporary() -> Finding:
    try:
        folder = temporary_directory()
    except OutputError as error:
        problem = str(error).removesuffix(f"; {TEMPORARY_FIX}")
        return Finding(
            "temporary files", False, f"{problem}; bench, build, calibrate and map need them", TEMPORARY_FIX
        )
    return Finding("temporary files", True, f"{folder} ({_free(folder)})")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that can be seen."""
    return next(place for place in (folder, *folder.parents) if os.path.exists(place))  # noqa: PTH110 (raises for none that cannot be read)


def _free(folder: Path) -> str:
    return f"{shutil.disk_usage(folder).free / 1e9:.1f} GB free"


def _bundle(path: Path) -> list[Finding]:
    try:
        bundle = open_bundle(path)
    except BcmError as error:
        return [Finding("bundle", False, str(error), blocks=True)]
    model = bundle.manifest.model
    whole = Finding(
        "bundle", True, f"{path} is whole ({model.name}, {model.parameters / 1e6:.2f} M parameters)"
    )
    return [whole, *_engines(bundle)]


def _engines(bundle: Bundle) -> list[Finding]:
    """One finding per engine; where no engine can run at all, one for all that are whole."""
    found = engines(bundle)
    broken = [Finding("engine", False, str(engine)) for engine in found if engine.facts is None]
    whole = [engine for engine in found if engine.facts]
    try:
        gpu, version = probe(), tensorrt_version() if whole else ""
    except BackendError:
        names = ", ".join(engine.name for engine in whole)
        return [*broken, *([Finding("engines", True, f"for other machines: {names}")] if whole else [])]
    return [*broken, *(_engine(engine, bundle, gpu, version) for engine in whole)]


def _engine(engine: Engine, bundle: Bundle, gpu: Gpu, version: str) -> Finding:
    reason = misfit(engine, bundle, gpu, version)
    if reason is None:
        return Finding("engine", True, f"{engine} fits here")
    precision = f" --precision {engine.facts.options.precision}" if engine.facts else ""
    return Finding(
        "engine",
        False,
        f"{engine.name} does not run here: {reason}",
        f"bcm-edge build {bundle.path}{precision}",
    )
