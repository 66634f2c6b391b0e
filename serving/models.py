"""The classes that Triton's Python backend loads.

There is one object per model instance, each in its own process. The folder of model.py also contains the
bundle and this package, so a server needs numpy and the library of a backend, and no installation of this
package.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BackendError, BcmError, InputError
from ..runtime.loading import load
from ..runtime.machine.resources import threads
from ..runtime.pixels import SIGNED
from .answers import TASKS, Values, answer_moves, stream
from .signatures import Signature, move_signatures, stream_signature, task_signatures

BUNDLE = "bundle"  # the folder of the bundle, beside model.py
# The longest error message, in characters. A message may contain a schedule of any length, and gRPC drops a
# response whose status is too long.
LONGEST_MESSAGE = 1000


class _Model(ABC):
    """The common part of all models: the loaded bundle, and the conversion of requests to arrays."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle. Triton calls this once. args: its description of the model."""
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        # All processes of a model together use each processor once. With all threads in each process,
        # throughput was half as high.
        threads_per_process = max(1, threads() // config["instance_group"][0]["count"])
        os.environ.setdefault("BCM_EDGE_THREADS", str(threads_per_process))
        self.bcm = load(
            Path(args["model_repository"]) / args["model_version"] / BUNDLE,
            backend=parameters["backend"],
            batch=config["max_batch_size"],
            precision=parameters["precision"],
            value_range=SIGNED,  # answers.py checks the range of each request before requests are merged
        )
        self.name = parameters["plays"]
        self.signature = self.find_signature()

    @abstractmethod
    def find_signature(self) -> Signature:
        """Return the inputs and outputs of the model."""

    def finalize(self) -> None:
        """Close the bundle. Triton calls this when it unloads the model."""
        self.bcm.close()

    def read(self, request: Any) -> Values:
        """Return tensor name → input of a request, [N, …]. Raises InputError for text that is not UTF-8."""
        import triton_python_backend_utils as pb_utils

        inputs = {}
        for tensor in self.signature.inputs:
            value = pb_utils.get_input_tensor_by_name(request, tensor.name)
            if value is not None:
                inputs[tensor.name] = _rows(value.as_numpy(), tensor.dims)
        return inputs


class _Answering(_Model):
    """A model with one response per request."""

    @abstractmethod
    def answer(self, requests: Sequence[Values]) -> Sequence[Values | BcmError]:
        """Return the outputs of each request, in order, or the error if a request fails."""

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return the responses to requests, in order. Triton calls this with several requests at once."""
        inputs = [self.read_or_error(request) for request in requests]
        answers = iter(self.answer([values for values in inputs if not isinstance(values, BcmError)]))
        responses = []
        for request, values in zip(requests, inputs, strict=True):
            outputs = values if isinstance(values, BcmError) else next(answers)
            responses.append(_response(outputs, request))
        return responses

    def read_or_error(self, request: Any) -> Values | InputError:
        """Return the inputs of a request, or the error if they cannot be read."""
        try:
            return self.read(request)
        except InputError as error:
            return error


class TaskModel(_Answering):
    """A task of answers.py: a whole chain per request."""

    def find_signature(self) -> Signature:
        """Return the inputs and outputs of the task."""
        return task_signatures(self.bcm.bundle.manifest.model)[self.name]

    def answer(self, requests: Sequence[Values]) -> Sequence[Values | BcmError]:
        """Return the outputs or the error of each request."""
        return TASKS[self.name].answer(self.bcm, requests)


class MoveModel(_Answering):
    """The model of one direction, with one network call per request.

    It is for servers that have no backend for graphs or engines.
    """

    def find_signature(self) -> Signature:
        """Return the inputs and outputs of the graph of the direction."""
        return move_signatures(self.bcm.bundle.manifest.model)[self.name]

    def answer(self, requests: Sequence[Values]) -> Sequence[Values | BcmError]:
        """Return the outputs or the error of each request."""
        return answer_moves(self.bcm.backend, self.name, requests)


class StreamModel(_Model):
    """The model that generates, with one response after every network call.

    Requests are played one by one, because each has its own stream of responses.
    """

    def find_signature(self) -> Signature:
        """Return the inputs of a request, and the outputs of each response."""
        return stream_signature(self.bcm.bundle.manifest.model)

    def execute(self, requests: Sequence[Any]) -> None:
        """Play requests, and send their responses. Triton calls this with several requests at once."""
        import triton_python_backend_utils as pb_utils

        for request in requests:
            sender = request.get_response_sender()
            try:
                stream(self.bcm, self.read(request), partial(_send, sender, request))
            except BcmError as error:
                sender.send(_response(error, request))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _send(sender: Any, request: Any, outputs: Values) -> None:
    sender.send(_response(outputs, request))


def _rows(array: np.ndarray, dims: Sequence[int]) -> np.ndarray:
    """Return an input with one row per sample: numbers and texts without their dimension of size 1.

    Raises InputError for text that is not UTF-8.
    """
    rows = array[:, 0] if tuple(dims) == (1,) else array
    if rows.dtype != np.object_:
        return rows
    try:
        return np.array([text.decode() for text in rows], object)
    except UnicodeDecodeError as error:
        raise InputError(f"a text is not UTF-8 ({error.reason})") from error


def _response(outputs: Values | BcmError, request: Any) -> Any:
    """Return Triton's response to a request: the requested outputs, or an error."""
    import triton_python_backend_utils as pb_utils

    if isinstance(outputs, BcmError):
        # A BackendError is an InputError, but a problem of the server, and not of the request.
        is_invalid_request = isinstance(outputs, InputError) and not isinstance(outputs, BackendError)
        code = pb_utils.TritonError.INVALID_ARG if is_invalid_request else pb_utils.TritonError.INTERNAL
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(outputs)[:LONGEST_MESSAGE], code))
    requested = request.requested_output_names()
    tensors = [
        pb_utils.Tensor(name, np.ascontiguousarray(array))
        for name, array in outputs.items()
        if name in requested
    ]
    return pb_utils.InferenceResponse(tensors)
