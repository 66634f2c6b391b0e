"""config.pbtxt of every model, printed by Triton's own protobuf.

A client that waits for each answer before it asks again may wait 0.5 s for nothing, where requests are batched dynamically and there is
one instance (docs/serving.md). So batching comes with two instances or more, and goes with one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...runtime.engines.store import Engine
from ...serving.signatures import Signature, Tensor

TASK_DELAY = 2000  # µs that a task waits for company. A single move waits for none: it is one of many in a chain, each of which would wait
QUEUE_SECONDS = 30  # after which a waiting request is refused; a client may ask for less
QUEUE_LENGTH = 256  # requests; more are refused at once
WARM = "warmup"  # the folder in which Triton looks for what is not zeros


@dataclass(frozen=True)
class Serving:
    """What all models of a repository share. instances: of every model; trt_cache: where ONNX Runtime keeps the engines that TensorRT
    makes for it on a GPU, None for no TensorRT in it; facts: what the parameters of every config tell."""

    max_batch: int = 16
    instances: int = 2
    trt_cache: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A model of the repository. config: Triton's ModelConfig as JSON; warm: tensor → one sample of it, where a warm-up with zeros would
    not be a valid request."""

    name: str
    signature: Signature
    config: dict[str, Any]
    warm: Mapping[str, np.ndarray] = field(default_factory=dict)


def python_model(
    name: str,
    plays: str,
    signature: Signature,
    serving: Serving,
    backend: str,
    precision: str,
    warm: Mapping[str, np.ndarray],
) -> Model:
    """One of serving/models.py in Triton's Python backend, on a processor as far as Triton knows. plays: a task, or a direction."""
    told = {"plays": plays, "backend": backend, "precision": precision}
    delay = 0 if "t" in warm else TASK_DELAY
    config = _common(
        name, signature, replace(serving, facts={**told, **serving.facts}), delay, in_graph=False
    )
    config |= {"backend": "python", "instance_group": [{"count": serving.instances, "kind": "KIND_CPU"}]}
    return Model(name, signature, {**config, **_warm_up(signature, warm, [1])}, warm)


def stream_model(name: str, signature: Signature, serving: Serving, backend: str, precision: str) -> Model:
    """Generation that answers many times: its requests are not merged, and the warm-up, which waits for one answer, is left out."""
    model = python_model(name, "generate", signature, serving, backend, precision, {})
    config = {
        key: value for key, value in model.config.items() if key not in ("dynamic_batching", "model_warmup")
    }
    return replace(model, config={**config, "model_transaction_policy": {"decoupled": True}})


def graph_model(name: str, signature: Signature, serving: Serving, warm: Mapping[str, np.ndarray]) -> Model:
    """A graph in Triton's ONNX Runtime backend, as model.onnx."""
    config = _common(name, signature, serving, 0, in_graph=True) | {
        "backend": "onnxruntime",
        "platform": "onnxruntime_onnx",
    }
    if serving.trt_cache:
        kept = {"trt_engine_cache_enable": "true", "trt_engine_cache_path": serving.trt_cache}
        ends = {
            "min": 1,
            "opt": serving.max_batch,
            "max": serving.max_batch,
        }  # one engine for all numbers of samples
        shapes = {f"trt_profile_{end}_shapes": _profile(signature, n) for end, n in ends.items()}
        accelerator = {
            "name": "tensorrt",
            "parameters": {"precision_mode": "FP32", **kept, **shapes},
        }  # the types are the graph's
        config["optimization"] = {"execution_accelerators": {"gpu_execution_accelerator": [accelerator]}}
    return Model(name, signature, {**config, **_warm_up(signature, warm, [1])}, warm)


def engine_model(
    name: str,
    signature: Signature,
    serving: Serving,
    engines: Sequence[Engine],
    warm: Mapping[str, np.ndarray],
) -> Model:
    """Plans in Triton's TensorRT backend, one per compute capability, with a CUDA graph for every power of two of samples."""
    known = {engine.facts.capability: engine.facts.options.batch for engine in engines}
    least, most = (
        max(batch[0] for batch in known.values()),
        min(serving.max_batch, *(batch[2] for batch in known.values())),
    )
    sizes = [n for n in sorted({1 << k for k in range(most.bit_length())} | {most}) if least <= n <= most]
    serving = replace(serving, max_batch=most)
    config = _common(name, signature, serving, 0, in_graph=True) | {
        "backend": "tensorrt",
        "platform": "tensorrt_plan",
    }
    plans = {capability: plan_name(capability) for capability in known}
    specs = [{"batch_size": n} for n in sizes]  # without shapes, which then are those of the plan's profile
    config |= {
        "default_model_filename": plans[next(iter(known))],
        "cc_model_filenames": plans,
        "optimization": {"cuda": {"graphs": True, "graph_spec": specs, "output_copy_stream": True}},
    }
    return Model(name, signature, {**config, **_warm_up(signature, warm, sizes)}, warm)


def _profile(signature: Signature, n: int) -> str:
    """The inputs' shapes for n samples, as ONNX Runtime's TensorRT takes them: x:16x1x8x8,t:16."""
    return ",".join(
        f"{t.name}:{'x'.join(map(str, (n, *(t.dims if t.dims != (1,) else ()))))}" for t in signature.inputs
    )


def plan_name(capability: str) -> str:
    """Of the plan for a compute capability, in a version's folder."""
    return f"sm{capability.replace('.', '')}.plan"


def data_type(tensor: Tensor) -> str:
    """In the words of a config."""
    return "TYPE_STRING" if tensor.datatype == "BYTES" else f"TYPE_{tensor.datatype}"


def _common(name: str, signature: Signature, serving: Serving, delay: int, in_graph: bool) -> dict[str, Any]:
    """in_graph: numbers have no dimension but N, as in the graphs."""
    policy = {
        "timeout_action": "REJECT",
        "default_timeout_microseconds": QUEUE_SECONDS * 1_000_000,
        "allow_timeout_override": True,
        "max_queue_size": QUEUE_LENGTH,
    }
    batching = {"dynamic_batching": {"max_queue_delay_microseconds": delay, "default_queue_policy": policy}}
    return {
        "name": name,
        "max_batch_size": serving.max_batch,
        "input": [_tensor(tensor, in_graph) for tensor in signature.inputs],
        "output": [_tensor(tensor, in_graph) for tensor in signature.outputs],
        "instance_group": [{"count": serving.instances, "kind": "KIND_AUTO"}],
        "version_policy": {"latest": {"num_versions": 1}},
        **(batching if serving.instances > 1 else {}),
        "parameters": {key: {"string_value": value} for key, value in serving.facts.items()},
    }


def _tensor(tensor: Tensor, in_graph: bool) -> dict[str, Any]:
    config = {"name": tensor.name, "data_type": data_type(tensor), "dims": list(tensor.dims)}
    if tensor.optional:
        config["optional"] = True
    if in_graph and tensor.dims == (1,):
        config["reshape"] = {"shape": []}
    return config


def _warm_up(signature: Signature, warm: Mapping[str, np.ndarray], batches: Sequence[int]) -> dict[str, Any]:
    """Requests that Triton plays before a model counts as ready: zeros, or files of `WARM`."""
    inputs = {
        tensor.name: {"data_type": data_type(tensor), "dims": list(tensor.dims)}
        | ({"input_data_file": tensor.name} if tensor.name in warm else {"zero_data": True})
        for tensor in signature.inputs
        if not tensor.optional
    }
    return {"model_warmup": [{"name": f"batch of {n}", "batch_size": n, "inputs": inputs} for n in batches]}


def config_text(config: dict[str, Any]) -> str:
    """config.pbtxt: what Triton's protobuf makes of it. Raises ParseError for a field or value that it does not know."""
    from google.protobuf import json_format, text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig  # pyright: ignore[reportAttributeAccessIssue]  # made when imported

    return text_format.MessageToString(json_format.ParseDict(config, ModelConfig()), as_utf8=True)


def read_config(text: str) -> dict[str, Any]:
    """The fields that a config.pbtxt sets, as JSON. Raises ParseError."""
    from google.protobuf import json_format, text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig  # pyright: ignore[reportAttributeAccessIssue]

    parsed = text_format.Parse(text, ModelConfig())
    return json_format.MessageToDict(parsed, preserving_proto_field_name=True)
