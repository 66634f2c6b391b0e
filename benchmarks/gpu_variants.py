"""The variants of benchmarks/gpu.py: the engines that they need, and how they are opened."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_results import (
    COMPILED,
    CUDA,
    EAGER,
    FP8,
    HALF,
    INT8,
    NHWC,
    NO_GRAPHS,
    NOISE_ON_GPU,
    NOISE_ON_HOST,
    ORT_TENSORRT,
    PROFILES,
    RTX,
    SINGLE,
    TENSORRT,
    precision_of,
)
from gpu_work import drawn, say
from networks import TorchPlayer, rounded

if TYPE_CHECKING:
    from bcm_edge.runtime.engines.facts import BuildOptions

BACKENDS = {CUDA: "onnxruntime-cuda", ORT_TENSORRT: "onnxruntime-tensorrt", RTX: "onnxruntime-rtx"}
CUDA_OPTIONS = {NHWC: {"prefer_nhwc": "1"}, NO_GRAPHS: {"enable_cuda_graph": "0"}}  # options of the provider
ENGINES = {  # variant → the variant whose engine it uses
    TENSORRT: TENSORRT,
    NOISE_ON_GPU: TENSORRT,
    NOISE_ON_HOST: TENSORRT,
    PROFILES: PROFILES,
    SINGLE: SINGLE,
    HALF: HALF,
    INT8: INT8,
    FP8: FP8,
}


def build_options(variant: str, largest: int) -> BuildOptions:
    """Return the options of the engine of a variant. largest: its largest batch."""
    from bcm_edge.runtime.engines.facts import BuildOptions

    profiles = ((1, 16, largest),)
    if variant == PROFILES:
        profiles = ((1, 1, 1), (2, 16, 32), (64, largest, largest))
    return BuildOptions(precision_of(variant), profiles, single=variant == SINGLE)


def build_engine(bundle: str, variant: str, largest: int) -> None:
    """Build the engine of a variant, unless an earlier call has. Raises BcmError."""
    from bcm_edge.errors import BackendError
    from bcm_edge.export.engines.build import build
    from bcm_edge.export.engines.plan import plan_build
    from bcm_edge.runtime.storage.bundle import open_bundle

    if variant == HALF:
        bundle = str(export_half(Path(bundle)))
    opened, options = open_bundle(Path(bundle)), build_options(variant, largest)
    if options.precision not in opened.precisions:
        raise BackendError(
            f"the bundle has no {options.precision}; measure its ranges before the benchmark: "
            f"bcm-edge calibrate FOLDER/NETWORK/bundle --precision {options.precision}"
        )
    plan = plan_build(opened, options)
    if plan.present() is None:
        say(f"building the engine of {variant}")
        build(plan, say, lambda *_: None)


def half_of(bundle: Path) -> Path:
    """Return where the bundle with normalisations in half is, beside the bundle of all other variants."""
    return bundle.with_name("bundle-half")


def export_half(bundle: Path) -> Path:
    """Export the same network with normalisations in half, unless an earlier call has. Returns its path."""
    from bcm_edge.export.exporter import ExportPlan, export
    from bcm_edge.export.restore import restored_model
    from bcm_edge.model.checkpoint import Checkpoint
    from bcm_edge.runtime.storage.bundle import open_bundle

    target = half_of(bundle)
    if not target.is_dir():
        say("exporting it with normalisations in half")
        model = restored_model(open_bundle(bundle))
        checkpoint = Checkpoint(bundle.name, model.config, model.network.state_dict())
        plan = ExportPlan(checkpoint, target, verify="none", precisions=("fp16",), fp16_norms="half")
        export(plan, "0" * 64)
    return target


def opened(variant: str, bundle: Any, model: Any, largest: int) -> Any:
    """Return the player of a variant. Raises BackendError if it cannot run here.

    largest: the largest batch that it has to play.
    """
    import torch

    from bcm_edge.runtime.backends import open_backend
    from bcm_edge.runtime.machine.placement import Placement

    if variant in (EAGER, COMPILED):
        return TorchPlayer(rounded(model, torch.float16), "cuda", compiled=variant == COMPILED)
    if variant in ENGINES:
        return engine_of(variant, bundle, largest)
    if variant in CUDA_OPTIONS:
        return cuda_with(CUDA_OPTIONS[variant], bundle)
    return open_backend(BACKENDS[variant], bundle, "fp16", Placement(batch=largest))


def engine_of(variant: str, bundle: Any, largest: int) -> Any:
    """Return the TensorRT backend on the engine of a variant. Raises BackendError."""
    from bcm_edge.errors import BackendError
    from bcm_edge.export.engines.plan import plan_build
    from bcm_edge.runtime.backends.tensorrt import TensorRtBackend
    from bcm_edge.runtime.machine.gpu import probe
    from bcm_edge.runtime.storage.bundle import open_bundle

    if variant == HALF:
        bundle = open_bundle(half_of(bundle.path))
    engine = plan_build(bundle, build_options(ENGINES[variant], largest)).present()
    if engine is None:
        raise BackendError(f"the engine of {variant} has not been built")
    return TensorRtBackend(bundle, engine, probe())


def cuda_with(options: dict[str, str], bundle: Any) -> Any:
    """Return the backend onnxruntime-cuda with other options of its provider. Raises BackendError."""
    from bcm_edge.errors import BackendError
    from bcm_edge.runtime.backends import onnxruntime_cuda
    from bcm_edge.runtime.backends.onnxruntime_gpu import open_on_gpu

    if reason := onnxruntime_cuda.unavailable("fp16"):
        raise BackendError(reason)

    def provider(gpu: Any, stream: int) -> Any:
        usual = onnxruntime_cuda.cuda_provider(gpu, stream)
        graphs = None if options.get("enable_cuda_graph") == "0" else usual.graph_option
        return replace(usual, options={**usual.options, **options}, graph_option=graphs)

    return open_on_gpu(onnxruntime_cuda.INFO.name, bundle, "fp16", provider)


def run_of(variant: str, player: Any, inputs: Any) -> Any:
    """Return what is timed: a run of a schedule from host to host.

    inputs: those of `gpu_work.inputs_of`. Noise is drawn before, except in the variants that draw it.
    """
    if variant == NOISE_ON_GPU:
        return partial(player.play_moves, *inputs, every=False)
    if variant == NOISE_ON_HOST:
        return lambda: player.play_moves(*drawn(*inputs), every=False)
    return partial(player.play_moves, *drawn(*inputs), every=False)
