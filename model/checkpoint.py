"""Checkpoints: the validated weights of a network. Reading and writing of checkpoint files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save
from torch import Tensor

from ..errors import CheckpointError
from ..runtime.classes import class_names
from ..runtime.machine.resources import check_memory
from ..runtime.storage import hashes
from ..runtime.storage.files import replacing
from ..runtime.storage.manifest import ModelFacts
from ..runtime.storage.shipped import shipped_bundle
from .config import NetworkConfig
from .infer_config import complete_ict, infer_config, is_ict, merged_fields
from .preconditioning import ConsistencyModel, Denoiser
from .state_dicts import find_network
from .weight_values import check_values
from .weights_files import METADATA_KEY, digest, read_weights

Model = TypeVar("Model", ConsistencyModel, Denoiser)

_SHOWN = 3  # tensors that a message lists


@dataclass(frozen=True)
class Checkpoint:
    """Validated weights: all tensors of the configured network, finite, float32, of the right shape."""

    name: str
    config: NetworkConfig
    # Tensors by the names of the U-Net's parameters.
    state_dict: dict[str, Tensor]
    # Whether the weights are those of an iCT network, with an added identity initialisation.
    untrained_inversion: bool = False
    # Name → text. Only files that were written by this package have schedules.
    schedules: dict[str, str] = field(default_factory=dict)
    # How the network was trained. Only files that were written by this package have it.
    provenance: dict[str, Any] = field(default_factory=dict)
    # The names of the classes. None if the file has none.
    classes: tuple[str, ...] | None = None
    # The files that were read: one, or an index and its shards.
    files: tuple[Path, ...] = ()
    # For the user: which weights of the file were used.
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> ModelFacts:
        """The entries about the network in the manifest of a bundle."""
        config = self.config
        return ModelFacts(
            name=Path(self.name.removesuffix(".index.json")).stem,
            sample_shape=config.sample_shape,
            num_classes=config.num_classes,
            parameters=sum(tensor.numel() for tensor in self.state_dict.values()),
            config=config.to_json(),
            classes=self.classes,
        )

    @property
    def size(self) -> int:
        """The size of the files in bytes."""
        return sum(file.stat().st_size for file in self.files)

    def sha256(self) -> str:
        """Return the sha256 of the file; for several files, the sha256 of the output of `sha256sum FILES`."""
        if len(self.files) == 1:
            return hashes.sha256(self.files[0])
        lines = "".join(f"{hashes.sha256(file)}  {file.name}\n" for file in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def objective(self) -> str:
        """The kind of network: "bcm", or "edm" for a denoiser. The default is "bcm"."""
        return self.provenance.get("objective", "bcm")

    def require(self, objective: str) -> None:
        """Raise CheckpointError if the network was trained with another objective."""
        if self.objective == objective:
            return
        if objective == "edm":
            raise CheckpointError(
                f"{self.name} is not a denoiser; make one with: bcm-edge train --objective edm"
            )
        raise CheckpointError(
            f"{self.name} is not a BCM: it was trained with --objective {self.objective}, as a baseline, and "
            "cannot move between noise levels. Compare a BCM with it: "
            f"bcm-edge evaluate BUNDLE --data DATA --baseline {self.name}"
        )

    def model(self) -> ConsistencyModel:
        """Return the BCM with these weights, in evaluation mode. The weights are shared, not copied.

        Raises CheckpointError for a denoiser.
        """
        self.require("bcm")
        return self._filled(ConsistencyModel)

    def denoiser(self) -> Denoiser:
        """Return the EDM denoiser with these weights, in evaluation mode. The weights are shared, not copied.

        Raises CheckpointError for a BCM.
        """
        self.require("edm")
        return self._filled(Denoiser)

    def _filled(self, kind: type[Model]) -> Model:
        with torch.device("meta"):
            model = kind(self.config)
        model.network.load_state_dict(self.state_dict, assign=True)
        return model.eval().requires_grad_(False)


def shipped_checkpoint(name: str = "digits") -> Path:
    """Return the weights file of a shipped model, which its bundle in the package contains."""
    return shipped_bundle(name) / f"{name}.safetensors"


def load_checkpoint(path: Path, known: Mapping[str, Any] | None = None) -> Checkpoint:
    """Read and validate a checkpoint: what `read_weights` reads.

    known: fields of the configuration. image_size and num_head_channels cannot be inferred from tensors;
    other fields are compared with the tensors. Files that were written by this package contain all fields.

    Raises CheckpointError, and InputError if a single image would not fit into memory.
    """
    file = read_weights(path)
    where, metadata = str(path), file.metadata
    tensors, notes = find_network(file.content, where)
    notes += check_values(tensors, where)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    fields = merged_fields(metadata.get("config", {}), known or {}, where)
    config = infer_config(shapes, fields, where)
    if "norm_groups" not in fields:
        notes.append(
            f"norm_groups is not specified; {config.norm_groups} is assumed, as in the authors' networks. "
            "Add it to the --config file if the network has another number of groups"
        )
    image = f"{where}: one image of {config.image_size} pixels a side"
    check_memory(config.image_memory, image, "check image_size")
    untrained = is_ict(shapes)
    if untrained:
        tensors = complete_ict(tensors)
    _check_complete(config, tensors, where)
    state_dict = {
        name: tensor.detach().float().resolve_neg().contiguous() for name, tensor in tensors.items()
    }
    _check_finite(state_dict, where)
    return Checkpoint(
        name=file.name,
        config=config,
        state_dict=state_dict,
        untrained_inversion=untrained,
        schedules=metadata.get("schedules", {}),
        provenance=metadata.get("provenance", {}),
        classes=_classes(metadata, config, where),
        files=file.files,
        notes=tuple(notes),
    )


def save_checkpoint(
    path: Path,
    state_dict: Mapping[str, Tensor],
    config: NetworkConfig,
    schedules: Mapping[str, str],
    provenance: Mapping[str, Any],
    dtype: torch.dtype = torch.float16,
    classes: Sequence[str] | None = None,
) -> None:
    """Write a safetensors file with configuration, schedules, provenance and class names in its header.

    dtype: the tensors are rounded to it. Its name is in the header as `stored_as`.

    An existing file is replaced. The file is written completely or not at all. Raises OutputError.
    """
    tensors = {name: tensor.detach().to(dtype).contiguous() for name, tensor in state_dict.items()}
    header = {
        "config": config.to_json(),
        "schedules": dict(schedules),
        "provenance": dict(provenance),
        "stored_as": str(dtype).removeprefix("torch."),
        "sha256": digest(tensors),
    }
    if classes is not None:
        header["classes"] = list(classes)
    with replacing(path, force=True) as partial:
        partial.write_bytes(save(tensors, metadata={METADATA_KEY: json.dumps(header)}))


def _classes(metadata: Mapping[str, Any], config: NetworkConfig, where: str) -> tuple[str, ...] | None:
    """Return the class names in a header, or None. Raises CheckpointError."""
    if metadata.get("classes") is None:
        return None
    try:
        classes = class_names(metadata["classes"])
    except ValueError as error:
        raise CheckpointError(f"{where}: its header is damaged ({error})") from error
    if len(classes) != config.num_classes:
        raise CheckpointError(
            f"{where}: its header has {len(classes)} class names for {config.num_classes or 'no'} classes"
        )
    return classes


def _check_complete(config: NetworkConfig, state_dict: Mapping[str, Tensor], where: str) -> None:
    """Raise CheckpointError unless the tensors are those of the configured network."""
    with torch.device("meta"):
        network = ConsistencyModel(config).network
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    actual = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
    misshapen = [
        f"{name} {list(actual[name])} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in actual and actual[name] != shape
    ]
    problems = {
        "missing": sorted(set(expected) - set(actual)),
        "unexpected": sorted(set(actual) - set(expected)),
        "misshapen": misshapen,
    }
    parts = [f"{len(names)} {kind} ({_first(names)})" for kind, names in problems.items() if names]
    if parts:
        raise CheckpointError(f"{where}: the tensors do not fit the network: {'; '.join(parts)}")


def _check_finite(state_dict: Mapping[str, Tensor], where: str) -> None:
    bad = [name for name, tensor in state_dict.items() if not tensor.isfinite().all()]
    if bad:
        raise CheckpointError(f"{where}: NaN or infinity in {len(bad)} tensors ({_first(bad)})")


def _first(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
