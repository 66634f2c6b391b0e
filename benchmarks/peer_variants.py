"""The variants of benchmarks/peers.py: PyTorch eager, torch.compile, diffusers' pipeline, and bcm-edge."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from bcm_edge.model.preconditioning import ConsistencyModel
    from bcm_edge.runtime.storage.bundle import Bundle

EAGER = "PyTorch eager, as the authors run it"
OURS = (  # backend, precision
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)


def variant_makers(bundle: Bundle, model: ConsistencyModel, batch: int) -> dict[str, Callable[[], Callable]]:
    """Return variant → what prepares it and returns its play.

    A play returns images, float32 [N, C, H, W] in [-1, 1] or slightly beyond.
    """
    from bcm_edge.model.player import TorchBackend
    from bcm_edge.runtime.backends import open_backend
    from bcm_edge.runtime.checks.benchmark import player
    from bcm_edge.runtime.schedule import ONE_STEP

    def eager() -> Callable:
        return player(TorchBackend(model), ONE_STEP, batch)

    def compiled() -> Callable:
        compiled_model = copy.copy(model)  # shares the weights, and leaves the model of the others as it is
        compiled_model.compile(fullgraph=True, dynamic=False)
        return player(TorchBackend(compiled_model), ONE_STEP, batch)

    def ours(name: str, precision: str) -> Callable[[], Callable]:
        return lambda: player(open_backend(name, bundle, precision), ONE_STEP, batch)

    return {
        EAGER: eager,
        "torch.compile(fullgraph)": compiled,
        "diffusers ConsistencyModelPipeline": lambda: diffusers_pipeline(model, batch),
        **{f"bcm-edge {name} {precision}": ours(name, precision) for name, precision in OURS},
    }


def diffusers_pipeline(model: ConsistencyModel, batch: int) -> Callable:
    """Return a play of diffusers' pipeline and scheduler on the same network, in one step from one noise.

    The scheduler has the c_skip and c_out of consistency models, not those of a BCM. The images differ by
    some thousandths; the work is the same.
    """
    import numpy as np
    import torch
    from diffusers import CMStochasticIterativeScheduler, ConsistencyModelPipeline

    from bcm_edge.runtime.noise import START_DRAW, standard_normal
    from bcm_edge.runtime.schedule import SIGMA_MIN

    class Network(torch.nn.Module):
        """The network as a pipeline calls it: with the scaled input, and the level as 250 ln σ."""

        dtype, device = torch.float32, torch.device("cpu")

        def __init__(self) -> None:
            super().__init__()
            self.network = model.network
            channels, size, _ = model.config.sample_shape
            classes = model.config.num_classes
            self.config = argparse.Namespace(in_channels=channels, sample_size=size, num_class_embeds=classes)

        def forward(self, x, timestep, class_labels, return_dict):
            tau_t = torch.full((len(x),), float(timestep))
            tau_u = torch.full((len(x),), 250 * float(np.log(SIGMA_MIN)))
            return (self.network(x, tau_t, tau_u, class_labels),)

    class Pipeline(ConsistencyModelPipeline):
        def check_inputs(self, *_) -> None:
            """Accept grey images too; the method of the pipeline refuses them."""

    pipeline = Pipeline(Network(), CMStochasticIterativeScheduler())
    pipeline.set_progress_bar_config(disable=True)
    classes = model.config.num_classes
    labels = None if classes is None else torch.arange(batch) % classes

    def run() -> np.ndarray:
        latents = torch.from_numpy(standard_normal(list(range(batch)), model.config.sample_shape, START_DRAW))
        return 2 * pipeline(batch, labels, 1, latents=latents, output_type="pt").images.numpy() - 1

    return run
