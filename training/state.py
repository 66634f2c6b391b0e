"""State files of training runs: tensors and JSON in one safetensors file. Nothing in a file is executed.

The tensors are `weights/NAME`, `average/NAME`, `exp_avg/NAME` and `exp_avg_sq/NAME` for each parameter, in
float32: the parameters, their moving average, and the two moments of Adam. The entry STATE_KEY of the
header is a JSON object with the fields of `Header`, the version of the format, and a sha256 of fields and
tensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointError
from ..model.weights_files import STATE_KEY, digest
from ..runtime.storage.files import replacing

VERSION = 1
_NEW_RUN = "start a new run with --force in place of --resume"
# Setting → its name in messages, where that is not the name of the field.
_WORDS = {
    "data": "the images or labels",
    "init": "the checkpoint to start from",
    "network": "the network",
    "teacher": "the teacher",
    "learning_rate": "learning rate",
    "held_out": "share of held-out images",
}
# Settings whose values are too long for messages.
_LONG = ("data", "init", "network", "teacher")
# Setting → another one that differs because of it, and is not named as well.
_EFFECTS = {"held_out": "data", "channels": "network", "levels": "network", "objective": "intervals"}
# What reading and parsing raise for a damaged or foreign file.
_UNREADABLE = (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Header:
    """What a state file says about its run."""

    # Steps done.
    done: int
    # Steps of the whole run.
    steps: int
    # For each change of `steps`: {"after": the steps done by then, "steps": the number before}.
    extended: list[dict[str, int]]
    # The settings that must be equal for a run to continue.
    fingerprint: dict[str, Any]

    def check_steps(self, steps: int, path: Path) -> None:
        """Raise CheckpointError if more steps are done than a run of `steps` steps has. path: of the file."""
        if self.done > steps:
            raise CheckpointError(
                f"{path}: the run has done {self.done} steps; --steps must be at least that, not {steps}"
            )

    def differences(self, fingerprint: Mapping[str, Any]) -> list[str]:
        """Return how the settings of another run differ, as texts such as "batch (4, now 5)"."""
        before = self.fingerprint
        names = {name for name in fingerprint if name not in before or before[name] != fingerprint[name]}
        names -= {effect for cause, effect in _EFFECTS.items() if cause in names}
        return [_difference(name, before.get(name), fingerprint[name]) for name in sorted(names)]

    def __str__(self) -> str:
        """Return the progress, such as "200 of 400 steps"."""
        return f"{self.done} of {self.steps} steps"


def _difference(name: str, before: object, now: object) -> str:
    values = "" if name in _LONG else f" ({_text(before)}, now {_text(now)})"
    return _WORDS.get(name, name) + values


def _text(value: object) -> str:
    """Return the value of a setting for a message."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "default" if value is None else str(value)


def write_state(path: Path, header: Header, tensors: Mapping[str, Tensor]) -> None:
    """Write a state file, completely or not at all. Raises OutputError."""
    copies = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    fields = asdict(header)
    entry = {"version": VERSION, **fields, "sha256": _hash(fields, copies)}
    with replacing(path, force=True) as partial:
        save_file(copies, partial, {STATE_KEY: json.dumps(entry)})


def read_state(path: Path) -> tuple[Header, dict[str, Tensor]]:
    """Read a state file: its header and its tensors, on the CPU. Raises CheckpointError."""
    try:
        with safe_open(path, framework="pt") as file:
            header, sha256 = _parsed(file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except _UNREADABLE as error:
        raise _unusable(path, error) from error
    if _hash(asdict(header), tensors) != sha256:
        raise CheckpointError(f"{path}: damaged, its content is not what was saved; {_NEW_RUN}")
    return header, tensors


def read_header(path: Path) -> Header:
    """Return the header of a state file; the tensors are neither read nor checked. Raises CheckpointError."""
    try:
        with safe_open(path, framework="pt") as file:
            return _parsed(file.metadata())[0]
    except _UNREADABLE as error:
        raise _unusable(path, error) from error


def _parsed(metadata: Mapping[str, str] | None) -> tuple[Header, str]:
    """Return the header and the sha256 of the entry; raises one of _UNREADABLE."""
    entry = json.loads((metadata or {})[STATE_KEY])
    if entry["version"] != VERSION:
        raise ValueError(f"version {entry['version']} of the format, which this version does not read")
    header = Header(entry["done"], entry["steps"], entry["extended"], entry["fingerprint"])
    numbers = [
        header.done,
        header.steps,
        *(number for change in header.extended for number in change.values()),
    ]
    if not all(isinstance(number, int) for number in numbers) or not isinstance(header.fingerprint, dict):
        raise ValueError(f"its entry {STATE_KEY} is not valid")
    return header, entry["sha256"]


def _unusable(path: Path, error: Exception) -> CheckpointError:
    """Return the error for a file that cannot be read as a state."""
    try:
        with path.open("rb") as file:
            is_zip = file.read(2) == b"PK"
    except OSError:
        is_zip = False
    if is_zip:
        return CheckpointError(
            f"{path}: the state of an older version of bcm-edge, a torch file, which may contain code and is "
            f"not read; finish the run with that version, or {_NEW_RUN}"
        )
    reason = f"{error} is missing" if isinstance(error, KeyError) else error
    return CheckpointError(f"{path}: not the state of a training run, or damaged ({reason}); {_NEW_RUN}")


def _hash(fields: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return a sha256 of the fields and the tensors."""
    text = json.dumps(fields, sort_keys=True) + digest(tensors)
    return hashlib.sha256(text.encode()).hexdigest()
