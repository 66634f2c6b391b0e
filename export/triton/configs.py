"""The models of a repository, with their config.pbtxt as Triton's own protobuf prints it.

With dynamic batching and one instance, a client that waits for each answer before it sends the next request
may wait 0.5 s for nothing (docs/serving.md). So models with one instance have no dynamic batching.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...runtime.engines.store import Engine
from ...serving.signatures import Signature, Tensor

# Microseconds that a request for a task waits for others to be batched with. A single move waits for none:
# it is one of many in a chain, and each of them would wait.
TASK_DELAY = 2000
QUEUE_SECONDS = 30  # after which a waiting request is refused; a client may ask for less
QUEUE_LENGTH = 256  # how many requests may wait; more are refused at once
WARM = "warmup"  # the folder in which Triton looks for the files of warm-up requests

Samples = Mapping[str, np.ndarray]  # input → one sample of it


@dataclass(frozen=True)
class Serving:
    """Settings that all models of a repository share. triton.json contains them under these names."""

    # The largest number of samples in one request or batch.
    max_batch: int = 16
    # How many instances every model has.
    instances: int = 2
    # The folder on the server in which ONNX Runtime stores the engines that it compiles with TensorRT.
    # None: it does not use TensorRT.
    trt_cache: str | None = None
    # The parameters of every config.
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A model of the repository."""

    name: str
    signature: Signature
    # Triton's ModelConfig, as JSON values.
    config: dict[str, Any]
    # The samples of the warm-up request for the inputs that may not be zero.
    warm: Samples = field(default_factory=dict)


def python_model(
    name: str,
    program: str,
    signature: Signature,
    serving: Serving,
    backend: str,
    precision: str,
    warm: Samples,
) -> Model:
    """Return a model of Triton's Python backend, which runs one of the classes in serving/models.py.

    program: the task or the direction of a move that it plays. backend: of the runtime, inside the model.
    Triton itself places the model on the processor.
    """
    parameters = {"plays": program, "backend": backend, "precision": precision, **serving.facts}
    is_move = "t" in warm
    delay = 0 if is_move else TASK_DELAY
    config = _common(name, signature, replace(serving, facts=parameters), delay, in_graph=False)
    config["backend"] = "python"
    config["instance_group"] = [{"count": serving.instances, "kind": "KIND_CPU"}]
    config |= _warm_up(signature, warm, [1])
    return Model(name, signature, config, warm)


def stream_model(name: str, signature: Signature, serving: Serving, backend: str, precision: str) -> Model:
    """Return the model that generates and answers after every network call.

    Its requests are not batched. It has no warm-up, since Triton's warm-up waits for exactly one answer.
    """
    model = python_model(name, "generate", signature, serving, backend, precision, {})
    config = {
        key: value for key, value in model.config.items() if key not in ("dynamic_batching", "model_warmup")
    }
    config["model_transaction_policy"] = {"decoupled": True}
    return replace(model, config=config)


def graph_model(name: str, signature: Signature, serving: Serving, warm: Samples) -> Model:
    """Return a model of Triton's ONNX Runtime backend, which runs model.onnx."""
    config = _common(name, signature, serving, 0, in_graph=True)
    config |= {"backend": "onnxruntime", "platform": "onnxruntime_onnx"}
    if serving.trt_cache:
        accelerator = {"name": "tensorrt", "parameters": _trt_parameters(signature, serving)}
        config["optimization"] = {"execution_accelerators": {"gpu_execution_accelerator": [accelerator]}}
    config |= _warm_up(signature, warm, [1])
    return Model(name, signature, config, warm)


def engine_model(
    name: str, signature: Signature, serving: Serving, engines: Sequence[Engine], warm: Samples
) -> Model:
    """Return a model of Triton's TensorRT backend, with one plan per compute capability.

    It gets a CUDA graph for every number of samples that is a power of two, and for the largest. All plans
    have the same number of profiles, from which Triton chooses for each batch.
    """
    largest = min(serving.max_batch, *(engine.facts.options.largest for engine in engines))
    sizes = sorted({1 << exponent for exponent in range(largest.bit_length())} | {largest})
    config = _common(name, signature, replace(serving, max_batch=largest), 0, in_graph=True)
    plans = {engine.facts.capability: plan_name(engine.facts.capability) for engine in engines}
    count = len(engines[0].facts.options.profiles)
    if count > 1:
        # Without this list, Triton uses profile 0 only.
        config["instance_group"][0]["profile"] = [str(index) for index in range(count)]
    config |= {
        "backend": "tensorrt",
        "platform": "tensorrt_plan",
        "default_model_filename": next(iter(plans.values())),
        "cc_model_filenames": plans,
        "optimization": {
            "cuda": {
                "graphs": True,
                # Without shapes, Triton takes those of the plan's profile.
                "graph_spec": [{"batch_size": size} for size in sizes],
                "output_copy_stream": True,
            }
        },
    }
    config |= _warm_up(signature, warm, sizes)
    return Model(name, signature, config, warm)


def plan_name(capability: str) -> str:
    """Return the file name of the plan for a compute capability: sm87.plan for 8.7."""
    return f"sm{capability.replace('.', '')}.plan"


def data_type(tensor: Tensor) -> str:
    """Return the type of a tensor as a config writes it: TYPE_FP32, TYPE_STRING, …"""
    return "TYPE_STRING" if tensor.datatype == "BYTES" else f"TYPE_{tensor.datatype}"


def config_text(config: dict[str, Any]) -> str:
    """Return the text of config.pbtxt. Raises ParseError for an unknown field or an invalid value."""
    from google.protobuf import json_format, text_format

    return text_format.MessageToString(json_format.ParseDict(config, _empty_config()), as_utf8=True)


def read_config(text: str) -> dict[str, Any]:
    """Return the fields that a config.pbtxt sets, as JSON values. Raises ParseError if it is not valid."""
    from google.protobuf import json_format, text_format

    parsed = text_format.Parse(text, _empty_config())
    return json_format.MessageToDict(parsed, preserving_proto_field_name=True)


def _empty_config() -> Any:
    from tritonclient.grpc import model_config_pb2

    # The class is created when the module is imported.
    return model_config_pb2.ModelConfig()  # pyright: ignore[reportAttributeAccessIssue]


def _trt_parameters(signature: Signature, serving: Serving) -> dict[str, str]:
    """Settings with which ONNX Runtime compiles one TensorRT engine for all numbers of samples."""
    return {
        "precision_mode": "FP32",  # the engine keeps the types of the graph
        "trt_engine_cache_enable": "true",
        "trt_engine_cache_path": serving.trt_cache or "",
        "trt_profile_min_shapes": _shapes(signature, 1),
        "trt_profile_opt_shapes": _shapes(signature, serving.max_batch),
        "trt_profile_max_shapes": _shapes(signature, serving.max_batch),
    }


def _shapes(signature: Signature, samples: int) -> str:
    """The shapes of the inputs as ONNX Runtime's TensorRT provider reads them: x:16x1x8x8,t:16."""
    shapes = []
    for tensor in signature.inputs:
        sample_shape = () if tensor.dims == (1,) else tensor.dims
        shapes.append(f"{tensor.name}:{'x'.join(map(str, (samples, *sample_shape)))}")
    return ",".join(shapes)


def _common(name: str, signature: Signature, serving: Serving, delay: int, in_graph: bool) -> dict[str, Any]:
    """The fields that all models have.

    delay: microseconds that a request waits to be batched. in_graph: numbers have the shape [N], as in the
    graphs, instead of [N, 1].
    """
    config = {
        "name": name,
        "max_batch_size": serving.max_batch,
        "input": [_tensor(tensor, in_graph) for tensor in signature.inputs],
        "output": [_tensor(tensor, in_graph) for tensor in signature.outputs],
        "instance_group": [{"count": serving.instances, "kind": "KIND_AUTO"}],
        "version_policy": {"latest": {"num_versions": 1}},
        "parameters": {key: {"string_value": value} for key, value in serving.facts.items()},
    }
    if serving.instances > 1:
        config["dynamic_batching"] = {
            "max_queue_delay_microseconds": delay,
            "default_queue_policy": {
                "timeout_action": "REJECT",
                "default_timeout_microseconds": QUEUE_SECONDS * 1_000_000,
                "allow_timeout_override": True,
                "max_queue_size": QUEUE_LENGTH,
            },
        }
    return config


def _tensor(tensor: Tensor, in_graph: bool) -> dict[str, Any]:
    config = {"name": tensor.name, "data_type": data_type(tensor), "dims": list(tensor.dims)}
    if tensor.optional:
        config["optional"] = True
    if in_graph and tensor.dims == (1,):
        config["reshape"] = {"shape": []}
    return config


def _warm_up(signature: Signature, warm: Samples, batches: Sequence[int]) -> dict[str, Any]:
    """The requests that Triton plays before a model is ready. Their inputs are zero, or files in WARM."""
    inputs = {}
    for tensor in signature.inputs:
        if tensor.optional:
            continue
        source = {"input_data_file": tensor.name} if tensor.name in warm else {"zero_data": True}
        inputs[tensor.name] = {"data_type": data_type(tensor), "dims": list(tensor.dims), **source}
    requests = [{"name": f"batch of {size}", "batch_size": size, "inputs": inputs} for size in batches]
    return {"model_warmup": requests}
