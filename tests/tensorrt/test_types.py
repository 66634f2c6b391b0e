"""Types of the project, checked by pyright with the types of four versions of TensorRT."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from contract import VERSIONS, environment, is_fetched
from type_stubs import write_stubs

from bcm_edge.runtime.machine.processes import PACKAGE

PYRIGHT = Path(sys.executable).with_name("pyright")


# Errors that pyright finds in runtime/engines/adapter.py, which uses some names only if they exist.
TYPE_ERRORS = {
    "8.6": {
        '"ExecutionContextAllocationStrategy" is not a known attribute of module "tensorrt"',
        '"IProgressMonitor" is not a known attribute of module "tensorrt"',
        '"OnnxParserRefitter" is not a known attribute of module "tensorrt"',
        '"bfloat16" is not a known attribute of module "tensorrt"',
        'Cannot access attribute "REFIT_IDENTICAL" for class "type[BuilderFlag]"',
        'Cannot access attribute "STRIP_PLAN" for class "type[BuilderFlag]"',
        'Cannot access attribute "get_device_memory_size_for_profile_v2" for class "ICudaEngine"',
        'Cannot access attribute "node_name" for class "ParserError"',
        'Cannot access attribute "node_operator" for class "ParserError"',
        'Cannot access attribute "set_device_memory" for class "IExecutionContext"',
        'Cannot assign to attribute "progress_monitor" for class "IBuilderConfig"',
        "Expected 0 positional arguments",  # create_execution_context has no argument
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


# (file, code, the code with a mistake, the message of pyright)
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
        ".allocate(needed",
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


@pytest.fixture(scope="module")
def type_errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[tuple[str, str]]]:
    """Version, or "mistaken" → the (file, message) pairs that pyright prints with the types of a version."""
    folder = tmp_path_factory.mktemp("typed")
    roots = {version: version for version in VERSIONS if is_fetched(version)}
    if not roots or not PYRIGHT.is_file():
        pytest.skip("no TensorRT in .tensorrt, or no pyright: pip install '.[dev]'")
    roots |= {"mistaken": "10.16"} if "10.16" in roots else {}
    folders = [file.parent for file in PACKAGE.glob("*/__init__.py")]
    files = [*PACKAGE.glob("*.py"), *(file for folder in folders for file in folder.rglob("*.py"))]
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
    completed = subprocess.run(
        [PYRIGHT, "--outputjson"], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    errors: dict[str, set[tuple[str, str]]] = {root: set() for root in roots}
    for error in json.loads(completed.stdout)["generalDiagnostics"]:
        root, _, *parts = Path(error["file"]).relative_to(folder).parts
        errors[root].add(("/".join(parts), error["message"].splitlines()[0]))
    return errors


@pytest.mark.parametrize("version", VERSIONS)
def test_pyright_finds_only_the_expected_errors(version: str, type_errors: dict[str, set[tuple[str, str]]]):
    environment(version)
    assert type_errors[version] == {
        ("runtime/engines/adapter.py", message) for message in TYPE_ERRORS[version]
    }


def test_pyright_finds_mistakes(type_errors: dict[str, set[tuple[str, str]]]):
    environment("10.16")
    errors = type_errors["mistaken"] - type_errors["10.16"]
    for file, right, wrong, message in MISTAKES:
        assert (PACKAGE / file).read_text().count(right) == 1, f"{right} in {file}"
        assert any(path == file and message in text for path, text in errors), f"{wrong}: {errors}"
    assert len(errors) == 11
