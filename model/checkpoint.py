"""Weights of a network, validated, in and out: official .pt files, safetensors, iCT checkpoints."""

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
from ..runtime.storage import hashes as cache
from ..runtime.storage.files import replacing
from ..runtime.storage.manifest import ModelFacts
from .config import NetworkConfig
from .infer_config import complete_ict, infer_config, is_ict, merged_fields
from .preconditioning import ConsistencyModel, Denoiser
from .state_dicts import check_values, find_network
from .weights_files import METADATA_KEY, digest, read_weights

Model = TypeVar("Model", ConsistencyModel, Denoiser)


@dataclass(frozen=True)
class Checkpoint:
    """A validated set of weights: every tensor the configuration asks for, of the right shape, finite, float32."""

    name: str
    config: NetworkConfig
    state_dict: dict[str, Tensor]
    untrained_inversion: bool = False  # an iCT checkpoint completed with an identity initialisation
    schedules: dict[str, str] = field(default_factory=dict)  # name → text, where the file brings its own
    provenance: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None  # their names, where the file has names
    files: tuple[Path, ...] = ()  # that were read: one, or an index and its shards
    notes: tuple[str, ...] = ()  # for the user: which of a file's weights were taken

    @property
    def facts(self) -> ModelFacts:
        """What a bundle's manifest says of the network."""
        parameters = sum(tensor.numel() for tensor in self.state_dict.values())
        config = self.config
        name = Path(self.name.removesuffix(".index.json")).stem
        return ModelFacts(
            name, config.sample_shape, config.num_classes, parameters, config.to_json(), self.classes
        )

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(file.stat().st_size for file in self.files)

    def sha256(self) -> str:
        """Of the file, in hex; of several files, of the lines that sha256sum prints for them."""
        if len(self.files) == 1:
            return cache.sha256(self.files[0])
        lines = "".join(f"{cache.sha256(file)}  {file.name}\n" for file in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def objective(self) -> str:
        """What the network was trained to be: "bcm", or "edm" for a denoiser. Files that do not say are BCMs."""
        return self.provenance.get("objective", "bcm")

    def require(self, objective: str) -> None:
        """Raise CheckpointError if the network was trained to be something else."""
        if self.objective == objective:
            return
        if objective == "edm":
            raise CheckpointError(f"{self.name} is no denoiser; bcm-edge train --objective edm makes one")
        raise CheckpointError(
            f"{self.name} is no BCM: it was trained with --objective {self.objective}, as a baseline to compare one with, and cannot move "
            f"between noise levels. Compare: bcm-edge evaluate BUNDLE --data DATA --baseline {self.name}"
        )

    def model(self) -> ConsistencyModel:
        """The BCM with these weights (shared with the checkpoint, not copied), in evaluation mode. Raises CheckpointError for others."""
        self.require("bcm")
        return self._filled(ConsistencyModel)

    def denoiser(self) -> Denoiser:
        """The same of an EDM denoiser."""
        self.require("edm")
        return self._filled(Denoiser)

    def _filled(self, kind: type[Model]) -> Model:
        with torch.device("meta"):
            model = kind(self.config)
        model.network.load_state_dict(self.state_dict, assign=True)
        return model.eval().requires_grad_(False)


SHIPPED = (
    "digits",
    "mnist",
)  # inside this package: handwritten digits of 8×8 and of 28×28 pixels, both class-conditional


def shipped_checkpoint(name: str = "digits") -> Path:
    """A model inside this package, one of SHIPPED."""
    return Path(__file__).with_name(f"{name}.safetensors")


def load_checkpoint(path: Path, known: Mapping[str, Any] | None = None) -> Checkpoint:
    """Read and validate a weights file, an index of shards, or the one of them in a folder.

    known: configuration fields that the tensors cannot tell (image_size, num_head_channels) or that are to be checked against
    them; files written by this package bring their own. Raises CheckpointError, and InputError if one image would not fit into memory.
    """
    file = read_weights(path)
    where, metadata = str(path), file.metadata
    tensors, notes = find_network(file.content, where)
    notes += check_values(tensors, where)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    config = infer_config(shapes, merged_fields(metadata.get("config", {}), known or {}, where), where)
    check_memory(
        config.image_memory, f"{where}: one image of {config.image_size} pixels a side", "check image_size"
    )
    untrained = is_ict(shapes)
    if untrained:
        tensors = complete_ict(tensors)
    _check_complete(config, tensors, where)
    state_dict = {
        name: tensor.detach().float().resolve_neg().contiguous() for name, tensor in tensors.items()
    }
    _check_finite(state_dict, where)
    classes = _classes(metadata, config, where)
    schedules, provenance = metadata.get("schedules", {}), metadata.get("provenance", {})
    name = file.files[0].name
    return Checkpoint(
        name, config, state_dict, untrained, schedules, provenance, classes, file.files, tuple(notes)
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
    """Write safetensors with the configuration, schedules, provenance and class names in the header; the file is whole or absent."""
    tensors = {name: tensor.detach().to(dtype).contiguous() for name, tensor in state_dict.items()}
    facts = {
        "config": config.to_json(),
        "schedules": dict(schedules),
        "provenance": dict(provenance),
        "sha256": digest(tensors),
    }
    if classes is not None:
        facts["classes"] = list(classes)
    with replacing(path, force=True) as partial:
        partial.write_bytes(save(tensors, metadata={METADATA_KEY: json.dumps(facts)}))


def _classes(metadata: Mapping[str, Any], config: NetworkConfig, where: str) -> tuple[str, ...] | None:
    """The class names in a header. Raises CheckpointError."""
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
    """Compare with the tensors the configured network has; one error names the first few of each kind of difference."""
    with torch.device("meta"):
        expected = {name: tuple(t.shape) for name, t in ConsistencyModel(config).network.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in state_dict.items()}
    problems = {
        "missing": sorted(set(expected) - set(found)),
        "unexpected": sorted(set(found) - set(expected)),
        "misshapen": [
            f"{n} {list(found[n])} instead of {list(expected[n])}"
            for n in expected
            if n in found and found[n] != expected[n]
        ],
    }
    parts = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for kind, names in problems.items()
        if names
    ]
    if parts:
        raise CheckpointError(f"{where}: the tensors do not fit the network: {'; '.join(parts)}")


def _check_finite(state_dict: Mapping[str, Tensor], where: str) -> None:
    bad = [name for name, tensor in state_dict.items() if not tensor.isfinite().all()]
    if bad:
        raise CheckpointError(
            f"{where}: NaN or infinity in {len(bad)} tensors ({', '.join(bad[:3])}{', …' if len(bad) > 3 else ''})"
        )
