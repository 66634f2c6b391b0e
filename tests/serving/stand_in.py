"""A stand-in for the ONNX Runtime and TensorRT backends of Triton.

It plays model.onnx, or the graph beside a plan, on a processor. So tests see that a repository loads with its
configurations, and that its tensors are those of the graphs. How the real backends behave is not tested.
"""

import json
from pathlib import Path
from typing import Any

import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self.config = json.loads(args["model_config"])
        version = Path(args["model_repository"]) / args["model_version"]
        if plan := self.config["default_model_filename"]:
            assert (version / plan).is_file(), f"no {plan}"
        self.session = onnxruntime.InferenceSession(version / "model.onnx")
        graph = {tensor.name: len(tensor.shape) for tensor in self.session.get_inputs()}
        configured = {tensor["name"]: 1 + len(_dims(tensor)) for tensor in self.config["input"]}
        if graph != configured:
            raise pb_utils.TritonModelException(
                f"the configured inputs are {configured}, those of the graph {graph}"
            )

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        names = [tensor.name for tensor in self.session.get_outputs()]
        outputs = self.session.run(names, inputs)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, value) for name, value in zip(names, outputs, strict=True)]
        )


def _dims(tensor: dict[str, Any]) -> list[str]:
    return tensor["reshape"]["shape"] if "reshape" in tensor else tensor["dims"]
