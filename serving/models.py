"""The classes that Triton's Python backend loads, one object per model instance, each in a process of its own.

Beside model.py lie the bundle and this package, so that a server needs numpy and the library of a backend, and nothing of ours.
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

BUNDLE = "bundle"  # beside model.py
MOST_SAID = 1000  # characters of a message: it may cite a schedule of any length, and gRPC drops an answer whose status is too long


class _Model(ABC):
    """What the three kinds share: a loaded bundle, and requests as arrays."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        # together the processes of a model take every processor once; each with all of them halved the throughput
        os.environ.setdefault(
            "BCM_EDGE_THREADS", str(max(1, threads() // config["instance_group"][0]["count"]))
        )
        bundle = Path(args["model_repository"]) / args["model_version"] / BUNDLE
        # the range of images is checked per request (answers.py), before requests are merged
        self.bcm = load(
            bundle, parameters["backend"], config["max_batch_size"], parameters["precision"], SIGNED
        )
        self.what = parameters["plays"]
        self.signature = self.find_signature()

    @abstractmethod
    def find_signature(self) -> Signature:
        """Of what it plays."""

    def finalize(self) -> None:
        self.bcm.close()

    def read(self, request: Any) -> Values:
        """Raises InputError for text that is none."""
        import triton_python_backend_utils as pb_utils

        found = {
            tensor.name: pb_utils.get_input_tensor_by_name(request, tensor.name)
            for tensor in self.signature.inputs
        }
        return {
            tensor.name: _rows(found[tensor.name].as_numpy(), tensor.dims)
            for tensor in self.signature.inputs
            if found[tensor.name]
        }


class _Answering(_Model):
    """One answer per request."""

    @abstractmethod
    def answer(self, requests: Sequence[Values]) -> Sequence[Values | BcmError]:
        """Of each request, in order."""

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        given = [self.read_or_error(request) for request in requests]
        found = iter(self.answer([of for of in given if not isinstance(of, BcmError)]))
        return [
            _response(of if isinstance(of, BcmError) else next(found), request)
            for of, request in zip(given, requests, strict=True)
        ]

    def read_or_error(self, request: Any) -> Values | InputError:
        try:
            return self.read(request)
        except InputError as error:
            return error


class TaskModel(_Answering):
    """A task of answers.py: a whole chain per request."""

    def find_signature(self) -> Signature:
        return task_signatures(self.bcm.bundle.manifest.model)[self.what]

    def answer(self, requests: Sequence[Values]) -> Sequence[Values | BcmError]:
        return TASKS[self.what].answer(self.bcm, requests)


class MoveModel(_Answering):
    """One direction, one network call per request: for servers that have the backend of neither graphs nor engines."""

    def find_signature(self) -> Signature:
        return move_signatures(self.bcm.bundle.manifest.model)[self.what]

    def answer(self, requests: Sequence[Values]) -> Sequence[Values | BcmError]:
        return answer_moves(self.bcm.backend, self.what, requests)


class StreamModel(_Model):
    """Generation that answers after every network call. Requests are played one by one, since each has a stream of its own."""

    def find_signature(self) -> Signature:
        return stream_signature(self.bcm.bundle.manifest.model)

    def execute(self, requests: Sequence[Any]) -> None:
        import triton_python_backend_utils as pb_utils

        for request in requests:
            sender = request.get_response_sender()
            try:
                stream(self.bcm, self.read(request), partial(_send, sender, request))
            except BcmError as error:
                sender.send(_response(error, request))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _send(sender: Any, request: Any, shown: Values) -> None:
    sender.send(_response(shown, request))


def _rows(array: np.ndarray, dims: Sequence[int]) -> np.ndarray:
    """One row per sample: numbers and texts lose their dimension of 1. Raises InputError for text that is none."""
    rows = array[:, 0] if tuple(dims) == (1,) else array
    if rows.dtype != np.object_:
        return rows
    try:
        return np.array([text.decode() for text in rows], object)
    except UnicodeDecodeError as error:
        raise InputError(f"a text is not UTF-8 ({error.reason})") from error


def _response(of: Values | BcmError, request: Any) -> Any:
    import triton_python_backend_utils as pb_utils

    if isinstance(of, BcmError):
        given = isinstance(of, InputError) and not isinstance(of, BackendError)
        code = pb_utils.TritonError.INVALID_ARG if given else pb_utils.TritonError.INTERNAL
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(of)[:MOST_SAID], code))
    wanted = request.requested_output_names()
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor(name, np.ascontiguousarray(of[name])) for name in of if name in wanted]
    )
