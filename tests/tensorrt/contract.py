"""What this project takes from TensorRT, and what the real bindings of four versions have: names, signatures, types. Nothing of them runs.

fetch.sh brought them to .tensorrt/; a version that is not there is skipped.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from bcm_edge.runtime.machine.processes import PACKAGE, python_command

FETCHED = Path(__file__).resolve().parents[2] / ".tensorrt"
VERSIONS = ("8.6", "10.3", "10.16", "11.4")

# what the project calls and reads in every version
EVERYWHERE = """
Builder: Builder(logger); create_network(flags) -> INetworkDefinition; create_builder_config() -> IBuilderConfig
Builder: num_DLA_cores; create_optimization_profile() -> IOptimizationProfile; build_serialized_network(network, config) -> IHostMemory
BuilderFlag: TF32; GPU_FALLBACK
DataType: FLOAT; HALF; INT32
DeviceType: DLA
EngineInspector: execution_context; get_engine_information(format) -> str
IBuilderConfig: builder_optimization_level; profiling_verbosity; default_device_type; set_flag(flag) -> None; clear_flag(flag) -> None
IBuilderConfig: set_memory_pool_limit(pool, pool_size) -> None; add_optimization_profile(profile) -> int
IBuilderConfig: create_timing_cache(serialized_timing_cache) -> ITimingCache; set_timing_cache(cache, ignore_mismatch) -> bool
IBuilderConfig: get_timing_cache() -> ITimingCache; can_run_on_DLA(layer) -> bool
ICudaEngine: num_io_tensors; get_tensor_name(index) -> str; get_tensor_mode(name) -> TensorIOMode; get_tensor_shape(name) -> Dims
ICudaEngine: get_tensor_dtype(name) -> DataType; create_engine_inspector() -> EngineInspector
IErrorRecorder: IErrorRecorder()
IExecutionContext: device_memory; set_input_shape(name, shape) -> bool; infer_shapes() -> list[str]
IExecutionContext: set_tensor_address(name, memory) -> bool; execute_async_v3(stream_handle) -> bool
ILayer: name; type; get_input(index) -> ITensor; get_output(index) -> ITensor
ILogger: ILogger(); log(severity, msg) -> None
ILogger.Severity: ERROR; INTERNAL_ERROR
INetworkDefinition: num_layers; num_inputs; get_layer(index) -> ILayer; get_input(index) -> ITensor
IOptimizationProfile: set_shape(input, min, opt, max) -> None
ITensor: name; dtype; shape
ITimingCache: serialize() -> IHostMemory
LayerInformationFormat: JSON
LayerType: CONVOLUTION; DEQUANTIZE
MemoryPoolType: WORKSPACE
OnnxParser: OnnxParser(network, logger); parse_from_file(model) -> bool; num_errors; get_error(index) -> ParserError; set_flag(flag) -> None
OnnxParserFlag: NATIVE_INSTANCENORM
ParserError: desc() -> str
ProfilingVerbosity: DETAILED
Refitter: Refitter(engine, logger); refit_cuda_engine() -> bool; get_missing_weights() -> list[str]
Runtime: Runtime(logger); error_recorder; deserialize_cuda_engine(serialized_engine) -> ICudaEngine
TensorIOMode: INPUT
"""

# what runtime/engines/adapter.py asks for before it uses it
SINCE_10 = """
BuilderFlag: STRIP_PLAN; REFIT_IDENTICAL
DataType: BF16
ExecutionContextAllocationStrategy: USER_MANAGED
IBuilderConfig: progress_monitor
ICudaEngine: device_memory_size_v2; create_execution_context(strategy) -> IExecutionContext
IExecutionContext: set_device_memory(memory, size) -> None
IProgressMonitor: IProgressMonitor(); phase_start(phase_name, parent_phase, num_steps) -> None
IProgressMonitor: step_complete(phase_name, step) -> bool; phase_finish(phase_name) -> None
NetworkDefinitionCreationFlag: STRONGLY_TYPED
OnnxParserRefitter: OnnxParserRefitter(refitter, logger); refit_from_file(model) -> bool; num_errors; get_error(index) -> ParserError
ParserError: node_name() -> str; node_operator() -> str
"""
BEFORE_11 = """
BuilderFlag: FP16; INT8; OBEY_PRECISION_CONSTRAINTS
ICudaEngine: device_memory_size; create_execution_context_without_device_memory() -> IExecutionContext
NetworkDefinitionCreationFlag: EXPLICIT_BATCH
"""

Signatures = dict[
    str, dict[str, list[list[str]]]
]  # class → name → parameters of each overload without self; [] for what is no method

_READ = """
import inspect, json, tensorrt
found = {}
def read(cls):
    members = {name: getattr(cls, name) for name in dir(cls) if name == "__init__" or name[0] != "_"}
    found[cls.__qualname__] = {name: value.__doc__ if callable(value) else None for name, value in members.items()}
    for value in vars(cls).values():
        if inspect.isclass(value):
            read(value)
for value in vars(tensorrt).values():
    if inspect.isclass(value):
        read(value)
print(json.dumps(found))
"""

_DECLARED = """
import enum, importlib, inspect, json
found = {}
for cls in [cls for module in arguments for cls in vars(importlib.import_module(module)).values() if inspect.isclass(cls)]:
    if cls.__module__.startswith(arguments[0]):
        names = [name for name in dir(cls) if name[0] != "_"]
        if issubclass(cls, enum.Enum):
            names = cls.__members__
        elif inspect.isfunction(cls.__init__):
            names.append("__init__")
        found[cls.__name__] = of = {}
        for name in names:
            value = getattr(cls, name)
            if not inspect.isclass(value):
                of[name] = [p for p in inspect.signature(value).parameters if p != "self"] if callable(value) else None
print(json.dumps(found))
"""

_WRITE_ONLY = """
import inspect, json, tensorrt
classes = [cls for cls in vars(tensorrt).values() if inspect.isclass(cls)]
print(json.dumps([(c.__name__, n) for c in classes for n, p in vars(c).items() if isinstance(p, property) and p.fget is None]))
"""

# before a class's name: its module, or what C++ calls it where the class comes later than the method
_MODULES = re.compile(r"\btensorrt(_bindings)?\.|\bnv\w+::(I(?=[A-Z][a-z]))?")

# for a type checker, what the generator cannot tell or tells otherwise
_CORRECTIONS = {
    r"(->|:) bool\b": r"\1 builtins.bool",  # trt.bool is a DataType, and hides it
    r"typing\.SupportsInt": "int",  # C++ hands over nothing else to what Python overrides
    r"(\w+: )Dims(?=[,)])": r"\1Dims | collections.abc.Sequence[int]",  # a tuple "can be used in place", says the doc of Dims
    r"class IHostMemory:\n": "class IHostMemory:\n    def __buffer__(self, flags: int, /) -> memoryview: ...\n",  # says its doc
    r"(def create_engine_inspector\(.*\)) -> \.\.\.": r"\1 -> EngineInspector",  # and three more that are bound before their types
    r"(def get_tensor_mode\(.*\)) -> \.\.\.": r"\1 -> TensorIOMode",
    r"(def get_error\(.*\)) -> \.\.\.": r"\1 -> ParserError",
    r"(def (?:set|clear)_flag\(self, flag: )\.\.\.": r"\1OnnxParserFlag",
    r"\bseverity: \.\.\.": "severity: ILogger.Severity",
    r"^import typing\n": "import builtins\nimport collections.abc\nimport typing\n",
}


def is_fetched(version: str) -> bool:
    """Of VERSIONS, or "builder"."""
    return (FETCHED / version / "tensorrt" / "__init__.py").is_file()


def environment(version: str) -> dict[str, str]:
    """Of a process that imports this TensorRT. Skips the test where it was not to be had."""
    if not is_fetched(version):
        what = "the TensorRT-RTX library" if version == "builder" else f"TensorRT {version}"
        pytest.skip(
            f"{what} is not in .tensorrt: tests/tensorrt/fetch.sh has not run, or said why it cannot be had"
        )
    folder = FETCHED / version
    return {**os.environ, "PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(folder / "lib")}


def run_with(version: str, code: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run code in a process that has this TensorRT, and bcm_edge. given: for its stdin."""
    env = environment(version)
    return subprocess.run(
        python_command(code), input=given, env=env, capture_output=True, text=True, timeout=300, check=False
    )


def signatures_of(version: str) -> Signatures:
    """What this version's classes have; nested ones as "ILogger.Severity"."""
    return {
        cls: {name: [parameters for parameters, _ in overloads] for name, overloads in members.items()}
        for cls, members in _read(version).items()
    }


def spelled(version: str) -> dict[str, set[str]]:
    """Class → its members as text: "get_tensor_name(index) -> str" for each overload of a method, "name" for what is none."""
    return {
        cls: {
            f"{name}({', '.join(parameters)}) -> {returns}"
            if name != "__init__"
            else f"{cls}({', '.join(parameters)})"
            for name, overloads in members.items()
            for parameters, returns in overloads
        }
        | {name for name, overloads in members.items() if not overloads}
        for cls, members in _read(version).items()
    }


def members(table: str) -> list[tuple[str, str]]:
    """(class, member) of EVERYWHERE, SINCE_10 or BEFORE_11."""
    lines = [line.partition(": ") for line in table.strip().splitlines()]
    return [(cls, member) for cls, _, rest in lines for member in rest.split("; ")]


def missing(version: str, table: str) -> list[tuple[str, str]]:
    """Those of them that this version does not have as they stand there."""
    there = spelled(version)
    return [(cls, member) for cls, member in members(table) if member not in there.get(cls, set())]


def unlike(version: str, claimed: Mapping[str, Mapping[str, Sequence[str] | None]]) -> list[str]:
    """What a stand-in has otherwise than this version, a line each. claimed: class → member → parameters without self; None: no method."""
    real = signatures_of(version)
    lines = []
    for cls, members in claimed.items():
        if cls not in real:
            lines.append(f"{version} has no {cls}")
            continue
        for name, parameters in members.items():
            overloads = real[cls].get(name)
            if name == "__init__" and not overloads:  # TensorRT makes it, and a stand-in has its own way
                continue
            if overloads is None:
                lines.append(f"{version} has no {cls}.{name}")
            elif bool(overloads) != (parameters is not None):
                lines.append(f"{cls}.{name} is {'a method' if overloads else 'no method'} in {version}")
            elif parameters is not None and list(parameters) not in overloads:
                real_ones = " or ".join(f"({', '.join(overload)})" for overload in overloads)
                lines.append(f"{cls}.{name} takes {real_ones} in {version}, not ({', '.join(parameters)})")
    return lines


def declared(env: Mapping[str, str], *modules: str) -> dict[str, dict[str, list[str] | None]]:
    """What classes that are written in Python or Cython have, for `unlike`. modules: the first, and parts of it."""
    ended = subprocess.run(
        python_command(_DECLARED, *modules), env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def overridden_from_cpp(version: str) -> dict[str, set[str]]:
    """Class → the names under which TensorRT looks for the methods of a Python subclass. Not those of the class for all: see num_errors."""
    binary = (FETCHED / version / "tensorrt_bindings" / "tensorrt.so").read_bytes()
    found: dict[str, set[str]] = {}
    for cls, name in re.findall(rb'Tried to call pure virtual function "(\w+)::(\w+)"', binary):
        found.setdefault(cls.decode(), set()).add(name.decode())
    return found


def write_stubs(version: str, folder: Path) -> None:
    """Packages `tensorrt` and `cuda.core` of types alone, for a type checker."""
    generator = [
        sys.executable,
        "-m",
        "pybind11_stubgen",
        "tensorrt_bindings",
        "--ignore-all-errors",
        "-o",
        str(folder),
    ]
    subprocess.run(generator, env=environment(version), capture_output=True, timeout=300, check=True)
    file = folder / "tensorrt_bindings" / "tensorrt.pyi"
    text = file.read_text()
    for found, correct in _CORRECTIONS.items():
        text = re.sub(found, correct, text, flags=re.MULTILINE)
    for cls, name in json.loads(run_with(version, _WRITE_ONLY).stdout):  # which the generator leaves out
        text = re.sub(rf"(class {cls}(\(.*\))?:\n)", rf"\1    {name}: typing.Any\n", text)
    file.write_text(text)
    (folder / "tensorrt").mkdir()
    (folder / "tensorrt" / "__init__.pyi").write_text("from tensorrt_bindings import *\n__version__: str\n")
    shutil.copytree(PACKAGE / "typings" / "cuda" / "bindings", folder / "cuda" / "bindings")
    core = importlib.util.find_spec("cuda.core")
    if core is None or core.origin is None:
        pytest.skip("cuda-core is not installed: pip install '.[test]'")
    wheel = Path(
        core.origin
    ).parent  # has its modules in cu12/ and cu13/, and imports them as cuda.core's own
    shutil.copytree(wheel / "cu13", folder / "cuda" / "core", ignore=_all_but_python)
    for module in wheel.glob("*.py*"):
        shutil.copy(module, folder / "cuda" / "core")


def _all_but_python(folder: str, names: list[str]) -> set[str]:
    return {
        name for name in names if not name.endswith((".py", ".pyi")) and not (Path(folder) / name).is_dir()
    }


@functools.cache
def _read(version: str) -> dict[str, dict[str, list[tuple[list[str], str]]]]:
    """Class → name → (parameters, returned type) of each overload."""
    ended = run_with(version, _READ)
    assert ended.returncode == 0, ended.stderr
    return {
        cls: {name: [] if doc is None else _overloads(name, doc) for name, doc in members.items()}
        for cls, members in json.loads(ended.stdout).items()
    }


def _overloads(name: str, doc: str) -> list[tuple[list[str], str]]:
    """What pybind11 wrote at the head of a docstring: one line, or a numbered line for each overload."""
    overloads = []
    for arguments, returned in re.findall(rf"^(?:\d+\. )?{name}\((.*)\)(?: -> (.*))?$", doc, re.MULTILINE):
        if arguments != "*args, **kwargs":
            names = [re.match(r"\w*", part.strip()) for part in _top_level(arguments)]
            parameters = [found[0] for found in names if found and found[0] not in ("", "self")]
            overloads.append((parameters, _MODULES.sub("", returned).replace("List[", "list[")))
    return overloads


def _top_level(arguments: str) -> list[str]:
    """Split at the commas that are in no bracket."""
    parts, depth = [""], 0
    for letter in arguments:
        depth += (letter in "[({<") - (letter in "])}>")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
