"""The kernel that draws noise, executed on the processor: its source as C++, and the PTX that ships.

The module ptx of tests/engines/fakes executes PTX. This shows neither the speed of a GPU, nor that its driver
accepts the PTX.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import compile_noise
import numpy as np
import pytest

from bcm_edge.runtime.engines import noise_kernel
from bcm_edge.runtime.machine.gpu import Gpu
from bcm_edge.runtime.noise import DAMAGE_DRAW, START_DRAW, VARIATION_DRAW, standard_normal

FOLDER = Path(__file__).parent
SOURCE, PTX = compile_noise.SOURCE, compile_noise.PTX
ORIN = Gpu(0, "Orin", "8.7", 16, 8 << 30, True, "12.6")

# draw(seeds, count, number, sigma) returns float32 [len(seeds), count].
DrawOn = Callable[..., np.ndarray]
SEEDS = [0, 1, 2**32 + 5, 2**64 - 1]
COUNTS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 63, 1024, 1131]
DRAWS = [START_DRAW, 1, VARIATION_DRAW + 3, DAMAGE_DRAW, 2**36, 2**64 - 1]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """noise.cu, compiled as C++."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler (g++) for the source of the kernel")
    path = tmp_path_factory.mktemp("noise") / "noise.so"
    command = [compiler, "-O1", "-Wno-unknown-pragmas", "-shared", "-fPIC", "-I", str(SOURCE.parent)]
    subprocess.run([*command, "-o", str(path), str(FOLDER / "noise_as_cpp.cpp")], check=True)
    return ctypes.CDLL(str(path))


@pytest.fixture(scope="module")
def ptx() -> Iterator[ModuleType]:
    """The module that executes PTX."""
    sys.path.insert(0, str(FOLDER / "fakes"))
    try:
        import ptx

        yield ptx
    finally:
        sys.path.remove(str(FOLDER / "fakes"))


class Memory:
    """The memory of a launch: seeds, and the result, which is NaN at first."""

    def __init__(self, seeds: Sequence[int], count: int) -> None:
        self.seeds = np.array(seeds, np.uint64)
        self.out = np.full((len(seeds), count), np.nan, np.float32)
        self.block = noise_kernel.BLOCK
        self.grid = -(-count // (noise_kernel.PER_THREAD * self.block)), len(seeds)

    def at(self, address: int, size: int) -> np.ndarray:
        """The bytes at an address."""
        for array in (self.seeds, self.out):
            if array.ctypes.data <= address and address + size <= array.ctypes.data + array.nbytes:
                start = address - array.ctypes.data
                return array.view(np.uint8).reshape(-1)[start : start + size]
        raise AssertionError("memory that was not allocated")


@pytest.fixture(scope="module")
def draw_in_cpp(library: ctypes.CDLL) -> DrawOn:
    """Draws with the source."""

    def draw(seeds: Sequence[int], count: int, number: int, sigma: float = 1) -> np.ndarray:
        memory = Memory(seeds, count)
        library.launch(
            *(*memory.grid, memory.block),
            ctypes.c_void_p(memory.out.ctypes.data),
            ctypes.c_void_p(memory.seeds.ctypes.data),
            *(ctypes.c_uint64(number), ctypes.c_uint32(count), ctypes.c_float(sigma)),
        )
        return memory.out

    return draw


def launch_of(ptx: ModuleType, text: str, memory: Memory, number: int, sigma: float = 1) -> ModuleType:
    """The launch of a kernel in PTX."""
    addresses = memory.out.ctypes.data, memory.seeds.ctypes.data
    count = np.uint32(memory.out.shape[1])
    values = [*(np.uint64(value) for value in (*addresses, number)), count, np.float32(sigma)]
    arguments = [value.tobytes() for value in values]
    return ptx.Launch(ptx.kernels(text)["normal"], memory.grid, memory.block, arguments, memory.at)


@pytest.fixture(scope="module")
def draw_in_ptx(ptx: ModuleType) -> DrawOn:
    """Draws with the PTX that ships, or with another text."""

    def draw(
        seeds: Sequence[int], count: int, number: int, sigma: float = 1, text: str | None = None
    ) -> np.ndarray:
        memory = Memory(seeds, count)
        launch_of(ptx, text or PTX.read_text(), memory, number, sigma).run()
        return memory.out

    return draw


@pytest.fixture(params=["source", "ptx"])
def draw(request: pytest.FixtureRequest) -> DrawOn:
    """Draws with the source, and with the PTX."""
    return request.getfixturevalue({"source": "draw_in_cpp", "ptx": "draw_in_ptx"}[request.param])


def roundings(actual: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """The largest difference in units of the last place, and how many of a million numbers differ."""
    places = np.abs(actual.astype(np.float64) - expected) / np.spacing(np.abs(expected))
    return float(places.max()), 1e6 * float((actual != expected).mean())


def test_numbers_are_those_of_the_host(draw: DrawOn):
    for number in (START_DRAW, VARIATION_DRAW + 3):
        expected = standard_normal(SEEDS, (3, 64, 64), number).reshape(4, -1)
        largest, differing = roundings(draw(SEEDS, 12288, number), expected)
        assert largest <= 1 and differing <= 21  # one of 49,152 is 20 in a million


@pytest.mark.parametrize("count", COUNTS)
def test_numbers_of_every_count_and_draw(draw: DrawOn, count: int):
    for number in DRAWS[:: 1 if count in (7, 63) else 5]:
        expected = standard_normal(SEEDS, (count,), number)
        assert np.isfinite(draw(SEEDS, count, number)).all()
        np.testing.assert_allclose(draw(SEEDS, count, number), expected, rtol=2.4e-7, atol=1e-12)


def test_sigma_is_the_standard_deviation(draw: DrawOn):
    expected = np.float32(0.12) * standard_normal([3], (99,), 1)
    np.testing.assert_allclose(draw([3], 99, 1, 0.12), expected, rtol=3e-7)


def philox(seed: int, number: int, count: int) -> np.ndarray:
    """The words of numpy's generator."""
    return np.random.Philox(key=np.array([seed, number], np.uint64)).random_raw(count)


@pytest.mark.parametrize("number", DRAWS)
def test_words_of_the_source_are_those_of_numpy(library: ctypes.CDLL, number: int):
    for seed in SEEDS:
        words = (ctypes.c_uint64 * 4)()
        drawn = []
        for counter in range(1, 26):
            library.words(words, *(ctypes.c_uint64(value) for value in (counter, seed, number)))
            drawn += words
        assert drawn == philox(seed, number, 100).tolist()


@pytest.mark.parametrize("count", [1131, 1132, 1133, 1134, 1136])
def test_words_of_the_ptx_are_those_of_numpy(ptx: ModuleType, count: int):
    """Only the upper 53 bits of a word are used. They are the operands of the two shifts to the right."""
    seed, half = 2**64 - 7, (count + 1) // 2
    launch = launch_of(ptx, PTX.read_text(), Memory([seed], count), VARIATION_DRAW)
    launch.operands["shr.u64"] = []
    launch.run()
    radii, angles = np.zeros((2, half), np.uint64)
    for step in range(4):  # the four numbers of a thread
        for words, shifts in ((radii, slice(0, None, 2)), (angles, slice(1, None, 2))):
            threads, (word, shift) = launch.operands["shr.u64"][shifts][step]
            assert (shift == 11).all()
            words[4 * threads + step] = word
    np.testing.assert_array_equal(np.concatenate([radii, angles]), philox(seed, VARIATION_DRAW, 2 * half))


@pytest.mark.parametrize(
    ("pattern", "changed"),
    [
        ("-7046029254386353131", "-7046029254386353130"),  # the key of the second round
        (r"(shr.u32\s+%r\d+, %r\d+), 2;", r"\1, 3;"),  # the counter of the first angle
        (r"(and.b32\s+%r\d+, %r\d+), 3;", r"\1, 1;"),  # which of its words it is
        ("0d400921FB54442D18", "0d400922FB54442D18"),  # π
        ("0dC000000000000000", "0dBFF0000000000000"),  # the -2 in front of the logarithm
    ],
)
def test_changed_ptx_gives_other_numbers(draw_in_ptx: DrawOn, pattern: str, changed: str):
    broken = re.sub(pattern, changed, PTX.read_text())
    assert broken != PTX.read_text()
    difference = draw_in_ptx([5], 9005, 1, text=broken) - standard_normal([5], (9005,), 1)
    assert np.abs(difference).max() > 1e-5


def test_ptx_was_compiled_from_the_source():
    assert PTX.read_bytes().startswith(compile_noise.header(SOURCE.read_bytes()))


def test_ptx_is_the_file_that_was_tested():
    """The driver executes this file. Compile it again when the source changes, and write its hash here."""
    assert hashlib.sha256(PTX.read_bytes()).hexdigest() == (
        "868a09ffc9b0795340b694df5f29cae9ec058f09ac2146f8aee70cbb503133d9"
    )


def test_source_compiles_to_the_ptx():
    if reason := compile_noise.missing_nvrtc():
        pytest.skip(reason)
    assert compile_noise.compiled(SOURCE.read_bytes()) == PTX.read_bytes()


def test_ptx_is_for_the_gpus_and_drivers_that_are_accepted():
    text = PTX.read_text()
    assert ".version 8.2\n" in text and ".target sm_80\n" in text  # ISA 8.2 came with CUDA 12.2
    assert (noise_kernel.CUDA, noise_kernel.CAPABILITY) == ((12, 2), (8, 0))


@pytest.mark.parametrize(
    ("capability", "cuda", "reason"),
    [
        ("8.0", "12.2", None),
        ("8.7", "12.6", None),
        ("11.0", "13.0", None),
        ("10.3", "12.10", None),
        ("7.5", "12.6", "the kernel needs compute capability 8.0, and this GPU has 7.5"),
        ("8.7", "12.1", "the kernel needs a driver for CUDA 12.2, and this one is for 12.1"),
        ("8.7", "11.8", "the kernel needs a driver for CUDA 12.2, and this one is for 11.8"),
    ],
)
def test_old_gpus_and_drivers_are_named(capability: str, cuda: str, reason: str | None):
    assert noise_kernel.why_unavailable(replace(ORIN, capability=capability, cuda=cuda)) == reason


def test_fused_multiply_add_is_rounded_once(ptx: ModuleType):
    from ptx.arithmetic import fused_multiply_add, multiply_high

    a, b, c = np.random.default_rng(0).normal(size=(3, 3000))
    c[:1000] = -a[:1000] * b[:1000]  # leaves the error of the product
    c[1000:2000] *= 2.0 ** np.random.default_rng(1).integers(-60, 60, 1000)
    exact = [float(Fraction(x) * Fraction(y) + Fraction(z)) for x, y, z in zip(a, b, c, strict=True)]
    np.testing.assert_array_equal(fused_multiply_add(a, b, c), exact)
    x, y = np.random.default_rng(2).integers(0, 2**64, (2, 1000), np.uint64)
    high = [int(p) * int(q) >> 64 for p, q in zip(x, y, strict=True)]
    assert multiply_high(x, y).tolist() == high
