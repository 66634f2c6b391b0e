"""Whether a repository fits the bundle it was made from, found without a server: what Triton itself would say only when it loads, and what
it never says, as that a CUDA graph is for more samples than an engine takes."""

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


def lint(root: Path, bundle: Bundle, precision: str, engines: Sequence[Engine]) -> None:
    """Raise CheckFailed with every problem of the repository."""
    problems = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        try:
            config = read_config((folder / "config.pbtxt").read_text(encoding="utf-8"))
        except (OSError, ParseError) as error:
            problems.append(f"{folder.name}: its config.pbtxt is none ({error})")
            continue
        problems += [
            f"{folder.name}: {problem}" for problem in _problems(folder, config, bundle, precision, engines)
        ]
    if problems:
        raise CheckFailed(f"{root.name}: {len(problems)} problems\n  " + "\n  ".join(problems))


def _problems(
    folder: Path, config: dict[str, Any], bundle: Bundle, precision: str, engines: Sequence[Engine]
) -> Iterator[str]:
    if config.get("name") != folder.name:
        yield f"calls itself {config.get('name')!r}"
    versions = [path for path in folder.iterdir() if path.name.isdigit()]
    if not versions:
        yield "has no version"
    if "dynamic_batching" in config and config["instance_group"][0]["count"] < 2:
        yield "batches dynamically with one instance, where clients that wait for answers may wait 0.5 s for nothing"
    yield from _warm_up(folder, config)
    for version in versions:
        if config["backend"] == "python":
            yield from _code(version, bundle)
        elif config["backend"] == "tensorrt":
            yield from _plans(version, config, folder.name.removeprefix("bcm_"), engines)
        else:
            yield from _graph(version, config, bundle, precision)


def _warm_up(folder: Path, config: dict[str, Any]) -> Iterator[str]:
    needed = {tensor["name"]: tensor for tensor in config["input"] if not tensor.get("optional")}
    for sample in config.get("model_warmup", []):
        if int(sample["batch_size"]) > config["max_batch_size"]:
            yield f"is warmed with {sample['batch_size']} samples, and takes {config['max_batch_size']}"
        if set(sample["inputs"]) != set(needed):
            yield f"is warmed with {', '.join(sample['inputs'])}; it needs {', '.join(needed)}"
        for name, given in sample["inputs"].items():
            wanted = BYTES[given["data_type"]] * prod(int(n) for n in given["dims"])
            file = folder / WARM / given.get("input_data_file", "")
            if "input_data_file" in given and (not file.is_file() or file.stat().st_size != wanted):
                yield f"its {WARM}/{file.name} is not a sample of {name}, of {wanted} bytes"


def _code(version: Path, bundle: Bundle) -> Iterator[str]:
    for name in ("model.py", contents.ARCHIVE):
        if not (version / name).is_file():
            yield f"lacks {name}"
    try:
        if open_bundle(version / BUNDLE).manifest.files != bundle.manifest.files:
            yield "has another bundle"
    except BcmError as error:
        yield str(error)


def _graph(version: Path, config: dict[str, Any], bundle: Bundle, precision: str) -> Iterator[str]:
    try:
        model = onnx.load(version / contents.GRAPH, load_external_data=False)
    except (OSError, ValueError) as error:
        yield f"its {contents.GRAPH} cannot be read ({error})"
        return
    for kind, values in (("input", model.graph.input), ("output", model.graph.output)):
        graph = {
            value.name: (ONNX_TYPES.get(value.type.tensor_type.elem_type), _dims(value)) for value in values
        }
        told = {tensor["name"]: (tensor["data_type"], _told_dims(tensor)) for tensor in config[kind]}
        if graph != told:
            yield f"its {kind}s are {told}, those of the graph {graph}"
    hashes = bundle.hashes(precision)
    for file in version.iterdir():
        if file.name != contents.GRAPH and hashes.get(file.name) != sha256(file):
            yield f"{file.name} is not the bundle's"


def _dims(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Without the first, N."""
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)[1:]


def _told_dims(tensor: dict[str, Any]) -> tuple[int, ...]:
    dims = tensor["reshape"].get("shape", []) if "reshape" in tensor else tensor["dims"]
    return tuple(int(n) for n in dims)


def _plans(version: Path, config: dict[str, Any], direction: str, engines: Sequence[Engine]) -> Iterator[str]:
    named = config["cc_model_filenames"]
    for engine in engines:
        plan, known = version / named.get(engine.facts.capability, "-"), engine.facts.files[direction]
        if not plan.is_file() or sha256(plan) != known.sha256:
            yield f"has not the plan of {engine.name}"
        least, _, most = engine.facts.options.batch
        sizes = [spec["batch_size"] for spec in config["optimization"]["cuda"].get("graph_spec", [])]
        if config["max_batch_size"] > most or not all(least <= n <= most for n in sizes):
            yield f"asks for batches of {config['max_batch_size']} and graphs of {sizes}; {engine.name} takes {least} to {most}"
    if config["default_model_filename"] not in named.values():
        yield f"its default plan {config['default_model_filename']} is none of them"
