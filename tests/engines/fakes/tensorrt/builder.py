"""The builder, which writes a plan as JSON."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import gpu_record as record

from .enums import (
    TYPE_NAMES,
    BuilderFlag,
    DeviceType,
    LayerType,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    ProfilingVerbosity,
)
from .interfaces import ILogger
from .network import INetworkDefinition, Layer

VERSION = record.environment("TENSORRT", "10.3.0")
ERRORS = {  # FAKE_BUILD → the message of a build that fails
    "memory": "Could not find any implementation for node {ForeignNode}",
    "refused": "Internal Error: no such kernel",
}


class IOptimizationProfile:
    """The smallest, the most frequent and the largest shape of every input."""

    def __init__(self) -> None:
        self.shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]) -> None:
        self.shapes[input] = [min, opt, max]


class ITimingCache:
    """Timings of kernels; each build appends to them."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"timed;"


class IBuilderConfig:
    """Options of a build."""

    def __init__(self) -> None:
        self.flags = {BuilderFlag.TF32}
        self.limits: dict[MemoryPoolType, int] = {}
        self.profiles: list[IOptimizationProfile] = []
        self.max_aux_streams: int | None = None
        self.progress_monitor: Any = None
        self.builder_optimization_level, self.profiling_verbosity = 3, ProfilingVerbosity.LAYER_NAMES_ONLY
        self.default_device_type = DeviceType.GPU
        self._timing_cache: ITimingCache | None = None

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self.limits[pool] = pool_size

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache.content and not cache.content.startswith(b"timed;"):
            return False
        self._timing_cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._timing_cache

    def can_run_on_DLA(self, layer: Layer) -> bool:
        assert self.default_device_type == DeviceType.DLA and BuilderFlag.GPU_FALLBACK in self.flags
        return layer.type == LayerType.CONVOLUTION


class Builder:
    """Builds plans. FAKE_BUILD breaks it."""

    num_DLA_cores = int(record.environment("DLA_CORES", "2"))

    def __init__(self, logger: ILogger) -> None:
        if record.environment("BUILD", "") == "driver":
            logger.log(ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        fault = record.environment("BUILD", "")
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault in ERRORS:
            self._logger.log(ILogger.Severity.ERROR, ERRORS[fault])
            return None
        has_moves = network.graph.stem not in ("add_noise", "to_uint8")
        assert not has_moves or (config.profiles and BuilderFlag.TF32 not in config.flags)
        _report_progress(config.progress_monitor)
        types = _compute_types(network)
        narrow = [name for name, kind in types.items() if kind != "Float"]
        widened = narrow[: {"wider": None, "one wider": 1}.get(fault, 0)]
        plan = {
            "tensorrt": VERSION,
            "graph": str(network.graph.resolve()),
            "inputs": [(tensor.name, tensor.shape, int(tensor.dtype)) for tensor in network.inputs],
            "outputs": [(tensor.name, tensor.shape, int(tensor.dtype)) for tensor in network.outputs],
            "profiles": [profile.shapes for profile in config.profiles],
            "max_aux_streams": config.max_aux_streams,
            "limits": {pool.name: limit for pool, limit in config.limits.items()},
            "types": types | dict.fromkeys(widened, "Float"),
            "tf32": os.environ.get("NVIDIA_TF32_OVERRIDE", "-1"),
            "detailed": config.profiling_verbosity == ProfilingVerbosity.DETAILED,
            "stripped": BuilderFlag.STRIP_PLAN in config.flags,
            "weights": "" if BuilderFlag.STRIP_PLAN in config.flags else "0" * 4096,
        }
        return json.dumps(plan).encode()


def _report_progress(monitor: Any) -> None:
    """Report a build of two steps with a phase inside."""
    monitor.phase_start("Building", None, 2)
    monitor.phase_start("Timing", "Building", 1)
    monitor.phase_finish("Timing")
    assert monitor.step_complete("Building", 0) and monitor.step_complete("Building", 1)
    monitor.phase_finish("Building")


def _compute_types(network: INetworkDefinition) -> dict[str, str]:
    """The compute type of every convolution, by name."""
    dequantized = {
        layer.get_output(0).name: layer.get_input(0).dtype
        for layer in network.layers
        if layer.type == LayerType.DEQUANTIZE
    }
    types = {}
    for layer in network.layers:
        if layer.type == LayerType.CONVOLUTION:
            source = layer.get_input(0)
            types[layer.name] = TYPE_NAMES[dequantized.get(source.name, source.dtype)]
    return types
