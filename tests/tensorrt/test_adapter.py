"""The adapter runtime/engines/adapter.py over the real bindings of four versions and stub libraries."""

from __future__ import annotations

import json
from typing import Any

import pytest
from contract import VERSIONS, overridden_from_cpp, run_with

from bcm_edge.runtime.storage.manifest import PRECISIONS

# What ADAPTED prints in each version.
TYPED: dict[str, Any] = {
    "typed": True,
    "network": ["STRONGLY_TYPED"],
    "strip": True,
    "types": {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16"},
    **{precision: ["-TF32"] for precision in PRECISIONS},
    "labels": ["int32", "int64"],
    "scratch": [20, 21],
    "context": [
        "create_execution_context USER_MANAGED",
        "set_optimization_profile_async 1 77",
        "set_device_memory 4096 512",
    ],
    "previews": ["PROFILE_SHARING_0806 True"],
    "error": "no such kernel (node a.conv, Conv)",
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
    "int8-fp16": [
        "-TF32",
        "TensorRT 8.6.1 has no float16 scales for 8-bit values; build int8 or fp16, "
        "or use TensorRT 10.3 (JetPack 6.1) or newer",
    ],
    "fp8": [
        "-TF32",
        "TensorRT 8.6.1 has no float8 convolutions; build int8 or fp16, "
        "or use TensorRT 10.3 (JetPack 6.1) or newer",
    ],
    "labels": ["int32", "int64"],
    "scratch": [1, 1],
    "context": [
        "create_execution_context_without_device_memory",
        "set_optimization_profile_async 1 77",
        "device_memory = 4096",
    ],
    "previews": ["PROFILE_SHARING_0806 True"],
    "error": "no such kernel",
    "monitored": [],
}
BRANCHES = {"8.6": UNTYPED, "10.3": TYPED, "10.16": TYPED, "11.4": {**TYPED, "network": [], "previews": []}}

ADAPTED = """
import json
from types import SimpleNamespace
import tensorrt as trt
from bcm_edge.errors import BackendError
from bcm_edge.runtime.engines import adapter
from bcm_edge.runtime.storage.manifest import PRECISIONS

def fake(cls, **members):  # with those members that the real class has
    return SimpleNamespace(**{name: value for name, value in members.items() if hasattr(cls, name)})
flags = trt.NetworkDefinitionCreationFlag.__members__
facts = {
    "typed": adapter.is_strongly_typed(),
    "network": [name for name, flag in flags.items() if adapter.network_flags() & 1 << int(flag)],
    "strip": adapter.can_strip(),
    "types": {kind.name: name for kind, name in adapter.float_types().items()},
}
config = SimpleNamespace(
    set_flag=lambda flag: did.append("+" + flag.name), clear_flag=lambda flag: did.append("-" + flag.name)
)
for precision in PRECISIONS:
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
facts["labels"] = [
    adapter.label_type(SimpleNamespace(get_tensor_dtype={"label": kind}.get)).__name__ for kind in kinds
]
sizes = {"device_memory_size": 1, "get_device_memory_size_for_profile_v2": lambda profile: 20 + profile}
facts["scratch"] = [adapter.scratch_bytes(fake(trt.ICudaEngine, **sizes), profile) for profile in (0, 1)]
facts["context"] = did = []
members = {"create_execution_context": managed, "create_execution_context_without_device_memory": without}
engine = fake(trt.ICudaEngine, num_io_tensors=0, **members)
set_memory = lambda memory, size: did.append(f"set_device_memory {memory} {size}")
def set_profile(index, stream):
    did.append(f"set_optimization_profile_async {index} {stream}")
    return index < 2
context = fake(
    trt.IExecutionContext,
    infer_shapes=list,
    set_device_memory=set_memory,
    set_optimization_profile_async=set_profile,
)
messages = adapter.Messages()
assert adapter.context_for(engine, 1, 2, (1, 8, 8), 77, messages) is context
adapter.give_memory(context, 4096, 512)
did += [f"device_memory = {value}" for name, value in vars(context).items() if name == "device_memory"]
for profile, problem in (
    (2, "TensorRT cannot use the optimisation profile 2: TensorRT reports no reason"),
    (0, "TensorRT cannot create an execution context: TensorRT reports no reason"),
):
    try:
        adapter.context_for(engine, profile, 2, (1, 8, 8), 77, messages)
        raise AssertionError(profile)
    except BackendError as error:
        assert str(error) == problem
    del did[3:]
    context = None
facts["previews"] = did = []
config.set_preview_feature = lambda feature, enable: did.append(f"{feature.name} {enable}")
adapter.share_profiles(config)

error = fake(
    trt.ParserError,
    desc=lambda: "no such kernel",
    node_name=lambda: "a.conv",
    node_operator=lambda: "Conv",
)
facts["error"] = adapter.parser_error(error)
facts["monitored"] = []
adapter.monitor(config, lambda *step: facts["monitored"].append(step))
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
for name in ("VERBOSE", "INFO", "WARNING", "ERROR", "INTERNAL_ERROR", "ERROR"):
    messages.logger.log(getattr(severity, name), name.lower())
is_handled = recorder.report_error(trt.ErrorCodeTRT.FAILED_ALLOCATION, "no memory")
state = [
    recorder.num_errors(),
    recorder.get_error_code(0).name,
    recorder.get_error_desc(0),
    recorder.has_overflowed(),
]
recorder.clear()
print(json.dumps([nothing, messages.explain(), messages.explain(), is_handled, state, recorder.num_errors()]))
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


@pytest.mark.parametrize("version", VERSIONS)
def test_adapter_uses_the_branch_of_the_version(version: str):
    completed = run_with(version, ADAPTED)
    assert completed.returncode == 0, completed.stderr
    assert json.loads(completed.stdout) == BRANCHES[version]


@pytest.mark.parametrize("version", VERSIONS)
def test_messages_collect_errors_and_return_them_once(version: str):
    completed = run_with(version, MESSAGES)
    assert completed.returncode == 0, completed.stderr
    no, state = "TensorRT reports no reason", [1, "FAILED_ALLOCATION", "no memory", False]
    assert json.loads(completed.stdout) == [no, "error; internal_error; no memory", no, False, state, 0]


@pytest.mark.parametrize("version", VERSIONS)
def test_overridden_methods_have_the_names_that_cpp_calls(version: str):
    """Some differ from the documentation: C++ calls num_errors of an error recorder as get_num_errors."""
    completed = run_with(version, OVERRIDES)
    assert completed.returncode == 0, completed.stderr
    called, defined = overridden_from_cpp(version), json.loads(completed.stdout)
    assert [len(called[cls]) for cls in defined] == ([1, 6] if version == "8.6" else [1, 6, 3])
    assert [(cls, name) for cls, names in defined.items() for name in called[cls] if name not in names] == []
