"""Check without a server whether a repository fits the bundle it was made from.

It finds problems that Triton reports only when it loads a model, and some that Triton never reports, for
example a CUDA graph for more samples than the engine supports.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.text_format import ParseError
from onnx import TensorProto

from ...errors import BcmError, CheckFailed
from ...runtime.engines.store import Engine
from ...runtime.storage.bundle import Bundle, open_bundle
from ...runtime.storage.hashes import sha256
from ...serving.models import BUNDLE
from . import contents
from .configs import WARM, read_config

ONNX_TYPES = {int(TensorProto.FLOAT): "TYPE_FP32", int(TensorProto.INT64): "TYPE_INT64"}
BYTES = {"TYPE_FP32": 4, "TYPE_INT32": 4, "TYPE_INT64": 8, "TYPE_UINT64": 8, "TYPE_UINT8": 1, "TYPE_BOOL": 1}

Interface = dict[str, tuple[str | None, tuple[int, ...]]]  # tensor → (type as in a config, shape of a sample)


def lint(root: Path, bundle: Bundle, precision: str, engines: Sequence[Engine]) -> None:
    """Raise CheckFailed with all problems of the repository in the folder `root`."""
    problems = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        try:
            config = read_config((folder / "config.pbtxt").read_text(encoding="utf-8"))
        except (OSError, ParseError) as error:
            problems.append(
                f"{folder.name}: config.pbtxt is not a valid Triton model configuration ({error})"
            )
            continue
        problems += [
            f"{folder.name}: {problem}" for problem in _problems(folder, config, bundle, precision, engines)
        ]
    if problems:
        raise CheckFailed(f"{root.name}: {len(problems)} problems\n  " + "\n  ".join(problems))


def _problems(
    folder: Path, config: dict[str, Any], bundle: Bundle, precision: str, engines: Sequence[Engine]
) -> Iterator[str]:
    """Yield the problems of one model."""
    if config.get("name") != folder.name:
        yield f"config.pbtxt names the model {config.get('name')!r}, but its folder is {folder.name!r}"
    versions = [path for path in folder.iterdir() if path.name.isdigit()]
    if not versions:
        yield "there is no version folder"
    if "dynamic_batching" in config and config["instance_group"][0]["count"] < 2:
        yield (
            "dynamic batching with one instance: clients that wait for each answer may wait 0.5 s for nothing"
        )
    yield from _warm_up_problems(folder, config)
    for version in versions:
        if config["backend"] == "python":
            yield from _code_problems(version, bundle)
        elif config["backend"] == "tensorrt":
            yield from _plan_problems(version, config, folder.name.removeprefix("bcm_"), engines)
        else:
            yield from _graph_problems(version, config, bundle, precision)


def _warm_up_problems(folder: Path, config: dict[str, Any]) -> Iterator[str]:
    required = [tensor["name"] for tensor in config["input"] if not tensor.get("optional")]
    largest = config["max_batch_size"]
    for request in config.get("model_warmup", []):
        if int(request["batch_size"]) > largest:
            yield f"the warm-up has {request['batch_size']} samples, but the largest batch is {largest}"
        if set(request["inputs"]) != set(required):
            yield (
                f"the warm-up has the inputs {', '.join(request['inputs'])}, "
                f"but the model needs {', '.join(required)}"
            )
        for name, tensor in request["inputs"].items():
            if "input_data_file" not in tensor:
                continue
            file = folder / WARM / tensor["input_data_file"]
            size = BYTES[tensor["data_type"]] * prod(int(n) for n in tensor["dims"])
            if not file.is_file() or file.stat().st_size != size:
                yield f"{WARM}/{file.name} is not a sample of {name} ({size} bytes)"


def _code_problems(version: Path, bundle: Bundle) -> Iterator[str]:
    for name in ("model.py", contents.ARCHIVE):
        if not (version / name).is_file():
            yield f"{name} is missing"
    try:
        if open_bundle(version / BUNDLE).manifest.files != bundle.manifest.files:
            yield "its bundle is another one"
    except BcmError as error:
        yield str(error)


def _graph_problems(version: Path, config: dict[str, Any], bundle: Bundle, precision: str) -> Iterator[str]:
    try:
        model = onnx.load(version / contents.GRAPH, load_external_data=False)
    except (OSError, ValueError) as error:
        yield f"{contents.GRAPH} cannot be read ({error})"
        return
    for kind, values in (("input", model.graph.input), ("output", model.graph.output)):
        in_graph: Interface = {
            value.name: (_type_in_graph(value), _shape_in_graph(value)) for value in values
        }
        in_config: Interface = {
            tensor["name"]: (tensor["data_type"], _shape_in_config(tensor)) for tensor in config[kind]
        }
        if in_graph != in_config:
            yield f"the {kind}s in config.pbtxt are {in_config}, but those of the graph are {in_graph}"
    hashes = bundle.hashes(precision)
    for file in version.iterdir():
        if file.name != contents.GRAPH and hashes.get(file.name) != sha256(file):
            yield f"{file.name} differs from the file in the bundle"


def _type_in_graph(value: onnx.ValueInfoProto) -> str | None:
    return ONNX_TYPES.get(value.type.tensor_type.elem_type)


def _shape_in_graph(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """The shape of a sample, without the first dimension, N."""
    dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return tuple(dims[1:])


def _shape_in_config(tensor: dict[str, Any]) -> tuple[int, ...]:
    dims = tensor["reshape"].get("shape", []) if "reshape" in tensor else tensor["dims"]
    return tuple(int(n) for n in dims)


def _plan_problems(
    version: Path, config: dict[str, Any], direction: str, engines: Sequence[Engine]
) -> Iterator[str]:
    file_names = config["cc_model_filenames"]
    largest_batch = config["max_batch_size"]
    graph_specs = config["optimization"]["cuda"].get("graph_spec", [])
    graph_batches = [spec["batch_size"] for spec in graph_specs]
    for engine in engines:
        facts = engine.facts
        file_name = file_names.get(facts.capability)
        if file_name is None or not _is_plan(version / file_name, facts.files[direction].sha256):
            yield f"the plan of {engine.name} is missing"
        profiles = facts.options.profiles
        if any(
            not any(smallest <= size <= largest for smallest, _, largest in profiles)
            for size in (largest_batch, *graph_batches)
        ):
            yield (
                f"batches of {largest_batch} and CUDA graphs for {graph_batches} do not fit {engine.name}, "
                f"which has the profiles {facts.options.profiles_text}"
            )
        used = config["instance_group"][0].get("profile", ["0"])
        if used != [str(index) for index in range(len(profiles))]:
            yield f"it uses the profiles {', '.join(used)}, but {engine.name} has {len(profiles)}"
    default = config["default_model_filename"]
    if default not in file_names.values():
        yield f"the default plan {default} is not one of the plans in cc_model_filenames"


def _is_plan(file: Path, digest: str) -> bool:
    return file.is_file() and sha256(file) == digest
