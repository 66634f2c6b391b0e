"""OpenVINO's compiled networks, kept in the cache once they have been proved: one per direction and batch size.

    KEY/network.blob      what OpenVINO exported
    KEY/entry.json        its sha256, and how far its move was from that of the network just compiled

OpenVINO has a cache of its own, which reads its files unchecked: one with flipped bits gave other images without an error.
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
LAYOUT = 1  # of an entry; raised when what is written there changes


class Compiled(NamedTuple):
    """memory: what the network's weights lie in, to be kept as long as it is; None if it has its own."""

    network: openvino.CompiledModel
    memory: np.ndarray | None = None


class Compiler:
    """Networks of a bundle in one precision. folder: of the cache, None to compile anew each time."""

    def __init__(
        self, bundle: Bundle, precision: str, properties: dict[str, Any], folder: Path | None
    ) -> None:
        import openvino

        self._bundle, self._precision, self._properties, self._folder = bundle, precision, properties, folder
        self._core = openvino.Core()
        self._facts = [LAYOUT, bundle.hashes(precision), openvino.__version__, properties]

    def network(self, direction: str, batch: int) -> Compiled:
        """The network of a direction at a batch size. Raises BackendError for graphs that OpenVINO cannot compile."""
        if self._folder is None:
            return Compiled(self._compile(direction, batch))
        entry = self._folder / entry_key([*self._facts, direction, batch])
        what = f"{direction} graph at batch {batch}"
        with making:
            if kept := self._read(entry):
                log.info("openvino: %s: cache entry reused, %s", what, entry)
                return kept
            network = self._compile(direction, batch)
            try:
                self._keep(network, entry, proving_inputs(self._bundle, direction, batch))
            except (OutputError, RuntimeError) as error:  # it is compiled anew at the next start
                log.warning("openvino: %s: no cache entry, %s", what, first_line(error))
            return Compiled(network)

    def _compile(self, direction: str, batch: int) -> openvino.CompiledModel:
        graph, started = self._bundle.graphs(self._precision)[direction], time.perf_counter()
        try:
            model = self._core.read_model(graph)
            model.reshape({port: [batch, *list(port.partial_shape)[1:]] for port in model.inputs})
            network = self._core.compile_model(model, "CPU", self._properties)
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot open {graph}: {first_line(error)}") from error
        log.info(
            "openvino: %s graph at batch %d: compiled in %.3f s",
            direction,
            batch,
            time.perf_counter() - started,
        )
        return network

    def _read(self, entry: Path) -> Compiled | None:
        """The network of an entry that is whole and proved, else None."""
        import openvino

        try:
            facts = json.loads((entry / ENTRY).read_text())
            if not is_proved(facts["proof"], self._precision) or sha256(entry / BLOB) != facts["sha256"]:
                return None
            blob = np.memmap(entry / BLOB, np.uint8, "c")  # OpenVINO asks for memory that it could write to
            network = self._core.import_model(
                openvino.Tensor(blob, shared_memory=True), "CPU", self._properties
            )
            return Compiled(network, blob)
        except (OSError, ValueError, TypeError, KeyError, RuntimeError):
            return None

    def _keep(self, network: openvino.CompiledModel, entry: Path, inputs: dict[str, np.ndarray]) -> None:
        """Write an entry if what is imported from it plays the proving move as the network does. Raises OutputError or RuntimeError."""
        exported = network.export_model()
        blob = exported.getvalue() if isinstance(exported, io.BytesIO) else bytes(exported)
        imported = self._core.import_model(blob, "CPU", self._properties)
        far = relative_l2(*(np.array(n.create_infer_request().infer(inputs)[0]) for n in (imported, network)))
        if not is_proved(far, self._precision):
            raise RuntimeError(f"OpenVINO gives other images after export and import, relative L2 {far:.1e}")
        with replacing(entry, force=True, marker=BLOB) as folder:
            folder.mkdir()
            (folder / BLOB).write_bytes(blob)
            (folder / ENTRY).write_text(json.dumps({"sha256": sha256(folder / BLOB), "proof": far}))
