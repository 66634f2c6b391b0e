"""Find the network in a checkpoint: its keys, and the prefix of the names of its tensors.

Training loops save {"model": …, "ema": …, "step": …} or {"state_dict": …}. Wrappers such as
DistributedDataParallel, torch.compile and Lightning modules add prefixes to names. Keys and prefixes are
found by searching for the names of the first and the last tensor of the U-Net. No tensor is copied.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..runtime.wording import listed, printable

FIRST = "input_blocks.0.0.weight"
LAST = "out.2.weight"

# What wrappers insert within the names of the network.
_WRAPPERS = re.compile(r"\.(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # the words of a key, also of net_ema and netEMA
# Words in keys and prefixes, in lower case.
_AVERAGED = {"ema", "emas", "average", "averaged", "averages", "avg", "swa", "polyak", "shadow"}
_RAW = {"online", "raw", "student"}  # within the state dict of an averaging wrapper: the original weights
_OPTIMIZER = {"optimizer", "optimizers", "optim", "opt", "grad", "grads"}  # moments have the names of weights
# Limits of the search.
_DEPTH = 8
_CONTAINERS = 10_000
_FEW = 10  # lists with more tensors can be averaged weights without names

Keys = tuple[Any, ...]


@dataclass(frozen=True)
class Network:
    """The tensors of a network in a checkpoint, and their place."""

    # By the names of the U-Net.
    tensors: dict[str, Tensor]
    # The keys of the mapping that contains the tensors.
    keys: Keys
    # The prefix of their names in this mapping.
    prefix: str

    @property
    def place(self) -> str:
        """The keys and the prefix, joined by dots, in quotes."""
        keys = (*self.keys, self.prefix.rstrip(".")) if self.prefix else self.keys
        return f"'{_joined(keys)}'" if keys else "the top level"

    @property
    def averaged(self) -> bool:
        """Whether the keys or the prefix show that the weights are averaged."""
        return _is_averaged((*self.keys, self.prefix))


def find_network(content: Any, where: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return (name → tensor, notes for the user) for the network in a checkpoint.

    content: what the file contains. where: the file, for messages. If there are a network and its moving
    average, the average is returned. Raises CheckpointError if there is no network, or more than one.
    """
    networks, unnamed = _look_for_networks(content)
    networks = [network for network in networks if LAST in network.tensors] or networks
    if not networks:
        raise CheckpointError(f"{where}: {_without_network(content)}")
    candidates = [network for network in networks if network.averaged] or networks
    if len(candidates) > 1:
        places = listed([network.place for network in candidates])
        raise CheckpointError(
            f"{where}: contains {len(candidates)} networks, {places}. "
            f"Save one of them alone, for example: {_saving_line(candidates[0], where)}"
        )
    network = candidates[0]
    others = [other for other in networks if other is not network]
    if others:
        places = listed([other.place for other in others])
        note = (
            f"{where}: used the averaged weights (EMA) of {network.place}, not those of {places}. "
            f"To use the weights of {others[0].place}, save them alone: {_saving_line(others[0], where)}"
        )
        return network.tensors, [note]
    notes = []
    if network.keys or network.prefix:
        notes.append(f"{where}: used the weights of {network.place}")
    if unnamed and not network.averaged:
        notes.append(
            f"{where}: the averaged weights in '{unnamed[0]}' have no names and are not used; "
            "images are usually better with averaged weights. Save a state dict of them, with names"
        )
    return network.tensors, notes


def _look_for_networks(content: Any) -> tuple[list[Network], list[str]]:
    """Return the networks, the outermost first, and the places of lists of averaged tensors without names."""
    networks: list[Network] = []
    unnamed: list[str] = []
    queue: deque[tuple[Keys, Any]] = deque([((), content)])
    searched = 0
    while queue and searched < _CONTAINERS:
        keys, value = queue.popleft()
        searched += 1
        if isinstance(value, Mapping):
            networks += _networks_of(value, keys)
            entries = value.items()
        elif isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
            entries = enumerate(value)
            all_tensors = len(value) > _FEW and all(isinstance(entry, Tensor) for entry in value)
            if all_tensors and _is_averaged(keys):
                unnamed.append(_joined(keys))
        else:
            continue
        if len(keys) == _DEPTH:
            continue
        for key, entry in entries:
            if isinstance(entry, (Mapping, list, tuple)) and not _words((key,)) & _OPTIMIZER:
                queue.append(((*keys, key), entry))
    return networks, unnamed


def _networks_of(entries: Mapping[Any, Any], keys: Keys) -> Iterator[Network]:
    """Yield the networks whose tensors are entries of this mapping."""
    tensors = {
        name: entry for name, entry in entries.items() if isinstance(name, str) and isinstance(entry, Tensor)
    }
    for name in tensors:
        prefix = _prefix(name)
        if prefix is None:
            continue
        network = _with_prefix(tensors, keys, prefix)
        yield network
        yield from _averages_without_dots(tensors, network)


def _prefix(name: str) -> str | None:
    """Return the prefix of a network if this is the name of its first tensor, otherwise None."""
    start = name.rfind("input_blocks.")
    if start < 0:
        return None
    prefix = name[:start]
    if prefix and not prefix.endswith("."):
        return None
    if _unwrapped(name, prefix) != FIRST or _words((prefix,)) & _OPTIMIZER:
        return None
    return prefix


def _with_prefix(tensors: Mapping[str, Tensor], keys: Keys, prefix: str) -> Network:
    names = [name for name, tensor in tensors.items() if name.startswith(prefix) and not _is_scalar(tensor)]
    unwrapped = {_unwrapped(name, prefix): tensors[name] for name in names}
    if len(unwrapped) < len(names):  # some tensors exist with and without a wrapper, so the names are kept
        unwrapped = {name.removeprefix(prefix): tensors[name] for name in names}
    return Network(unwrapped, keys, prefix)


def _averages_without_dots(tensors: Mapping[str, Tensor], network: Network) -> Iterator[Network]:
    """Yield averages beside a network whose names have no dots, as those of latent-diffusion's LitEma."""
    first = FIRST.replace(".", "")
    for prefix in [name.removesuffix(first) for name in tensors if name.endswith(first)]:
        dotless = {name: prefix + name.replace(".", "") for name in network.tensors}
        if tensors.keys() >= set(dotless.values()):
            averages = {name: tensors[dotless_name] for name, dotless_name in dotless.items()}
            yield Network(averages, network.keys, prefix)


def _unwrapped(name: str, prefix: str) -> str:
    return _WRAPPERS.sub("", name.removeprefix(prefix))


def _is_scalar(tensor: Tensor) -> bool:
    """Return True for counters and decay rates of averaging wrappers. A network has no scalars."""
    return not tensor.is_nested and tensor.ndim == 0


def _joined(keys: Keys) -> str:
    return printable(".".join(map(str, keys)))


def _words(keys: Keys) -> set[str]:
    return {word.lower() for key in keys for word in _WORDS.findall(str(key))}


def _is_averaged(keys: Keys) -> bool:
    words = _words(keys)
    return bool(words & _AVERAGED) and not words & _RAW


def _saving_line(network: Network, where: str) -> str:
    """Return Python code that saves one network of a file alone."""
    is_index = where.endswith(".json")
    if is_index:
        value = "safetensors.torch.load_file(shard)"
    elif where.endswith(".safetensors"):
        value = f"safetensors.torch.load_file({where!r})"
    else:
        value = f"torch.load({where!r}, weights_only=True)"
    value += "".join(f"[{key!r}]" for key in network.keys)
    if network.prefix:
        shards = ""
        if is_index:
            pattern = where.rpartition("/")[0] + "/*.safetensors"
            shards = f"for shard in glob.glob({pattern!r}) "
        value = f"{{k: v {shards}for k, v in {value}.items() if k.startswith({network.prefix!r})}}"
    return f"torch.save({value}, 'weights.pt')"


def _without_network(content: Any) -> str:
    """Describe a checkpoint without a network: its keys, and those of its largest mapping."""
    if not isinstance(content, Mapping):
        return f"contains no state dict of a BCM, but a value of type {type(content).__name__}"
    if not content:
        return "contains no state dict of a BCM, but an empty mapping"
    if {"state", "param_groups"} <= content.keys():
        return (
            "the state of an optimizer, not of a network; give the file of the weights that was saved beside "
            "it, for example ema_*.pt"
        )
    text = f"contains no state dict of a BCM ({FIRST} is not found); its keys are {listed(content)}"
    inner = {key: entry for key, entry in content.items() if isinstance(entry, Mapping) and entry}
    if inner and not any(isinstance(entry, Tensor) for entry in content.values()):
        key = max(inner, key=lambda key: len(inner[key]))
        text += f"; those of {printable(key)} are {listed(inner[key])}"
    return text
