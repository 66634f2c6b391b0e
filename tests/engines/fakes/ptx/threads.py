"""The threads of a launch, and their registers and memory."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .arithmetic import DTYPES, OPERATIONS
from .parsing import Instruction, Kernel

ADDRESS = re.compile(r"\[(%\w+)(?:\+(\d+))?\]")

TOGETHER = 1 << 14  # threads that are executed together; more would need much memory

# memory(address, size) returns the bytes at an address, uint8 [size], or raises an exception.
Memory = Callable[[int, int], np.ndarray]


class Launch:
    """The threads of a grid, of which those at the lowest instruction always go first.

    operands: opcode → for each execution of such an instruction, the threads and their operands. Fill it with
    keys before `run` to watch opcodes.
    """

    def __init__(
        self, kernel: Kernel, grid: tuple[int, int], block: int, arguments: Sequence[bytes], memory: Memory
    ) -> None:
        """grid: blocks in x and y. block: threads in x. arguments: their bytes, in the machine's order."""
        sizes = [np.dtype(DTYPES[kind]).itemsize for kind in kernel.parameters.values()]
        if [len(argument) for argument in arguments] != sizes:
            raise ValueError(f"the parameters of {kernel.name} take {sizes} bytes")
        self._kernel, self._memory = kernel, memory
        self._parameters = dict(zip(kernel.parameters, arguments, strict=True))
        self._grid, self._block = grid, block
        self.operands: dict[str, list[tuple[np.ndarray, list[np.ndarray]]]] = {}

    def run(self) -> None:
        """Execute the kernel, a part of the rows after the other.

        Raises NotImplementedError for an unknown instruction.
        """
        rows = max(1, TOGETHER // (self._grid[0] * self._block))
        for first in range(0, self._grid[1], rows):
            self._start(np.arange(first, min(first + rows, self._grid[1])))
            self._run_threads()

    def _start(self, rows: np.ndarray) -> None:
        """Put the threads of rows of blocks at the first instruction."""
        axes = np.meshgrid(rows, np.arange(self._grid[0]), np.arange(self._block), indexing="ij")
        y, x, thread = (axis.ravel().astype(np.uint32) for axis in axes)
        block_size = np.full_like(thread, self._block)
        self._special = {"%tid.x": thread, "%ctaid.x": x, "%ctaid.y": y, "%ntid.x": block_size}
        self._registers: dict[str, np.ndarray] = {}  # of all threads, as unsigned integers or bool
        self._at = np.zeros(len(thread), np.int64)  # the next instruction of each thread

    def _run_threads(self) -> None:
        end, joins = len(self._kernel.instructions), set(self._kernel.labels.values())
        with np.errstate(all="ignore"):  # the instructions wrap around and divide by zero as a GPU does
            while (at := int(self._at.min())) < end:
                threads = np.flatnonzero(self._at == at)
                self._execute(at, threads)
                while int(self._at[threads[0]]) == at + 1 < end and at + 1 not in joins:
                    if not (self._at[threads] == at + 1).all():
                        break
                    at += 1
                    self._execute(at, threads)

    def _execute(self, at: int, threads: np.ndarray) -> None:
        """Execute an instruction, and move the threads to the next one."""
        instruction = self._kernel.instructions[at]
        self._at[threads] = at + 1
        if instruction.guard is not None:
            holds = self._read(instruction.guard, "pred", threads) != instruction.negated
            threads = threads[holds]
        opcode = instruction.opcode.removesuffix(".uni")
        if opcode == "bra":
            self._at[threads] = self._kernel.labels[instruction.operands[0]]
        elif opcode == "ret":
            self._at[threads] = len(self._kernel.instructions)
        elif len(threads):
            self._compute(instruction, threads)

    def _compute(self, instruction: Instruction, threads: np.ndarray) -> None:
        name, _, kind = instruction.opcode.partition(".")
        kind = kind.rpartition(".")[2]
        target, *sources = instruction.operands
        if name == "mov":
            self._move(target, sources[0], kind, threads)
        elif instruction.opcode.startswith("ld.param."):
            self._write(target, self._parameter(sources[0], kind, len(threads)), threads)
        elif instruction.opcode.startswith("ld.global."):
            self._write(target, self._locate(sources[0], kind, threads), threads)
        elif instruction.opcode.startswith("st.global."):
            self._locate(target, kind, threads, self._read(sources[0], kind, threads))
        elif instruction.opcode in OPERATIONS:
            kinds, result, function = OPERATIONS[instruction.opcode]
            values = [self._read(*pair, threads) for pair in zip(sources, kinds, strict=True)]
            if instruction.opcode in self.operands:
                self.operands[instruction.opcode].append((threads, values))
            self._write(target, function(*values).astype(DTYPES[result], copy=False), threads)
        else:
            raise NotImplementedError(instruction.opcode)

    def _move(self, target: str, source: str, kind: str, threads: np.ndarray) -> None:
        """Copy a value, or split one into two halves, or join two halves. The lower half stands first."""
        if target.startswith("{"):
            halves = self._read(source, kind, threads).view(np.uint32).reshape(-1, 2)
            for name, half in zip(_names(target), halves.T, strict=True):
                self._write(name, np.ascontiguousarray(half), threads)
        elif source.startswith("{"):
            halves = [self._read(name, "b32", threads) for name in _names(source)]
            self._write(target, np.stack(halves, axis=1).view(np.uint64).ravel(), threads)
        else:
            self._write(target, self._read(source, kind, threads), threads)

    def _parameter(self, operand: str, kind: str, count: int) -> np.ndarray:
        return np.repeat(np.frombuffer(self._parameters[operand.strip("[]")], DTYPES[kind]), count)

    def _locate(
        self, operand: str, kind: str, threads: np.ndarray, values: np.ndarray | None = None
    ) -> np.ndarray:
        """Read the memory at the threads' addresses or, if there are values, write to it."""
        match = ADDRESS.fullmatch(operand)
        assert match is not None, operand
        addresses = self._read(match[1], "u64", threads) + np.uint64(match[2] or 0)
        width, first = np.dtype(DTYPES[kind]).itemsize, int(addresses.min())
        if (addresses % width).any():
            raise RuntimeError("CUDA_ERROR_MISALIGNED_ADDRESS: misaligned address")
        content = self._memory(first, int(addresses.max()) + width - first).view(DTYPES[kind])
        places = (addresses - np.uint64(first)) // np.uint64(width)
        if values is not None:
            content[places] = values
        return content[places]

    def _read(self, operand: str, kind: str, threads: np.ndarray) -> np.ndarray:
        """Return an operand of the threads as an array of this type."""
        dtype = np.dtype(DTYPES[kind])
        if operand in self._special:
            return self._special[operand][threads]
        if operand.startswith("%"):
            return self._register(operand)[threads].view(dtype)
        if operand.startswith("0d"):
            return np.full(len(threads), struct.unpack(">d", bytes.fromhex(operand[2:]))[0], dtype)
        if operand.startswith("0f"):
            return np.full(len(threads), struct.unpack(">f", bytes.fromhex(operand[2:]))[0], dtype)
        bits = int(operand) % (1 << 8 * dtype.itemsize)
        return np.full(len(threads), bits, f"u{dtype.itemsize}").view(dtype)

    def _write(self, name: str, values: np.ndarray, threads: np.ndarray) -> None:
        register = self._register(name)
        register[threads] = values.view(register.dtype)

    def _register(self, name: str) -> np.ndarray:
        """Return a register of all threads. One that was never written contains 0x5A5A…"""
        if name not in self._registers:
            kind = _width(self._kernel.widths, name)
            dtype = np.dtype(np.bool_ if kind == "pred" else f"u{int(kind[1:]) // 8}")
            memory = np.full(len(self._at) * dtype.itemsize, 0 if kind == "pred" else 0x5A, np.uint8)
            self._registers[name] = memory.view(dtype)
        return self._registers[name]


def _names(operand: str) -> list[str]:
    return [name.strip() for name in operand.strip("{}").split(",")]


def _width(widths: Mapping[str, str], name: str) -> str:
    return widths.get(name) or widths[name.rstrip("0123456789")]
