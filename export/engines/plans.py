"""Writing plans with TensorRT's builder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import tensorrt as trt

from ...errors import BackendError, BuildError
from ...runtime.engines import adapter
from ...runtime.engines.facts import BuildOptions
from ...runtime.machine.gpu import is_out_of_memory
from ...runtime.storage.files import write_atomically
from ...runtime.storage.manifest import DIRECTIONS
from .realised import requested_types

Report = Callable[[str], None]
Progress = Callable[[str, str, int, int], None]  # (plan, phase, steps done, steps in all)


class OutOfMemory(BuildError):
    """The GPU or the system has too little memory for this build."""


class OnDla(TypedDict):
    """How many layers a graph has, how many a DLA could take, and the types of the others with their number."""

    layers: int
    able: int
    refused: dict[str, int]


class PlanWriter:
    """One builder, and what its plans have in common. convolutions: direction → convolution → the type that the graph asks for."""

    def __init__(
        self,
        folder: Path,
        options: BuildOptions,
        sample_shape: tuple[int, int, int],
        timing_cache: Path | None,
        report: Report,
        progress: Progress,
    ) -> None:
        self._folder, self._options, self._timing_cache = folder, options, timing_cache
        self._sample_shape = sample_shape
        self._report, self._progress = report, progress
        self._messages = adapter.Messages()
        # without the recorder: with it TensorRT-RTX crashes when a network that was built is freed
        self._builder = adapter.create(trt.Builder, self._messages)
        self._warned: set[str] = set()
        self.convolutions: dict[str, dict[str, str]] = {}

    def write(self, name: str, graph: Path) -> None:
        """Write NAME.plan of an ONNX graph. Raises BuildError with all that TensorRT says."""
        network, _parser = self._parsed(
            graph
        )  # the parser owns weights of the network, so it is here until the plan is written
        if name in DIRECTIONS:
            self._report(f"{name}: {network.num_layers} layers parsed")
            self.convolutions[name] = requested_types(network, self._options.precision)
        config = self._config(name)
        if config.add_optimization_profile(self._profile(network)) < 0:
            raise BuildError(
                f"{name}: TensorRT does not take the batch sizes {self._options.batch}: {self._messages.explain()}"
            )
        cache = self._load_timing_cache(config)
        plan = self._builder.build_serialized_network(network, config)
        if plan is None:
            said = self._messages.explain()
            kind = OutOfMemory if is_out_of_memory(said) else BuildError
            raise kind(f"{name}: TensorRT {trt.__version__} cannot build it: {said}")
        (self._folder / f"{name}.plan").write_bytes(plan)
        if cache is not None:
            self._save_timing_cache(config)

    def on_dla(self, name: str, graph: Path) -> OnDla:
        """What a DLA could take of a graph; nothing is built. Raises BackendError where there is none."""
        if not self._builder.num_DLA_cores:
            raise BackendError("this GPU has no DLA that TensorRT knows of")
        network, _parser = self._parsed(graph)
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

    def _parsed(self, graph: Path) -> tuple[trt.INetworkDefinition, trt.OnnxParser]:
        network = self._builder.create_network(adapter.network_flags())
        parser = trt.OnnxParser(network, self._messages.logger)
        adapter.prepare_parser(parser)
        if not parser.parse_from_file(str(graph)):  # by file: only then are weights found that lie beside it
            said = adapter.parser_errors(parser, self._messages)
            raise BuildError(f"{graph}: TensorRT {trt.__version__} cannot parse it: {said}")
        return network, parser

    def _profile(self, network: trt.INetworkDefinition) -> trt.IOptimizationProfile:
        """The batch sizes of the options; an input is a batch of images or of numbers."""
        profile = self._builder.create_optimization_profile()
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            rest = self._sample_shape if len(tensor.shape) == 4 else ()
            smallest, common, largest = ((n, *rest) for n in self._options.batch)
            profile.set_shape(tensor.name, smallest, common, largest)
        return profile

    def _config(self, name: str) -> trt.IBuilderConfig:
        config = self._builder.create_builder_config()
        if self._options.workspace is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, self._options.workspace)
        config.builder_optimization_level = self._options.opt_level
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # or the types cannot be read back
        adapter.share_profiles(config)
        if name in DIRECTIONS:
            adapter.set_precision(config, self._options.precision)
            if self._options.stripped:
                adapter.strip(config)
        adapter.monitor(
            config,
            lambda phase, part_of, done, steps: None if part_of else self._progress(name, phase, done, steps),
        )
        return config

    def _load_timing_cache(self, config: trt.IBuilderConfig) -> trt.ITimingCache | None:
        """A timing cache on the config, from the file if that is one of this GPU and version; one warning if it is not."""
        if self._timing_cache is None:
            return None
        try:
            known = self._timing_cache.read_bytes()
        except OSError:
            known = b""
        new = config.create_timing_cache(b"")
        if new is None:
            return None
        empty = bytes(new.serialize())
        try:
            cache = config.create_timing_cache(
                known
            )  # an empty one if the bytes are none, and TensorRT does not say so
        except (RuntimeError, TypeError, ValueError):
            cache = None
        if (
            cache is not None
            and (known in (b"", empty) or bytes(cache.serialize()) != empty)
            and config.set_timing_cache(cache, False)
        ):
            return cache
        self._messages.explain()  # is said here
        self._warn(
            f"{self._timing_cache} is not a timing cache of this GPU and TensorRT; beginning a new one"
        )
        return new if config.set_timing_cache(new, False) else None

    def _save_timing_cache(self, config: trt.IBuilderConfig) -> None:
        assert self._timing_cache
        cache = config.get_timing_cache()
        if cache is None:
            return
        try:
            write_atomically(self._timing_cache, bytes(cache.serialize()))
        except OSError as error:
            self._warn(f"the timing cache is not kept: {error.strerror}")

    def _warn(self, text: str) -> None:
        """Once, though every plan comes here."""
        if text not in self._warned:
            self._report(f"warning: {text}")
        self._warned.add(text)
