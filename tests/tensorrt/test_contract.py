"""Names and signatures that the project and its fakes use, compared with the real bindings of four versions.

The bindings run over stub libraries, so TensorRT computes nothing here.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from contract import VERSIONS, declared, environment, members, missing, run_with, unlike
from contract_tables import BEFORE_11, EVERYWHERE, SINCE_10

from bcm_edge.runtime.machine.processes import PACKAGE


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_has_the_names_that_the_project_uses(version: str):
    assert missing(version, EVERYWHERE) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_optional_names_exist_either_all_or_not_at_all(version: str):
    assert missing(version, SINCE_10) == (members(SINCE_10) if version == "8.6" else [])
    assert missing(version, BEFORE_11) == (members(BEFORE_11) if version == "11.4" else [])


# TensorRT 8.6 has no class with which this can be tested without its library.
@pytest.mark.parametrize("version", VERSIONS[1:])
def test_tuple_can_be_used_as_dims(version: str):
    completed = run_with(
        version, "import tensorrt\nd = tensorrt.PluginTensorDesc()\nd.dims = (1, 2, 3)\nprint(tuple(d.dims))"
    )
    assert completed.stdout == "(1, 2, 3)\n", completed.stderr


def test_differences_of_a_fake_are_found():
    environment("10.3")
    claimed = {
        "ICudaEngine": {"num_io_tensors": [], "get_tensor_name": ["i"], "names": None},
        "CudaEngine": {},
    }
    assert unlike("10.3", claimed) == [
        "ICudaEngine.num_io_tensors is not a method in 10.3",
        "ICudaEngine.get_tensor_name takes (index) in 10.3, not (i)",
        "10.3 has no ICudaEngine.names",
        "10.3 has no CudaEngine",
    ]


def test_fakes_of_the_engine_tests_have_the_real_signatures():
    """Except for one extra member of each."""
    fakes = {**environment("10.3"), "PYTHONPATH": str(PACKAGE / "tests" / "engines" / "fakes")}
    names = {"Tensor": "ITensor", "Layer": "ILayer"}
    claimed = {names.get(cls, cls): members for cls, members in declared(fakes, "tensorrt").items()}
    assert sorted(unlike("10.3", claimed)) == ["10.3 has no ICudaEngine.run", "10.3 has no LayerType.OTHER"]
    real, claimed = (declared(env, "cuda.core", "cuda.core.graph") for env in (os.environ, fakes))
    methods = [
        (cls, name) for cls, attributes in claimed.items() for name in attributes if name != "__init__"
    ]
    assert [(cls, name) for cls, name in methods if claimed[cls][name] != real.get(cls, {}).get(name)] == [
        ("Stream", "put")
    ]


DRIVER = """
import inspect
from cuda.bindings import driver
functions = (driver.cuMemAlloc, driver.cuMemFree)
parameters = [list(inspect.signature(function).parameters) for function in functions]
print(driver.CUresult(0).name, driver.CUresult(2).name, *parameters)
"""


@pytest.mark.parametrize("path", ["", str(PACKAGE / "tests" / "engines" / "fakes")], ids=["real", "fake"])
def test_driver_functions_have_the_signatures_in_typings(path: str):
    """Those of cuda-bindings, and those of its fake."""
    completed = subprocess.run(
        [sys.executable, "-c", DRIVER],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.stdout == "CUDA_SUCCESS CUDA_ERROR_OUT_OF_MEMORY ['bytesize'] ['dptr']\n", (
        completed.stderr
    )


KERNEL_ARGUMENTS = """
import ctypes
import numpy as np
from cuda.core import LaunchConfig
from cuda.core._kernel_arg_handler import ParamHolder

config = LaunchConfig(grid=(3, 256), block=128)
print(config.grid, config.block)
arguments = 2**47 + 8, 16, np.uint64(2**64 - 2), np.uint32(2**31), np.float32(80)
holder = ParamHolder(arguments)  # what launch passes to the driver
addresses = (ctypes.c_void_p * 5).from_address(holder.ptr)
for address, size in zip(addresses, (8, 8, 8, 4, 4)):
    print(ctypes.string_at(address, size).hex())
"""


def test_arguments_of_the_noise_kernel_reach_the_driver():
    """Two pointers, the number of the draw, the count and the standard deviation, in their sizes."""
    command = [sys.executable, "-c", KERNEL_ARGUMENTS]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert completed.stdout.splitlines() == [
        "(3, 256, 1) (128, 1, 1)",
        "0800000000800000",
        "1000000000000000",
        "feffffffffffffff",
        "00000080",
        "0000a042",
    ], completed.stderr
