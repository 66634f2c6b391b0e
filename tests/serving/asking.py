"""Requests to a server, over HTTP, gRPC, or with tensors in shared memory."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from server import Server
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, shared_memory

Values = Mapping[str, np.ndarray]
WAYS = ("http", "grpc", "http with shared memory", "grpc with shared memory")
RELEASE_SECONDS = 30  # in which a server must release the shared memory of a finished request


class Client:
    """One connection to a server.

    Inputs and outputs are arrays as in the README of the repository. A number or a text stands for [[value]].
    """

    def __init__(self, server: Server, way: str = "grpc") -> None:
        self.way = way
        kind, address = (triton_http, server.http) if way.startswith("http") else (triton_grpc, server.grpc)
        self._kind: ModuleType = kind
        self.raw: Any = kind.InferenceServerClient(address)

    def ask(
        self, model: str, outputs: Sequence[str], inputs: Mapping[str, Any], **options: Any
    ) -> dict[str, np.ndarray]:
        """Send a request, and return its outputs. Raises InferenceServerException if it is refused."""
        values = {name: column(value) for name, value in inputs.items()}
        if "shared" in self.way:
            return self._ask_in_shared_memory(model, outputs, values)
        tensors = [self._input(name, value) for name, value in values.items()]
        requested = [self._kind.InferRequestedOutput(name) for name in outputs]
        answer = self.raw.infer(model, tensors, outputs=requested, **options)
        return {name: answer.as_numpy(name) for name in outputs}

    def close(self) -> None:
        self.raw.close()

    def _input(self, name: str, value: np.ndarray) -> Any:
        tensor = self._kind.InferInput(name, value.shape, np_to_triton_dtype(value.dtype))
        tensor.set_data_from_numpy(value)
        return tensor

    def _ask_in_shared_memory(
        self, model: str, outputs: Sequence[str], values: Values
    ) -> dict[str, np.ndarray]:
        """Send a request with one region of shared memory for each input and output.

        Outputs are float32 images of the shape of the input `image`.
        """
        regions: list[tuple[str, Any]] = []

        def region(size: int) -> tuple[str, Any]:
            name = f"bcm_{uuid.uuid4().hex}"
            handle = shared_memory.create_shared_memory_region(name, f"/{name}", size)
            self.raw.register_system_shared_memory(name, f"/{name}", size)
            regions.append((name, handle))
            return name, handle

        try:
            inputs = []
            for name, value in values.items():
                tensor = self._kind.InferInput(name, value.shape, np_to_triton_dtype(value.dtype))
                place, handle = region(value.nbytes)
                shared_memory.set_shared_memory_region(handle, [value])
                tensor.set_shared_memory(place, value.nbytes)
                inputs.append(tensor)
            like = values["image"]
            requested, handles = [], {}
            for name in outputs:
                tensor = self._kind.InferRequestedOutput(name)
                place, handles[name] = region(like.nbytes)
                tensor.set_shared_memory(place, like.nbytes)
                requested.append(tensor)
            self.raw.infer(model, inputs, outputs=requested)
            return {
                name: shared_memory.get_contents_as_numpy(handle, np.float32, like.shape).copy()
                for name, handle in handles.items()
            }
        finally:
            for name, handle in regions:
                self._unregister(name)
                shared_memory.destroy_shared_memory_region(handle)

    def _unregister(self, name: str) -> None:
        """Unregister a region. The server may still hold it for a moment after it has answered."""
        deadline = time.monotonic() + RELEASE_SECONDS
        while True:
            try:
                return self.raw.unregister_system_shared_memory(name)
            except InferenceServerException as error:
                if "currently in use" not in str(error) or time.monotonic() > deadline:
                    raise


def column(value: Any) -> np.ndarray:
    """Return the array of an input: [N, 1] for one or several numbers or texts, images unchanged.

    Labels become int64, texts become bytes.
    """
    array = np.asarray(value)
    if array.dtype.kind == "U":
        array = np.array([text.encode() for text in array.ravel()], np.object_)
    return array.reshape(-1, 1) if array.ndim < 2 else array
