"""Names and signatures in the real TensorRT bindings of four versions, which are read but not run.

fetch.sh downloads them to .tensorrt/. A version that is missing is skipped.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from bcm_edge.runtime.machine.processes import python_command

FETCHED = Path(__file__).resolve().parents[2] / ".tensorrt"
VERSIONS = ("8.6", "10.3", "10.16", "11.4")

# class → member → parameters of each overload, without self; [] for a member that is not a method
Signatures = dict[str, dict[str, list[list[str]]]]

_READ = """
import inspect, json, tensorrt
classes = {}
def read(cls):
    members = {name: getattr(cls, name) for name in dir(cls) if name == "__init__" or name[0] != "_"}
    docs = {name: value.__doc__ if callable(value) else None for name, value in members.items()}
    classes[cls.__qualname__] = docs
    for value in vars(cls).values():
        if inspect.isclass(value):
            read(value)
for value in vars(tensorrt).values():
    if inspect.isclass(value):
        read(value)
print(json.dumps(classes))
"""

_DECLARED = """
import enum, importlib, inspect, json
classes = {}
modules = [vars(importlib.import_module(module)).values() for module in arguments]
for cls in [value for values in modules for value in values if inspect.isclass(value)]:
    if cls.__module__.startswith(arguments[0]):
        names = [name for name in dir(cls) if name[0] != "_"]
        if issubclass(cls, enum.Enum):
            names = cls.__members__
        elif inspect.isfunction(cls.__init__):
            names.append("__init__")
        classes[cls.__name__] = members = {}
        for name in names:
            value = getattr(cls, name)
            if not inspect.isclass(value):
                members[name] = None
                if callable(value):
                    members[name] = [each for each in inspect.signature(value).parameters if each != "self"]
print(json.dumps(classes))
"""


# before the name of a class: its module, or the C++ name if the class is defined after the method
_MODULES = re.compile(r"\btensorrt(_bindings)?\.|\bnv\w+::(I(?=[A-Z][a-z]))?")


def is_fetched(version: str) -> bool:
    """Whether a version of VERSIONS, or "builder", is in .tensorrt/."""
    return (FETCHED / version / "tensorrt" / "__init__.py").is_file()


def environment(version: str) -> dict[str, str]:
    """The environment of a process that imports this TensorRT. Skips the test if it is not in .tensorrt/."""
    if not is_fetched(version):
        library = "the TensorRT-RTX library" if version == "builder" else f"TensorRT {version}"
        pytest.skip(f"{library} is not in .tensorrt; run tests/tensorrt/fetch.sh, which prints the reason")
    folder = FETCHED / version
    return {**os.environ, "PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(folder / "lib")}


def run_with(version: str, code: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run code in a process that can import this TensorRT and bcm_edge."""
    env = environment(version)
    command = python_command(code)
    return subprocess.run(
        command, input=stdin, env=env, capture_output=True, text=True, timeout=300, check=False
    )


def signatures_of(version: str) -> Signatures:
    """The members of the classes of this version. Nested classes are named as "ILogger.Severity"."""
    return {
        cls: {name: [parameters for parameters, _ in overloads] for name, overloads in members.items()}
        for cls, members in _read(version).items()
    }


def spelled(version: str) -> dict[str, set[str]]:
    """Class → its members as text: "get_tensor_name(index) -> str" for a method, "name" for other members."""
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
    """The pairs (class, member) in a table of contract_tables.py."""
    lines = [line.partition(": ") for line in table.strip().splitlines()]
    return [(cls, member) for cls, _, rest in lines for member in rest.split("; ")]


def missing(version: str, table: str) -> list[tuple[str, str]]:
    """The entries of a table that this version does not have."""
    available = spelled(version)
    return [(cls, member) for cls, member in members(table) if member not in available.get(cls, set())]


def unlike(version: str, claimed: Mapping[str, Mapping[str, Sequence[str] | None]]) -> list[str]:
    """Differences between a fake and this version, one line each.

    claimed: class → member → parameters without self, or None for a member that is not a method.
    """
    real = signatures_of(version)
    lines = []
    for cls, members in claimed.items():
        if cls not in real:
            lines.append(f"{version} has no {cls}")
            continue
        for name, parameters in members.items():
            overloads = real[cls].get(name)
            if (
                name == "__init__" and not overloads
            ):  # TensorRT creates such objects, a fake has its own constructor
                continue
            if overloads is None:
                lines.append(f"{version} has no {cls}.{name}")
            elif bool(overloads) != (parameters is not None):
                lines.append(f"{cls}.{name} is {'a method' if overloads else 'not a method'} in {version}")
            elif parameters is not None and list(parameters) not in overloads:
                real_ones = " or ".join(f"({', '.join(overload)})" for overload in overloads)
                lines.append(f"{cls}.{name} takes {real_ones} in {version}, not ({', '.join(parameters)})")
    return lines


def declared(env: Mapping[str, str], *modules: str) -> dict[str, dict[str, list[str] | None]]:
    """The members of Python or Cython classes, for `unlike`. modules: a package and modules of it."""
    completed = subprocess.run(
        python_command(_DECLARED, *modules), env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert completed.returncode == 0, completed.stderr
    return json.loads(completed.stdout)


def overridden_from_cpp(version: str) -> dict[str, set[str]]:
    """Class → names of the methods of a Python subclass that C++ calls. Some differ from the Python names."""
    binary = (FETCHED / version / "tensorrt_bindings" / "tensorrt.so").read_bytes()
    names: dict[str, set[str]] = {}
    for cls, name in re.findall(rb'Tried to call pure virtual function "(\w+)::(\w+)"', binary):
        names.setdefault(cls.decode(), set()).add(name.decode())
    return names


@functools.cache
def _read(version: str) -> dict[str, dict[str, list[tuple[list[str], str]]]]:
    """Class → name → (parameters, returned type) of each overload."""
    completed = run_with(version, _READ)
    assert completed.returncode == 0, completed.stderr
    return {
        cls: {name: [] if doc is None else _overloads(name, doc) for name, doc in members.items()}
        for cls, members in json.loads(completed.stdout).items()
    }


def _overloads(name: str, doc: str) -> list[tuple[list[str], str]]:
    """Parse the signatures at the head of a pybind11 docstring: one line, or a numbered line per overload."""
    overloads = []
    for arguments, returned in re.findall(rf"^(?:\d+\. )?{name}\((.*)\)(?: -> (.*))?$", doc, re.MULTILINE):
        if arguments != "*args, **kwargs":
            names = [re.match(r"\w*", part.strip()) for part in _top_level(arguments)]
            parameters = [match[0] for match in names if match and match[0] not in ("", "self")]
            overloads.append((parameters, _MODULES.sub("", returned).replace("List[", "list[")))
    return overloads


def _top_level(arguments: str) -> list[str]:
    """Split at the commas outside brackets."""
    parts, depth = [""], 0
    for letter in arguments:
        depth += (letter in "[({<") - (letter in "])}>")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
