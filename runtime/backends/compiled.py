"""The cache of networks that OpenVINO compiled. It has one verified entry per direction and batch size.

    KEY/network.blob      the compiled network, as OpenVINO exported it
    KEY/entry.json        its sha256, and the relative L2 distance of the move that verified it

OpenVINO's own cache is not used, because it does not check its files: an entry with flipped bits gave other
images without an error.
"""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...errors import BackendError, OutputError
from ..accuracy import relative_l2
from ..log import log
from ..storage.bundle import Bundle
from ..storage.files import replacing
from ..storage.hashes import sha256
from ..wording import first_line
from .cached import ENTRY, entry_key, is_proved, making, proving_inputs

if TYPE_CHECKING:
    import openvino

BLOB = "network.blob"
LAYOUT = 1  # the version of the format of entries; raised when the format changes


class Compiled(NamedTuple):
    """A compiled network."""

    network: openvino.CompiledModel
    # The memory that contains the weights. It must exist as long as the network. None if the network owns its
    # memory.
    memory: np.ndarray | None = None


class Compiler:
    """A compiler for the graphs of a bundle in one precision, with a cache."""

    def __init__(
        self, bundle: Bundle, precision: str, properties: dict[str, Any], folder: Path | None
    ) -> None:
        """properties: for OpenVINO. folder: the cache; None compiles each graph again at every start."""
        import openvino

        self._bundle = bundle
        self._precision = precision
        self._properties = properties
        self._folder = folder
        self._core = openvino.Core()
        self._facts = [LAYOUT, bundle.hashes(precision), openvino.__version__, properties]

    def network(self, direction: str, batch: int) -> Compiled:
        """Return the network of a direction for a batch size.

        Raises BackendError if OpenVINO cannot compile the graph.
        """
        if self._folder is None:
            return Compiled(self._compile(direction, batch))
        entry = self._folder / entry_key([*self._facts, direction, batch])
        graph_name = f"{direction} graph at batch {batch}"
        with making:
            cached = self._read(entry)
            if cached is not None:
                log.info("openvino: %s: cache entry reused, %s", graph_name, entry)
                return cached
            network = self._compile(direction, batch)
            try:
                self._write(network, entry, proving_inputs(self._bundle, direction, batch))
            except (OutputError, RuntimeError) as error:  # the next start compiles the graph again
                log.warning("openvino: %s: no cache entry, %s", graph_name, first_line(error))
            return Compiled(network)

    def _compile(self, direction: str, batch: int) -> openvino.CompiledModel:
        graph = self._bundle.graphs(self._precision)[direction]
        started = time.perf_counter()
        try:
            model = self._core.read_model(graph)
            shapes = {port: [batch, *list(port.partial_shape)[1:]] for port in model.inputs}
            model.reshape(shapes)
            network = self._core.compile_model(model, "CPU", self._properties)
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot open {graph}: {first_line(error)}") from error
        seconds = time.perf_counter() - started
        log.info("openvino: %s graph at batch %d: compiled in %.3f s", direction, batch, seconds)
        return network

    def _read(self, entry: Path) -> Compiled | None:
        """Return the network of a complete and verified entry, else None."""
        import openvino

        try:
            facts = json.loads((entry / ENTRY).read_text())
            if not is_proved(facts["proof"], self._precision) or sha256(entry / BLOB) != facts["sha256"]:
                return None
            blob = np.memmap(entry / BLOB, np.uint8, "c")  # OpenVINO requires writable memory
            tensor = openvino.Tensor(blob, shared_memory=True)
            network = self._core.import_model(tensor, "CPU", self._properties)
            return Compiled(network, blob)
        except (OSError, ValueError, TypeError, KeyError, RuntimeError):
            return None

    def _write(self, network: openvino.CompiledModel, entry: Path, inputs: dict[str, np.ndarray]) -> None:
        """Write an entry if the network that is imported from it computes the same move.

        Raises OutputError, or RuntimeError if the moves differ.
        """
        exported = network.export_model()
        blob = exported.getvalue() if isinstance(exported, io.BytesIO) else bytes(exported)
        imported = self._core.import_model(blob, "CPU", self._properties)
        distance = relative_l2(_first_output(imported, inputs), _first_output(network, inputs))
        if not is_proved(distance, self._precision):
            raise RuntimeError(
                f"OpenVINO gives other images after export and import, relative L2 {distance:.1e}"
            )
        with replacing(entry, force=True, marker=BLOB) as folder:
            folder.mkdir()
            (folder / BLOB).write_bytes(blob)
            facts = {"sha256": sha256(folder / BLOB), "proof": distance}
            (folder / ENTRY).write_text(json.dumps(facts))


def _first_output(network: openvino.CompiledModel, inputs: dict[str, np.ndarray]) -> np.ndarray:
    return np.array(network.create_infer_request().infer(inputs)[0])
