"""Stub packages of TensorRT and cuda-core, with which pyright checks files of the project."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from contract import environment, run_with

from bcm_edge.runtime.machine.processes import PACKAGE

# Prints the write-only properties, as (class, name).
_WRITE_ONLY = """
import inspect, json, tensorrt
classes = [cls for cls in vars(tensorrt).values() if inspect.isclass(cls)]
properties = [
    (cls.__name__, name, value)
    for cls in classes
    for name, value in vars(cls).items()
    if isinstance(value, property)
]
print(json.dumps([(cls, name) for cls, name, value in properties if value.fget is None]))
"""


# Corrections of the generated stubs: pattern → replacement.
_CORRECTIONS = {
    r"(->|:) bool\b": r"\1 builtins.bool",  # trt.bool is a DataType, which hides bool
    r"typing\.SupportsInt": "int",  # C++ passes only int to overridden methods
    r"(\w+: )Dims(?=[,)])": r"\1Dims | collections.abc.Sequence[int]",  # its documentation allows a tuple
    # According to its documentation, it has the buffer interface.
    r"class IHostMemory:\n": (
        "class IHostMemory:\n    def __buffer__(self, flags: int, /) -> memoryview: ...\n"
    ),
    # These four are bound before their types.
    r"(def create_engine_inspector\(.*\)) -> \.\.\.": r"\1 -> EngineInspector",
    r"(def get_tensor_mode\(.*\)) -> \.\.\.": r"\1 -> TensorIOMode",
    r"(def get_error\(.*\)) -> \.\.\.": r"\1 -> ParserError",
    r"(def (?:set|clear)_flag\(self, flag: )\.\.\.": r"\1OnnxParserFlag",
    r"\bseverity: \.\.\.": "severity: ILogger.Severity",
    r"^import typing\n": "import builtins\nimport collections.abc\nimport typing\n",
}


def write_stubs(version: str, folder: Path) -> None:
    """Write stub packages `tensorrt` and `cuda.core` for a type checker."""
    generator = [sys.executable, "-m", "pybind11_stubgen", "tensorrt_bindings", "--ignore-all-errors"]
    subprocess.run(
        [*generator, "-o", str(folder)],
        env=environment(version),
        capture_output=True,
        timeout=300,
        check=True,
    )
    file = folder / "tensorrt_bindings" / "tensorrt.pyi"
    text = file.read_text()
    for pattern, correction in _CORRECTIONS.items():
        text = re.sub(pattern, correction, text, flags=re.MULTILINE)
    for cls, name in json.loads(run_with(version, _WRITE_ONLY).stdout):  # the generator omits them
        text = re.sub(rf"(class {cls}(\(.*\))?:\n)", rf"\1    {name}: typing.Any\n", text)
    file.write_text(text)
    (folder / "tensorrt").mkdir()
    (folder / "tensorrt" / "__init__.pyi").write_text("from tensorrt_bindings import *\n__version__: str\n")
    shutil.copytree(PACKAGE / "typings" / "cuda" / "bindings", folder / "cuda" / "bindings")
    core = importlib.util.find_spec("cuda.core")
    if core is None or core.origin is None:
        pytest.skip("cuda-core is not installed: pip install '.[test]'")
    # The wheel has its modules in cu12/ and cu13/, and imports them under the name cuda.core.
    wheel = Path(core.origin).parent
    shutil.copytree(wheel / "cu13", folder / "cuda" / "core", ignore=_all_but_python)
    for module in wheel.glob("*.py*"):
        shutil.copy(module, folder / "cuda" / "core")


def _all_but_python(folder: str, names: list[str]) -> set[str]:
    """The files in a folder that are not Python modules or stubs."""
    return {
        name for name in names if not name.endswith((".py", ".pyi")) and not (Path(folder) / name).is_dir()
    }
