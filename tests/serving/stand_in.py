"""In the place of Triton's ONNX Runtime and TensorRT backends: plays model.onnx, or what lies beside a plan, on a processor. It shows that
a repository loads under its configs, and that its tensors are those of the graphs; nothing of what the real backends do."""

import json
from pathlib import Path

import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.config = json.loads(args["model_config"])
        version = Path(args["model_repository"]) / args["model_version"]
        if plan := self.config["default_model_filename"]:
            assert (version / plan).is_file(), f"no {plan}"
        self.session = onnxruntime.InferenceSession(version / "model.onnx")
        graph = {tensor.name: len(tensor.shape) for tensor in self.session.get_inputs()}
        told = {
            t["name"]: 1 + len(t["reshape"]["shape"] if "reshape" in t else t["dims"])
            for t in self.config["input"]
        }
        if graph != told:
            raise pb_utils.TritonModelException(f"the config's inputs are {told}, the graph's {graph}")

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        names = [tensor.name for tensor in self.session.get_outputs()]
        found = self.session.run(names, given)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, value) for name, value in zip(names, found, strict=True)]
        )
