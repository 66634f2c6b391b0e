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
from ..storage.bundle import Bundle
from ..storage.files import replacing, write_atomically
from ..storage.hashes import sha256
from ..storage.manifest import DIRECTIONS
from ..wording import first_line
from .cached import ENTRY, PROOF, entry_key, is_proved, making, proving_inputs
from .sessions import open_optimised, open_session, session_options

if TYPE_CHECKING:
    import onnxruntime

WEIGHTS = "optimised.bin"  # no bundle's weights have this name: a graph that still points at those does not find them here
LAYOUT = 2  # of an entry; raised when what is written there changes


def optimised_graphs(bundle: Bundle, precision: str) -> dict[str, Path]:
    """Direction → optimised graph, from the cache; made and proved if it is not there or damaged.

    Raises OutputError where the cache cannot be written, BackendError where the graphs cannot be opened or the proof fails.
    """
    import onnxruntime

    key = entry_key([LAYOUT, bundle.hashes(precision), onnxruntime.__version__])
    entry = cache_directory() / "onnxruntime" / key
    refused = entry.with_suffix(".refused")
    with making:
        if _is_whole(entry, precision):
            log.info("cache entry of %s graphs: reused, %s", precision, entry)
        elif reason := _text(refused):
            log.info(
                "cache entry of %s graphs: refused earlier (%s), delete %s to try again",
                precision,
                reason,
                refused,
            )
            raise BackendError(reason)
        else:
            _make(bundle, precision, entry, refused)
    return {direction: entry / direction / "model.onnx" for direction in DIRECTIONS}


def _make(bundle: Bundle, precision: str, entry: Path, refused: Path) -> None:
    _check_space(bundle, precision, entry)
    try:
        with (
            timed(f"cache entry of {precision} graphs: making {entry}"),
            replacing(
                entry, force=True, marker="forward"
            ) as folder,  # over a damaged one, or one that another process just made
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
        raise OutputError(
            f"{entry.parent}: {needed / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB are free"
        )


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
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_min_size_in_bytes", "1024"
        )
        expected = _proving_move(open_session(graph, options), bundle, direction)
        if not np.isfinite(expected).all():
            raise BackendError(f"{graph} gives NaN or infinity, so its optimised form cannot be proved")
        try:
            actual = _proving_move(open_optimised(written), bundle, direction)
        except BackendError as error:
            if is_out_of_memory(str(error)):
                raise
            raise _Refused(
                f"ONNX Runtime {onnxruntime.__version__} cannot play its own optimised {direction} graph"
            ) from error
        proof[direction] = relative_l2(actual, expected)
        if not is_proved(proof[direction], precision):
            version, far = onnxruntime.__version__, f"relative L2 {proof[direction]:.1e}"
            raise _Refused(
                f"ONNX Runtime {version}'s own optimised {direction} graph gives other images, {far}"
            )
    return proof


def _proving_move(session: onnxruntime.InferenceSession, bundle: Bundle, direction: str) -> np.ndarray:
    """What a session makes of fixed noise at the level where the move begins."""
    try:
        return np.asarray(session.run(None, proving_inputs(bundle, direction))[0])
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise BackendError(f"ONNX Runtime cannot play {PROOF[direction]}: {first_line(error)}") from error


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
    return files | {
        f"{direction}/model.onnx": sha256(folder / direction / "model.onnx") for direction in DIRECTIONS
    }


def _is_whole(entry: Path, precision: str) -> bool:
    """Whether every file is as it was written, and both graphs have been proved."""
    try:
        facts: dict[str, Any] = json.loads((entry / ENTRY).read_text())
        names = {f"{direction}/{name}" for direction in DIRECTIONS for name in ("model.onnx", WEIGHTS)}
        proved = set(facts["proof"]) == set(DIRECTIONS) and all(
            is_proved(far, precision) for far in facts["proof"].values()
        )
        return (
            proved
            and set(facts["files"]) == names
            and all(sha256(entry / name) == digest for name, digest in facts["files"].items())
        )
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return False


def _text(file: Path) -> str:
    """What a file says, or "" if it cannot be read."""
    try:
        return file.read_text().strip()
    except (OSError, ValueError):
        return ""
