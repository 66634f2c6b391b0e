"""The torch model back out of a bundle: its float32 weights are stored under their state-dict names."""

from __future__ import annotations

import onnx
import torch
from onnx import numpy_helper

from ..errors import BundleError
from ..model.config import NetworkConfig
from ..model.preconditioning import ConsistencyModel
from ..runtime.storage.bundle import Bundle


def restored_model(bundle: Bundle) -> ConsistencyModel:
    """The network of the bundle's fp32 graphs, in evaluation mode. Raises BundleError if they do not hold all of its weights."""
    graph = onnx.load(bundle.graphs("fp32")["forward"]).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    model = ConsistencyModel(NetworkConfig.from_json(bundle.manifest.model.config))
    state = model.network.state_dict()
    if missing := sorted(set(state) - set(stored)):
        raise BundleError(
            f"{bundle.path}: the fp32 graphs lack the weight {missing[0]}, so the torch model cannot be rebuilt"
        )
    values = {
        name: torch.from_numpy(numpy_helper.to_array(stored[name]).copy()).reshape(state[name].shape)
        for name in state
    }
    model.network.load_state_dict(values)
    return model.eval()
