"""ONNX Runtime's optimised form of a bundle's graphs, kept in the cache once it has been proved.

    KEY/DIRECTION/model.onnx      the optimised graph
    KEY/DIRECTION/optimised.bin   its weights, in the order that this processor's kernels read; one file for both directions
    KEY/entry.json                the sha256 of these files, and how far each graph's move was from that of the bundle's graph
    KEY.refused                   in place of KEY: why this version of ONNX Runtime cannot play its own optimised graphs

ONNX Runtime 1.20 writes optimised graphs in which some tensors still point into the bundle's weights file. When both weights files had
one name, such graphs opened without an error and gave wrong images. So an entry is published only after it has played one move of each
direction as the bundle's graphs play it.
"""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import json
import os
import platform
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import BackendError, OutputError
from ..bundle import DIRECTIONS, Bundle
from ..cache import cache_directory, sha256, write_atomically
from ..engines.gpu import is_out_of_memory
from ..files import replacing
from ..log import log, timed
from ..noise import standard_normal
from ..schedule import SIGMA_MAX, SIGMA_MIN, Move
from .base import first_line, graph_inputs
from .onnxruntime import open_optimised, open_session, session_options

if TYPE_CHECKING:
    import onnxruntime

ENTRY = "entry.json"
WEIGHTS = "optimised.bin"  # no bundle's weights have this name: a graph that still points at those does not find them here
LAYOUT = 2  # of an entry; raised when what is written there changes
PROOF = {"forward": Move(SIGMA_MAX, SIGMA_MIN), "inverse": Move(0.07, SIGMA_MAX)}  # the move that each graph plays
_making = threading.Lock()  # two threads of a process would write to the same temporary folder


def optimised_graphs(bundle: Bundle, precision: str) -> dict[str, Path]:
    """Direction → optimised graph, from the cache; made and proved if it is not there or damaged.

    Raises OutputError where the cache cannot be written, BackendError where the graphs cannot be opened or the proof fails.
    """
    import onnxruntime

    facts = [LAYOUT, bundle.hashes(precision), onnxruntime.__version__, _processor()]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    entry = cache_directory() / "onnxruntime" / key
    refused = entry.with_suffix(".refused")
    with _making:
        if _is_whole(entry, precision):
            log.info("cache entry of %s graphs: reused, %s", precision, entry)
        elif reason := _text(refused):
            log.info("cache entry of %s graphs: refused earlier (%s), delete %s to try again", precision, reason, refused)
            raise BackendError(reason)
        else:
            _make(bundle, precision, entry, refused)
    return {direction: entry / direction / "model.onnx" for direction in DIRECTIONS}


def _make(bundle: Bundle, precision: str, entry: Path, refused: Path) -> None:
    _check_space(bundle, precision, entry)
    try:
        with (
            timed(f"cache entry of {precision} graphs: making {entry}"),
            replacing(entry, force=True, marker="forward") as folder,  # over a damaged one, or one that another process just made
        ):
            proof = _optimise(bundle, precision, folder)
            files = _share_weights(folder)
            (folder / ENTRY).write_text(json.dumps({"files": files, "proof": proof}))
    except _Refused as error:
        log.warning("cache entry of %s graphs: refused, %s", precision, error)
        with contextlib.suppress(OSError):  # tried again at the next start
            write_atomically(refused, str(error))
        raise


def _check_space(bundle: Bundle, precision: str, entry: Path) -> None:
    """Raise OutputError where both optimised graphs do not fit on the cache's file system."""
    existing = next(folder for folder in entry.parents if os.path.exists(folder))  # noqa: PTH110 (raises where it may not look)
    needed = 2 * sum(bundle.manifest.files[name].size for name in bundle.hashes(precision))
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise OutputError(f"{entry.parent}: {needed / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB are free")


class _Refused(BackendError):
    """ONNX Runtime does not play its optimised graphs as it plays the bundle's."""


def _optimise(bundle: Bundle, precision: str, folder: Path) -> dict[str, float]:
    """Write DIRECTION/model.onnx and its weights; returns the relative L2 distance of the proving move by direction. Raises _Refused."""
    import onnxruntime

    proof = {}
    for direction, graph in bundle.graphs(precision).items():
        (folder / direction).mkdir(parents=True)
        written = folder / direction / "model.onnx"
        options = session_options()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.optimized_model_filepath = str(written)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS)
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
        expected = _proving_move(open_session(graph, options), bundle, direction)
        if not np.isfinite(expected).all():
            raise BackendError(f"{graph} gives NaN or infinity, so its optimised form cannot be proved")
        try:
            actual = _proving_move(open_optimised(written), bundle, direction)
        except BackendError as error:
            if is_out_of_memory(str(error)):
                raise
            raise _Refused(f"ONNX Runtime {onnxruntime.__version__} cannot play its own optimised {direction} graph") from error
        proof[direction] = _distance(actual, expected)
        if not proof[direction] <= _bound(precision):
            version, far = onnxruntime.__version__, f"relative L2 {proof[direction]:.1e}"
            raise _Refused(f"ONNX Runtime {version}'s own optimised {direction} graph gives other images, {far}")
    return proof


def _proving_move(session: onnxruntime.InferenceSession, bundle: Bundle, direction: str) -> np.ndarray:
    """What a session makes of fixed noise at the level where the move begins."""
    model, move = bundle.manifest.model, PROOF[direction]
    noise = standard_normal([0], model.sample_shape, 0)
    labels = None if model.num_classes is None else np.zeros(1, np.int64)
    x = noise * np.float32(max(move.t, 0.5))  # an image's values are near 0.5
    try:
        return np.asarray(session.run(None, graph_inputs(x, None, move, labels))[0])
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise BackendError(f"ONNX Runtime cannot play {move}: {first_line(error)}") from error


def _distance(actual: np.ndarray, expected: np.ndarray) -> float:
    """Relative L2; NaN where either is not finite."""
    norm = float(np.linalg.norm(expected))
    return float(np.linalg.norm(actual - expected)) / max(norm, 1e-30)


def _bound(precision: str) -> float:
    from ..parity import BOUNDS  # which imports the backends

    return BOUNDS[precision]


def _share_weights(folder: Path) -> dict[str, str]:
    """Keep the weights once where both directions' are equal; returns the files of an entry with their sha256."""
    first, second = (folder / direction / WEIGHTS for direction in DIRECTIONS)
    files = {f"{DIRECTIONS[0]}/{WEIGHTS}": sha256(first)}
    if filecmp.cmp(first, second, shallow=False):
        files[f"{DIRECTIONS[1]}/{WEIGHTS}"] = files[f"{DIRECTIONS[0]}/{WEIGHTS}"]
        linked = folder / "linked"
        with contextlib.suppress(OSError):  # no hard links here: the second copy stays
            os.link(first, linked)
            linked.replace(second)
    else:
        files[f"{DIRECTIONS[1]}/{WEIGHTS}"] = sha256(second)
    return files | {f"{direction}/model.onnx": sha256(folder / direction / "model.onnx") for direction in DIRECTIONS}


def _is_whole(entry: Path, precision: str) -> bool:
    """Whether every file is as it was written, and both graphs have been proved."""
    try:
        facts: dict[str, Any] = json.loads((entry / ENTRY).read_text())
        names = {f"{direction}/{name}" for direction in DIRECTIONS for name in ("model.onnx", WEIGHTS)}
        proved = set(facts["proof"]) == set(DIRECTIONS) and all(0 <= far <= _bound(precision) for far in facts["proof"].values())
        return proved and set(facts["files"]) == names and all(sha256(entry / name) == digest for name, digest in facts["files"].items())
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return False


def _text(file: Path) -> str:
    """What a file says, or "" if it cannot be read."""
    try:
        return file.read_text().strip()
    except (OSError, ValueError):
        return ""


def _processor() -> str:
    """What decides the layout of optimised weights: the architecture and the processor's instruction sets."""
    flags = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line.split(":", 1)[1].strip() for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()} {flags or platform.processor()}"
