"""The cache of graphs that ONNX Runtime optimised. An entry is verified before it is used.

    KEY/DIRECTION/model.onnx      the optimised graph
    KEY/DIRECTION/optimised.bin   its weights, in the order in which this processor's kernels read them;
                                  both directions share one file
    KEY/entry.json                the sha256 of these files, and for each direction the relative L2 distance
                                  between one move of the optimised graph and of the bundle's graph
    KEY.refused                   in place of KEY: why this version of ONNX Runtime cannot use its own
                                  optimised graphs

ONNX Runtime 1.20 writes optimised graphs in which some tensors still refer to the weights file of the bundle.
If both weights files had the same name, such graphs opened without an error and gave wrong images. An entry
is therefore published only if each of its graphs computes one move as the graph of the bundle does.
"""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import BackendError, OutputError
from ..accuracy import relative_l2
from ..log import log, timed
from ..machine.cache_folder import cache_directory
from ..machine.gpu import is_out_of_memory
from ..machine.placement import ANYWHERE, Placement
from ..storage.bundle import Bundle
from ..storage.files import replacing, write_atomically
from ..storage.hashes import sha256
from ..storage.manifest import DIRECTIONS
from ..wording import first_line
from .cached import ENTRY, PROOF_MOVES, entry_key, is_proved, making, proving_inputs
from .sessions import open_optimised, open_session, session_options

if TYPE_CHECKING:
    import onnxruntime

# The name differs from that of the weights of bundles, so a graph that still refers to those cannot be
# opened.
WEIGHTS = "optimised.bin"
LAYOUT = 2  # the version of the format of entries; raised when the format changes
_ENTRY_FILES = [f"{direction}/{name}" for name in (WEIGHTS, "model.onnx") for direction in DIRECTIONS]


def optimised_graphs(bundle: Bundle, precision: str, placement: Placement = ANYWHERE) -> dict[str, Path]:
    """Return direction → optimised graph in the cache. A missing or damaged entry is created.

    Raises OutputError if the cache cannot be written, BackendError if the graphs cannot be opened or the
    verification fails.
    """
    import onnxruntime

    key = entry_key([LAYOUT, bundle.hashes(precision), onnxruntime.__version__])
    entry = cache_directory() / "onnxruntime" / key
    refused = entry.with_suffix(".refused")
    with making:
        if _is_whole(entry, precision):
            log.info("cache entry of %s graphs: reused, %s", precision, entry)
        elif reason := _text(refused):
            message = "cache entry of %s graphs: refused earlier (%s), delete %s to try again"
            log.info(message, precision, reason, refused)
            raise BackendError(reason)
        else:
            _make(bundle, precision, placement, entry, refused)
    return {direction: entry / direction / "model.onnx" for direction in DIRECTIONS}


def _make(bundle: Bundle, precision: str, placement: Placement, entry: Path, refused: Path) -> None:
    """Create an entry. It replaces a damaged entry, or one that another process has just created."""
    _check_space(bundle, precision, entry)
    try:
        with (
            timed(f"cache entry of {precision} graphs: making {entry}"),
            replacing(entry, force=True, marker="forward") as folder,
        ):
            proof = _optimise(bundle, precision, placement, folder)
            files = _share_weights(folder)
            (folder / ENTRY).write_text(json.dumps({"files": files, "proof": proof}))
    except _Refused as error:
        log.warning("cache entry of %s graphs: refused, %s", precision, error)
        with contextlib.suppress(OSError):  # without the file, the next start tries again
            write_atomically(refused, str(error))
        raise


def _check_space(bundle: Bundle, precision: str, entry: Path) -> None:
    """Raise OutputError if the file system of the cache has too little space for both optimised graphs."""
    # Path.exists raises an error for a folder that may not be read.
    existing = next(folder for folder in entry.parents if os.path.exists(folder))  # noqa: PTH110
    needed = 2 * sum(bundle.manifest.files[name].size for name in bundle.hashes(precision))
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise OutputError(
            f"{entry.parent}: {needed / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB are free"
        )


class _Refused(BackendError):
    """The optimised graphs do not compute what the graphs of the bundle compute."""


def _optimise(bundle: Bundle, precision: str, placement: Placement, folder: Path) -> dict[str, float]:
    """Write the optimised graphs of both directions, and verify them.

    Returns direction → relative L2 distance. Raises _Refused.
    """
    import onnxruntime

    library = f"ONNX Runtime {onnxruntime.__version__}"
    proof = {}
    for direction, graph in bundle.graphs(precision).items():
        (folder / direction).mkdir(parents=True)
        written = folder / direction / "model.onnx"
        # Opening this session writes the optimised graph.
        session = open_session(graph, _optimising_options(written, placement))
        expected = _proving_move(session, bundle, direction)
        if not np.isfinite(expected).all():
            raise BackendError(f"{graph} gives NaN or infinity, so its optimised form cannot be verified")
        try:
            actual = _proving_move(open_optimised(written, placement), bundle, direction)
        except BackendError as error:
            if is_out_of_memory(str(error)):
                raise
            raise _Refused(f"{library} cannot play its own optimised {direction} graph") from error
        distance = relative_l2(actual, expected)
        if not is_proved(distance, precision):
            raise _Refused(
                f"{library}'s own optimised {direction} graph gives other images, relative L2 {distance:.1e}"
            )
        proof[direction] = distance
    return proof


def _optimising_options(written: Path, placement: Placement) -> onnxruntime.SessionOptions:
    """Return the options of a session that writes its optimised graph and, beside it, the weights."""
    import onnxruntime

    options = session_options(placement)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(written)
    prefix = "session.optimized_model_external_initializers"
    options.add_session_config_entry(f"{prefix}_file_name", WEIGHTS)
    options.add_session_config_entry(f"{prefix}_min_size_in_bytes", "1024")
    return options


def _proving_move(session: onnxruntime.InferenceSession, bundle: Bundle, direction: str) -> np.ndarray:
    """Return the result of the move that verifies a direction's graph."""
    try:
        return np.asarray(session.run(None, proving_inputs(bundle, direction))[0])
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        move = PROOF_MOVES[direction]
        raise BackendError(f"ONNX Runtime cannot play {move}: {first_line(error)}") from error


def _share_weights(folder: Path) -> dict[str, str]:
    """Store the weights once if those of both directions are equal. Return file of the entry → sha256."""
    first, second = (folder / direction / WEIGHTS for direction in DIRECTIONS)
    if filecmp.cmp(first, second, shallow=False):
        linked = folder / "linked"
        with contextlib.suppress(OSError):  # without hard links, the second copy remains
            os.link(first, linked)
            linked.replace(second)
    return {name: sha256(folder / name) for name in _ENTRY_FILES}


def _is_whole(entry: Path, precision: str) -> bool:
    """Whether every file of an entry is as it was written, and both graphs have been verified."""
    try:
        facts: dict[str, Any] = json.loads((entry / ENTRY).read_text())
        proof, files = facts["proof"], facts["files"]
        if set(proof) != set(DIRECTIONS) or set(files) != set(_ENTRY_FILES):
            return False
        if not all(is_proved(distance, precision) for distance in proof.values()):
            return False
        return all(sha256(entry / name) == digest for name, digest in files.items())
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return False


def _text(file: Path) -> str:
    """Return the text of a file, or "" if it cannot be read."""
    try:
        return file.read_text().strip()
    except (OSError, ValueError):
        return ""
