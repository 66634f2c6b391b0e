"""The project against the real TensorRT bindings of four versions, over stub libraries: names, signatures, types, the adapter's branches.

What TensorRT computes is not asked here; nothing of it runs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from contract import (
    BEFORE_11,
    EVERYWHERE,
    SINCE_10,
    VERSIONS,
    declared,
    environment,
    is_fetched,
    members,
    missing,
    overridden_from_cpp,
    run_with,
    unlike,
    write_stubs,
)

from bcm_edge.runtime.machine.processes import PACKAGE

PYRIGHT = Path(sys.executable).with_name("pyright")

versions = pytest.mark.parametrize("version", VERSIONS)

# what the adapter does in each version, as ADAPTED prints it
TYPED: dict[str, Any] = {
    "typed": True,
    "network": ["STRONGLY_TYPED"],
    "strip": True,
    "types": {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16"},
    **{precision: ["-TF32"] for precision in ("fp32", "fp16", "bf16", "int8")},
    "labels": ["int32", "int64"],
    "scratch": 2,
    "context": ["create_execution_context USER_MANAGED", "set_device_memory 4096 512"],
    "previews": ["PROFILE_SHARING_0806 True"],
    "said": "no such kernel (node a.conv, Conv)",
    "monitored": [
        ["building", None, 0, 3],
        ["tactics", "building", 0, 2],
        ["tactics", "building", 1, 2],
        ["building", None, 3, 3],
    ],
}
UNTYPED = {
    "typed": False,
    "network": ["EXPLICIT_BATCH"],
    "strip": False,
    "types": {"FLOAT": "fp32", "HALF": "fp16"},
    "fp32": ["-TF32"],
    "fp16": ["-TF32", "+FP16", "+OBEY_PRECISION_CONSTRAINTS"],
    "bf16": [
        "-TF32",
        "TensorRT 8.6.1 has no bfloat16; build fp16, or use TensorRT 10.3 (JetPack 6.1) or newer",
    ],
    "int8": ["-TF32", "+INT8", "+OBEY_PRECISION_CONSTRAINTS"],
    "labels": ["int32", "int64"],
    "scratch": 1,
    "context": ["create_execution_context_without_device_memory", "device_memory = 4096"],
    "previews": ["PROFILE_SHARING_0806 True"],
    "said": "no such kernel",
    "monitored": [],
}
BRANCHES = {"8.6": UNTYPED, "10.3": TYPED, "10.16": TYPED, "11.4": {**TYPED, "network": [], "previews": []}}

ADAPTED = """
import json
from types import SimpleNamespace
import tensorrt as trt
from bcm_edge.errors import BackendError
from bcm_edge.runtime.engines import adapter

def standin(cls, **members):  # what the real class has of these
    return SimpleNamespace(**{name: value for name, value in members.items() if hasattr(cls, name)})
flags = trt.NetworkDefinitionCreationFlag.__members__
facts = {
    "typed": adapter.is_strongly_typed(),
    "network": [name for name, flag in flags.items() if adapter.network_flags() & 1 << int(flag)],
    "strip": adapter.can_strip(),
    "types": {kind.name: name for kind, name in adapter.float_types().items()},
}
config = SimpleNamespace(set_flag=lambda flag: did.append("+" + flag.name), clear_flag=lambda flag: did.append("-" + flag.name))
for precision in ("fp32", "fp16", "bf16", "int8"):
    facts[precision] = did = []
    try:
        adapter.set_precision(config, precision)
    except BackendError as error:
        did.append(str(error))
def without():
    did.append("create_execution_context_without_device_memory")
    return context
def managed(strategy):
    did.append("create_execution_context " + strategy.name)
    return context
kinds = [trt.int32, trt.DataType.__members__.get("INT64")]
facts["labels"] = [adapter.label_type(SimpleNamespace(get_tensor_dtype={"label": kind}.get)).__name__ for kind in kinds]
facts["scratch"] = adapter.scratch_bytes(standin(trt.ICudaEngine, device_memory_size=1, device_memory_size_v2=2))
facts["context"] = did = []
members = {"create_execution_context": managed, "create_execution_context_without_device_memory": without}
engine = standin(trt.ICudaEngine, num_io_tensors=0, **members)
given = lambda memory, size: did.append(f"set_device_memory {memory} {size}")
context = standin(trt.IExecutionContext, infer_shapes=list, set_device_memory=given)
messages = adapter.Messages()
assert adapter.context_for(engine, 2, (1, 8, 8), messages) is context
adapter.give_memory(context, 4096, 512)
did += [f"device_memory = {value}" for name, value in vars(context).items() if name == "device_memory"]
context = None
try:
    adapter.context_for(engine, 2, (1, 8, 8), messages)
except BackendError as error:
    assert str(error) == "TensorRT cannot create an execution context: TensorRT reports no reason"
    del did[2:]
facts["previews"] = did = []
config.set_preview_feature = lambda feature, enable: did.append(f"{feature.name} {enable}")
adapter.share_profiles(config)

error = standin(trt.ParserError, desc=lambda: "no such kernel", node_name=lambda: "a.conv", node_operator=lambda: "Conv")
facts["said"] = adapter.parser_error(error)
facts["monitored"] = []
adapter.monitor(config, lambda *what: facts["monitored"].append(what))
if hasattr(config, "progress_monitor"):
    assert isinstance(config.progress_monitor, trt.IProgressMonitor)
    config.progress_monitor.phase_start("building", None, 3)
    config.progress_monitor.phase_start("tactics", "building", 2)
    assert config.progress_monitor.step_complete("tactics", 0) is True
    config.progress_monitor.phase_finish("building")
print(json.dumps(facts))
"""

MESSAGES = """
import json
import tensorrt as trt
from bcm_edge.runtime.engines import adapter
messages = adapter.Messages()
severity, recorder = trt.ILogger.Severity, messages.recorder
nothing = messages.explain()
for kind in (severity.VERBOSE, severity.INFO, severity.WARNING, severity.ERROR, severity.INTERNAL_ERROR, severity.ERROR):
    messages.logger.log(kind, kind.name.lower())
goes_on = recorder.report_error(trt.ErrorCodeTRT.FAILED_ALLOCATION, "no memory")
kept = [recorder.num_errors(), recorder.get_error_code(0).name, recorder.get_error_desc(0), recorder.has_overflowed()]
recorder.clear()
print(json.dumps([nothing, messages.explain(), messages.explain(), goes_on, kept, recorder.num_errors()]))
"""

OVERRIDES = """
import json
from bcm_edge.runtime.engines import adapter
messages = adapter.Messages()
classes = [type(messages.logger), type(messages.recorder)]
if hasattr(adapter.trt, "IProgressMonitor"):
    classes.append(type(adapter._progress_monitor(print)))
print(json.dumps({cls.__base__.__name__: sorted(vars(cls)) for cls in classes}))
"""

# what a type checker says of runtime/engines/adapter.py alone: names that it uses where it has asked for them
TYPE_ERRORS = {
    "8.6": {
        '"ExecutionContextAllocationStrategy" is not a known attribute of module "tensorrt"',
        '"IProgressMonitor" is not a known attribute of module "tensorrt"',
        '"OnnxParserRefitter" is not a known attribute of module "tensorrt"',
        '"bfloat16" is not a known attribute of module "tensorrt"',
        'Cannot access attribute "REFIT_IDENTICAL" for class "type[BuilderFlag]"',
        'Cannot access attribute "STRIP_PLAN" for class "type[BuilderFlag]"',
        'Cannot access attribute "device_memory_size_v2" for class "ICudaEngine"',
        'Cannot access attribute "node_name" for class "ParserError"',
        'Cannot access attribute "node_operator" for class "ParserError"',
        'Cannot access attribute "set_device_memory" for class "IExecutionContext"',
        'Cannot assign to attribute "progress_monitor" for class "IBuilderConfig"',
        "Expected 0 positional arguments",  # create_execution_context takes no strategy
    },
    "10.3": set[str](),
    "10.16": set[str](),
    "11.4": {
        'Cannot access attribute "FP16" for class "type[BuilderFlag]"',
        'Cannot access attribute "INT8" for class "type[BuilderFlag]"',
        'Cannot access attribute "OBEY_PRECISION_CONSTRAINTS" for class "type[BuilderFlag]"',
        'Cannot access attribute "create_execution_context_without_device_memory" for class "ICudaEngine"',
        'Cannot access attribute "device_memory_size" for class "ICudaEngine"',
    },
}

# (file, what stands there, a mistake, what a type checker says of it)
MISTAKES = [
    (
        "runtime/engines/adapter.py",
        "error.node_name()",
        "error.nodename()",
        'attribute "nodename" for class "ParserError"',
    ),
    (
        "runtime/engines/loaded.py",
        ".execute_async_v3(",
        ".execute_async_v4(",
        'attribute "execute_async_v4" for class "IExecutionContext"',
    ),
    (
        "runtime/engines/adapter.py",
        ".get_tensor_mode(tensor)",
        ".get_tensor_mode(0)",
        'parameter "name" of type "str"',
    ),
    (
        "runtime/engines/loaded.py",
        ".allocate(self._size",
        '.allocate("all"',
        'parameter "size" of type "int"',
    ),
    ("runtime/engines/memory.py", ".copy_from(", ".copy_too(", 'attribute "copy_too" for class "Buffer"'),
    (
        "runtime/engines/graph_recording.py",
        ".begin_building(",
        ".begin_build(",
        'attribute "begin_build" for class "GraphBuilder"',
    ),
    (
        "export/engines/plan_writer.py",
        ".parse_from_file(str(graph))",
        ".parse_from_file(graph)",
        'parameter "model" of type "str"',
    ),
    (
        "export/engines/plan_writer.py",
        ".set_timing_cache(cache, False)",
        ".set_timing_cache(cache)",
        'missing for parameter "ignore_mismatch"',
    ),
    (
        "export/engines/plan_writer.py",
        "trt.MemoryPoolType.WORKSPACE",
        "trt.MemoryPoolType.WORK",
        'attribute "WORK" for class "type[MemoryPoolType]"',
    ),
    (
        "export/engines/compiler.py",
        "trt.LayerInformationFormat.JSON",
        "trt.LayerInformationFormat.TOML",
        'attribute "TOML" for class',
    ),
    (
        "export/engines/realised.py",
        ".get_output(0).name",
        ".get_output(0).names",
        'attribute "names" for class "ITensor"',
    ),
]


@versions
def test_every_version_has_what_the_project_uses(version: str):
    assert missing(version, EVERYWHERE) == []


@versions
def test_what_the_adapter_asks_for_first_is_there_as_a_whole_or_not_at_all(version: str):
    assert missing(version, SINCE_10) == (members(SINCE_10) if version == "8.6" else [])
    assert missing(version, BEFORE_11) == (members(BEFORE_11) if version == "11.4" else [])


@versions
def test_the_adapter_takes_the_branch_of_this_version(version: str):
    ended = run_with(version, ADAPTED)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == BRANCHES[version]


@versions
def test_messages_keep_errors_and_explain_them_once(version: str):
    ended = run_with(version, MESSAGES)
    assert ended.returncode == 0, ended.stderr
    no, kept = "TensorRT reports no reason", [1, "FAILED_ALLOCATION", "no memory", False]
    assert json.loads(ended.stdout) == [no, "error; internal_error; no memory", no, False, kept, 0]


@versions
def test_overrides_have_the_names_that_cpp_calls(version: str):
    """Not all are the documented ones: what Python knows as an error recorder's num_errors is called as get_num_errors."""
    ended = run_with(version, OVERRIDES)
    assert ended.returncode == 0, ended.stderr
    called, defined = overridden_from_cpp(version), json.loads(ended.stdout)
    assert [len(called[cls]) for cls in defined] == ([1, 6] if version == "8.6" else [1, 6, 3])
    assert [(cls, name) for cls, names in defined.items() for name in called[cls] if name not in names] == []


@pytest.mark.parametrize(
    "version", VERSIONS[1:]
)  # 8.6 has no class to try it on without its library; its documentation says the same
def test_a_tuple_can_stand_for_dims(version: str):
    ended = run_with(
        version, "import tensorrt\nd = tensorrt.PluginTensorDesc()\nd.dims = (1, 2, 3)\nprint(tuple(d.dims))"
    )
    assert ended.stdout == "(1, 2, 3)\n", ended.stderr


def test_a_stand_in_that_differs_is_told():
    environment("10.3")
    claimed = {
        "ICudaEngine": {"num_io_tensors": [], "get_tensor_name": ["i"], "names": None},
        "CudaEngine": {},
    }
    assert unlike("10.3", claimed) == [
        "ICudaEngine.num_io_tensors is no method in 10.3",
        "ICudaEngine.get_tensor_name takes (index) in 10.3, not (i)",
        "10.3 has no ICudaEngine.names",
        "10.3 has no CudaEngine",
    ]


def test_the_stand_ins_of_the_engine_tests_are_like_the_real_ones():
    """But for one member that each has for itself."""
    stand_ins = {**environment("10.3"), "PYTHONPATH": str(PACKAGE / "tests" / "engines" / "fakes")}
    names = {"Tensor": "ITensor", "Layer": "ILayer"}
    claimed = {names.get(cls, cls): of for cls, of in declared(stand_ins, "tensorrt").items()}
    assert unlike("10.3", claimed) == ["10.3 has no LayerType.OTHER", "10.3 has no ICudaEngine.run"]
    real, claimed = (declared(env, "cuda.core", "cuda.core.graph") for env in (os.environ, stand_ins))
    there = [(cls, name) for cls, of in claimed.items() for name in of if name != "__init__"]
    assert [(cls, name) for cls, name in there if claimed[cls][name] != real.get(cls, {}).get(name)] == [
        ("Stream", "put")
    ]


DRIVER = """
import inspect
from cuda.bindings import driver
parameters = [list(inspect.signature(function).parameters) for function in (driver.cuMemAlloc, driver.cuMemFree)]
print(driver.CUresult(0).name, driver.CUresult(2).name, *parameters)
"""


@pytest.mark.parametrize("path", ["", str(PACKAGE / "tests" / "engines" / "fakes")], ids=["real", "stand-in"])
def test_driver_functions_are_those_that_typings_declare(path: str):
    """Of cuda-bindings, and of the stand-in for it."""
    ended = subprocess.run(
        [sys.executable, "-c", DRIVER],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout == "CUDA_SUCCESS CUDA_ERROR_OUT_OF_MEMORY ['bytesize'] ['dptr']\n", ended.stderr


@pytest.fixture(scope="module")
def type_errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[tuple[str, str]]]:
    """Version, or "mistaken" → (file, message) of what pyright finds in files of this project, with the types of that version."""
    folder = tmp_path_factory.mktemp("typed")
    roots = {version: version for version in VERSIONS if is_fetched(version)}
    if not roots or not PYRIGHT.is_file():
        pytest.skip("no TensorRT in .tensorrt, or no pyright: pip install '.[dev]'")
    roots |= {"mistaken": "10.16"} if "10.16" in roots else {}
    rooms = [file.parent for file in PACKAGE.glob("*/__init__.py")]
    files = [*PACKAGE.glob("*.py"), *(file for room in rooms for file in room.rglob("*.py"))]
    users = [
        file
        for file in files
        if re.search(r"^ *(import tensorrt|from cuda)\b", file.read_text(), re.MULTILINE)
    ]
    for root, version in roots.items():
        write_stubs(version, folder / root)
        for file in files:
            copy = folder / root / "bcm_edge" / file.relative_to(PACKAGE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    for file, right, wrong, _ in MISTAKES if "mistaken" in roots else []:
        path = folder / "mistaken" / "bcm_edge" / file
        path.write_text(path.read_text().replace(right, wrong))
    include = [f"{root}/bcm_edge/{file.relative_to(PACKAGE)}" for root in roots for file in users]
    venv = {"venvPath": str(Path(sys.prefix).parent), "venv": Path(sys.prefix).name}
    config = {"include": include, "executionEnvironments": [{"root": root} for root in roots], **venv}
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    ended = subprocess.run(
        [PYRIGHT, "--outputjson"], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    found: dict[str, set[tuple[str, str]]] = {root: set() for root in roots}
    for error in json.loads(ended.stdout)["generalDiagnostics"]:
        root, _, *parts = Path(error["file"]).relative_to(folder).parts
        found[root].add(("/".join(parts), error["message"].splitlines()[0]))
    return found


@versions
def test_types(version: str, type_errors: dict[str, set[tuple[str, str]]]):
    environment(version)
    assert type_errors[version] == {
        ("runtime/engines/adapter.py", message) for message in TYPE_ERRORS[version]
    }


def test_mistakes_are_found(type_errors: dict[str, set[tuple[str, str]]]):
    environment("10.16")
    found = type_errors["mistaken"] - type_errors["10.16"]
    for file, right, wrong, said in MISTAKES:
        assert (PACKAGE / file).read_text().count(right) == 1, f"{right} in {file}"
        assert any(place == file and said in message for place, message in found), f"{wrong}: {found}"
    assert len(found) == 11
