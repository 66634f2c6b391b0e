"""Write plans with TensorRT's builder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TypedDict

import tensorrt as trt

from ...errors import BackendError, BuildError
from ...runtime.engines import adapter
from ...runtime.engines.facts import BuildOptions, Profile
from ...runtime.machine.gpu import is_out_of_memory
from ...runtime.storage.files import write_atomically
from ...runtime.storage.manifest import DIRECTIONS
from .plan import Progress, Report
from .realised import requested_types


class OutOfMemory(BuildError):
    """The GPU or the system has too little memory for this build."""


class DlaSupport(TypedDict):
    """The layers of a graph that a DLA supports."""

    layers: int  # all layers of the graph
    able: int  # layers that a DLA supports
    refused: dict[str, int]  # type of layer → number of layers that a DLA does not support


class PlanWriter:
    """A writer of the plans of one build, with one builder."""

    def __init__(
        self,
        folder: Path,
        options: BuildOptions,
        sample_shape: tuple[int, int, int],
        integrated: bool,
        timing_cache: Path | None,
        report: Report,
        progress: Progress,
    ) -> None:
        self._folder = folder
        self._options = options
        self._sample_shape = sample_shape
        self._integrated = integrated  # whether the GPU shares the memory of the processor
        self._timing_cache = timing_cache
        self._report = report
        self._progress = progress
        self._messages = adapter.Messages()
        # No error recorder here: with one, TensorRT-RTX crashes when it frees a network that was built.
        self._builder = adapter.create(trt.Builder, self._messages)
        self._warnings: set[str] = set()
        # Direction → convolution → the type that the graph asks for; filled by `write`.
        self.convolutions: dict[str, dict[str, str]] = {}

    def write(self, name: str, graph: Path) -> None:
        """Build an ONNX graph and write it as NAME.plan. Raises BuildError with TensorRT's messages."""
        # The parser owns weights of the network, so it must exist until the plan is built.
        network, _parser = self._parse(graph)
        if name in DIRECTIONS:
            self._report(f"{name}: {network.num_layers} layers parsed")
            self.convolutions[name] = requested_types(network, self._options.precision)
        config = self._config(name)
        self._add_profiles(name, network, config)
        cache = self._load_timing_cache(config)
        plan = self._builder.build_serialized_network(network, config)
        if plan is None:
            errors = self._messages.explain()
            error_class = OutOfMemory if is_out_of_memory(errors) else BuildError
            raise error_class(f"{name}: TensorRT {trt.__version__} cannot build it: {errors}")
        (self._folder / f"{name}.plan").write_bytes(plan)
        if cache is not None:
            self._save_timing_cache(config)

    def dla_support(self, name: str, graph: Path) -> DlaSupport:
        """Return how much of a graph a DLA supports. Nothing is built.

        Raises BackendError if the GPU has no DLA.
        """
        if not self._builder.num_DLA_cores:
            raise BackendError("TensorRT finds no DLA on this machine")
        network, _parser = self._parse(graph)
        config = self._config(name)
        config.default_device_type = trt.DeviceType.DLA
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
        layers = [network.get_layer(index) for index in range(network.num_layers)]
        refused = Counter(layer.type.name for layer in layers if not config.can_run_on_DLA(layer))
        return {
            "layers": len(layers),
            "able": len(layers) - refused.total(),
            "refused": dict(refused.most_common()),
        }

    def _parse(self, graph: Path) -> tuple[trt.INetworkDefinition, trt.OnnxParser]:
        network = self._builder.create_network(adapter.network_flags())
        parser = trt.OnnxParser(network, self._messages.logger)
        adapter.prepare_parser(parser)
        # From the file, not from bytes: only then does TensorRT find the weights beside it.
        if not parser.parse_from_file(str(graph)):
            errors = adapter.parser_errors(parser, self._messages)
            raise BuildError(f"{graph}: TensorRT {trt.__version__} cannot parse it: {errors}")
        return network, parser

    def _add_profiles(self, name: str, network: trt.INetworkDefinition, config: trt.IBuilderConfig) -> None:
        """Add the profiles of the options to a config, in their order. Raises BuildError."""
        for number, sizes in enumerate(self._options.profiles):
            # TensorRT returns the index of the profile, or -1.
            if config.add_optimization_profile(self._profile(network, sizes)) != number:
                raise BuildError(
                    f"{name}: TensorRT does not support the batch sizes {':'.join(map(str, sizes))}: "
                    f"{self._messages.explain()}"
                )

    def _profile(self, network: trt.INetworkDefinition, sizes: Profile) -> trt.IOptimizationProfile:
        """The shapes of every input for these batch sizes."""
        profile = self._builder.create_optimization_profile()
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            sample_shape = self._sample_shape if len(tensor.shape) == 4 else ()  # an image, or one number
            smallest, common, largest = ((size, *sample_shape) for size in sizes)
            profile.set_shape(tensor.name, smallest, common, largest)
        return profile

    def _config(self, name: str) -> trt.IBuilderConfig:
        config = self._builder.create_builder_config()
        if self._options.workspace is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, self._options.workspace)
        config.builder_optimization_level = self._options.opt_level
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # needed to read the types back
        adapter.share_profiles(config)
        if self._integrated:
            config.max_aux_streams = 0  # such a GPU is small; kernels side by side only compete for it
        if name in DIRECTIONS:
            adapter.set_precision(config, self._options.precision)
            if self._options.stripped:
                adapter.strip(config)

        def on_phase(phase: str, parent: str | None, done: int, steps: int) -> None:
            if not parent:
                self._progress(name, phase, done, steps)

        adapter.monitor(config, on_phase)
        return config

    def _load_timing_cache(self, config: trt.IBuilderConfig) -> trt.ITimingCache | None:
        """Give the config the timing cache of the file, or an empty one with a warning if that is not usable.

        Returns the cache, or None if there is no file to use or TensorRT accepts none.
        """
        if self._timing_cache is None:
            return None
        try:
            stored = self._timing_cache.read_bytes()
        except OSError:
            stored = b""
        new = config.create_timing_cache(b"")
        if new is None:
            return None
        empty = bytes(new.serialize())
        try:
            cache = config.create_timing_cache(stored)
        except (RuntimeError, TypeError, ValueError):
            cache = None
        if cache is not None:
            # TensorRT makes an empty cache, without an error, of bytes that are not a timing cache.
            ignored = stored not in (b"", empty) and bytes(cache.serialize()) == empty
            if not ignored and config.set_timing_cache(cache, False):
                return cache
        self._messages.explain()  # clears TensorRT's errors; the warning below takes their place
        self._warn(f"{self._timing_cache} is not a timing cache of this GPU and TensorRT; starting a new one")
        return new if config.set_timing_cache(new, False) else None

    def _save_timing_cache(self, config: trt.IBuilderConfig) -> None:
        assert self._timing_cache
        cache = config.get_timing_cache()
        if cache is None:
            return
        try:
            write_atomically(self._timing_cache, bytes(cache.serialize()))
        except OSError as error:
            self._warn(f"{self._timing_cache}: cannot write the timing cache ({error.strerror})")

    def _warn(self, text: str) -> None:
        """Report a warning once, though it may occur with every plan."""
        if text not in self._warnings:
            self._report(f"warning: {text}")
        self._warnings.add(text)
