"""Rebuild the torch model from the float32 graphs of a bundle."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from ..errors import BundleError
from ..model.config import NetworkConfig
from ..model.preconditioning import ConsistencyModel
from ..runtime.storage.bundle import Bundle
from .network_graph import joined_weights


def restored_model(bundle: Bundle) -> ConsistencyModel:
    """Return the network of the bundle's fp32 graphs, in evaluation mode.

    The graphs store the weights under their state-dict names, some of them joined
    (network_graph.joined_weights). Graphs of earlier versions store each on its own.

    Raises BundleError if the graphs do not hold all of its weights.
    """
    graph = onnx.load(bundle.graphs("fp32")["forward"]).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    model = ConsistencyModel(NetworkConfig.from_json(bundle.manifest.model.config))
    state = model.network.state_dict()
    for joined, names in joined_weights(model.network).items():
        if joined in stored:
            ends = np.cumsum([len(state[name]) for name in names])
            stored |= zip(names, np.split(stored.pop(joined), ends[:-1]), strict=True)
    missing = sorted(set(state) - set(stored))
    if missing:
        raise BundleError(
            f"{bundle.source}: cannot rebuild the torch model: the fp32 graphs have no weight {missing[0]}"
        )
    weights = {}
    for name, parameter in state.items():
        weights[name] = torch.from_numpy(stored[name].copy()).reshape(parameter.shape)
    model.network.load_state_dict(weights)
    return model.eval()
