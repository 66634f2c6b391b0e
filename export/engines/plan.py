"""The plan of a build: made from the bundle, the options and this machine before anything is compiled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...errors import BackendError, BuildError, OutputError
from ...runtime.engines.facts import BuildOptions
from ...runtime.engines.store import (
    ENGINES,
    BrokenEngine,
    Engine,
    broken_engines,
    check_plans,
    engine_key,
    engines,
    misfit,
    read_engine,
    system,
)
from ...runtime.machine.cache_folder import cache_directory
from ...runtime.machine.gpu import Gpu, cannot_compute, probe
from ...runtime.machine.installed import missing_cuda_core, missing_tensorrt, tensorrt_version
from ...runtime.storage.bundle import Bundle

Report = Callable[[str], None]  # called with one line per stage
Progress = Callable[[str, str, int, int], None]  # called with (plan, phase, steps done, steps in all)


@dataclass(frozen=True)
class BuildPlan:
    """The plan of a build: its engines, its GPU and its version of TensorRT."""

    bundle: Bundle
    gpu: Gpu
    # The version of TensorRT, for example "10.3.0.26".
    tensorrt: str
    options: BuildOptions
    # Refuse an engine that computes a convolution in more bits than its graph asks for.
    strict_types: bool = False

    @property
    def folder(self) -> Path:
        """The folder in the bundle that the engines are written to."""
        return self.bundle.path / ENGINES / engine_key(self.bundle, self.gpu, self.tensorrt, self.options)

    @property
    def batches(self) -> list[int]:
        """The batch sizes to verify: the smallest and the largest of every profile, and one between."""
        sizes = set()
        for smallest, common, largest in self.options.profiles:
            between = common if smallest < common < largest else (smallest + largest) // 2
            sizes |= {smallest, between, largest}
        return sorted(sizes)

    @property
    def timing_cache(self) -> Path | None:
        """The file in which TensorRT keeps the measured times of kernels, or None without a cache folder."""
        gpu_and_version = f"{self.gpu.name}-sm{self.gpu.capability}-trt{self.tensorrt}"
        name = "".join(letter if letter.isalnum() else "-" for letter in gpu_and_version)
        with suppress(OutputError):
            return cache_directory() / "tensorrt" / f"{name}.timing"
        return None

    def present(self) -> Engine | None:
        """Return the engine that this build would make if it is already in the bundle and undamaged."""
        engine = read_engine(self.folder)
        if isinstance(engine, BrokenEngine) or misfit(engine, self.bundle, self.gpu, self.tensorrt):
            return None
        return None if _damage(engine) else engine

    def stale(self) -> list[tuple[Engine | BrokenEngine, str]]:
        """Return the engines of this precision that do not run here, each with the reason.

        They include the engine that this build replaces, if its files are damaged, and every broken engine.
        """
        stale_engines: list[tuple[Engine | BrokenEngine, str]] = []
        for engine in engines(self.bundle):
            if engine.facts.options.precision != self.options.precision:
                continue
            reason = misfit(engine, self.bundle, self.gpu, self.tensorrt) or _damage(engine)
            if reason:
                stale_engines.append((engine, reason))
        return [*stale_engines, *((engine, engine.problem) for engine in broken_engines(self.bundle))]

    def replaces(self, engine: Engine | BrokenEngine) -> bool:
        """Whether a stale engine has the options and the GPU of this build, so that no machine can run it.

        Of an engine that an older version of this package built, only the precision, the compute capability
        and the TensorRT version are known: they are in its name.
        """
        if isinstance(engine, BrokenEngine):
            same_kind = engine.name.rpartition("-")[0] == self.folder.name.rpartition("-")[0]
            return engine.folder == self.folder or (engine.outdated and same_kind)
        facts = engine.facts
        ours = (self.gpu.name, self.gpu.capability, self.gpu.multiprocessors, system(), self.options)
        return (facts.gpu, facts.capability, facts.multiprocessors, facts.system, facts.options) == ours


def plan_build(
    bundle: Bundle, options: BuildOptions, device: int = 0, strict_types: bool = False
) -> BuildPlan:
    """Check this machine and return what a build on GPU number `device` would do.

    Raises BackendError if there is no GPU or no TensorRT, or if TensorRT does not support an option. Raises
    BuildError if the GPU or TensorRT does not support the precision.
    Raises OutputError if the bundle's folder of engines is a link.
    """
    bundle.graphs(options.precision)  # raises if the bundle has no graphs in this precision
    gpu = probe(device)
    if reason := missing_tensorrt(gpu) or missing_cuda_core(gpu):
        raise BackendError(reason)
    if (bundle.path / ENGINES).is_symlink():
        raise OutputError(f"{bundle.path / ENGINES} is a link; replace it with a folder")
    version = tensorrt_version()
    from ...runtime.engines.adapter import can_strip, why_unsupported  # it imports TensorRT

    if reason := cannot_compute(gpu, options.precision) or why_unsupported(options.precision):
        raise BuildError(reason)
    if options.stripped and not can_strip():
        raise BackendError(
            f"TensorRT {version} cannot build plans without weights (--strip); 10.3 or newer is needed"
        )
    return BuildPlan(bundle, gpu, version, options, strict_types)


def _damage(engine: Engine) -> str | None:
    """Return why the plans of an engine differ from the files that were built, or None if they do not."""
    try:
        check_plans(engine)
    except BackendError as error:
        return str(error).partition("; run")[0]
    return None
