"""The text of a PTX module as kernels and instructions."""

from __future__ import annotations

import re
from dataclasses import dataclass

VERSION = re.compile(r"\.version\s+(\d+\.\d+)")
TARGET = re.compile(r"\.target\s+sm_(\d+)")
ENTRY = re.compile(r"\.visible \.entry (\w+)\((.*?)\)\s*\{\n(.*?)\n\}\n", re.DOTALL)
PARAMETER = re.compile(r"\.param \.(\w+) (\w+)")
REGISTERS = re.compile(r"\.reg \.(\w+)\s+(%\w+)(?:<\d+>)?;")
STATEMENT = re.compile(r"(?:@(!?)(%\w+)\s+)?([a-z][\w.]*)\s*(.*);")
LABEL = re.compile(r"(\$\w+):")
OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s]+")


@dataclass(frozen=True)
class Instruction:
    """An instruction. It is executed by the threads whose guard is true, or by all."""

    opcode: str  # "fma.rn.f64"
    operands: tuple[str, ...]  # "%rd1", "42", "0d3FE0000000000000", "{%r1, %r2}", "[%rd1+8]", "$L__BB0_1"
    guard: str | None  # "%p1"
    negated: bool  # whether the guard must be false


@dataclass(frozen=True)
class Kernel:
    """A kernel of a module."""

    name: str
    parameters: dict[str, str]  # name → type, in the order of a launch
    instructions: tuple[Instruction, ...]
    labels: dict[str, int]  # name → the number of the instruction after it
    widths: dict[str, str]  # the beginning of a register's name, or a whole name → its type


def kernels(ptx: str) -> dict[str, Kernel]:
    """Return the kernels of a module by name. Raises ValueError for text that is no PTX for sm_80."""
    version, target = VERSION.search(ptx), TARGET.search(ptx)
    if version is None or target is None or int(target[1]) > 80:
        raise ValueError("not a PTX module for compute capability 8.0")
    code = re.sub(r"//.*", "", ptx)
    return {name: _kernel(name, parameters, body) for name, parameters, body in ENTRY.findall(code)}


def _kernel(name: str, parameters: str, body: str) -> Kernel:
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    widths: dict[str, str] = {}
    for line in (line.strip() for line in body.splitlines()):
        if match := REGISTERS.fullmatch(line):
            widths[match[2]] = match[1]
        elif match := LABEL.fullmatch(line):
            labels[match[1]] = len(instructions)
        elif match := STATEMENT.fullmatch(line):
            negated, guard, opcode, operands = match.groups()
            operands = tuple(OPERAND.findall(operands))
            instructions.append(Instruction(opcode, operands, guard, negated == "!"))
        elif line not in ("", "{", "}") and not line.startswith(".pragma"):
            raise ValueError(f"no statement of PTX: {line}")
    types = {parameter: kind for kind, parameter in PARAMETER.findall(parameters)}
    return Kernel(name, types, tuple(instructions), labels, widths)
