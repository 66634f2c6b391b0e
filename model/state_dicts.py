"""Where the network stands in what a training loop saved: under which keys, and behind which prefix of its tensors' names.

Loops save {"model": …, "ema": …, "step": …} or {"state_dict": …}; wrappers such as DistributedDataParallel, torch.compile and Lightning
modules put words before the names. Both are found by looking for the names of the U-Net's first and last tensor. Nothing is copied.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from ..runtime.wording import listed, printable

FIRST, LAST = "input_blocks.0.0.weight", "out.2.weight"

_WRAPPERS = re.compile(
    r"\.(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)"
)  # inside the network's names
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # of a key, also in camel case: net_ema, netEMA
_AVERAGED = {"ema", "emas", "average", "averaged", "averages", "avg", "swa", "polyak", "shadow"}
_RAW = {"online", "raw", "student"}  # in an averaging wrapper's state dict, the weights it averages
_OPTIMIZER = {
    "optimizer",
    "optimizers",
    "optim",
    "opt",
    "grad",
    "grads",
}  # their moments have the names of the weights
_DEPTH, _CONTAINERS = 8, 10_000  # how far into a file to look


@dataclass(frozen=True)
class Network:
    """The tensors of a network in a file, by the names that the U-Net has for them, and where they stand.

    keys: lead to the mapping that holds the tensors; prefix: of their names there.
    """

    tensors: dict[str, Tensor]
    keys: tuple[Any, ...]
    prefix: str

    @property
    def place(self) -> str:
        """The keys and the prefix, joined by dots and in quotes."""
        keys = (*self.keys, self.prefix.rstrip(".")) if self.prefix else self.keys
        return f"'{_joined(keys)}'" if keys else "the top level"

    @property
    def averaged(self) -> bool:
        """Whether keys or prefix say that these are averaged weights."""
        return _is_averaged((*self.keys, self.prefix))


def find_network(content: Any, where: str) -> tuple[dict[str, Tensor], list[str]]:
    """(name → tensor, notes for the user) of the one network in what a file holds.

    Of a network and its moving average, the average is taken. Raises CheckpointError where there is no network, or several.
    """
    networks, unnamed = _look_for_networks(content)
    networks = [network for network in networks if LAST in network.tensors] or networks
    if not networks:
        raise CheckpointError(f"{where}: {_what_is_there(content)}")
    chosen = [network for network in networks if network.averaged] or networks
    if len(chosen) > 1:
        places = listed([network.place for network in chosen])
        raise CheckpointError(
            f"{where}: holds {len(chosen)} networks, {places}. Save one of them alone, such as: {_line(chosen[0], where)}"
        )
    network, others = chosen[0], [other for other in networks if other is not chosen[0]]
    if others:
        places = listed([other.place for other in others])
        advice = f"To take the weights of {others[0].place}, save them alone: {_line(others[0], where)}"
        return network.tensors, [
            f"{where}: took the averaged weights (EMA) of {network.place}, not those of {places}. {advice}"
        ]
    notes = [f"{where}: took the weights of {network.place}"] if network.keys or network.prefix else []
    if unnamed and not network.averaged:
        advice = "images are usually better with averaged weights. Save a state dict of them, with names"
        notes.append(
            f"{where}: the averaged weights in '{unnamed[0]}' have no names and are not used; {advice}"
        )
    return network.tensors, notes


def _look_for_networks(content: Any) -> tuple[list[Network], list[str]]:
    """The networks, the outermost first; and the places of lists of averaged tensors, as some libraries save them."""
    networks: list[Network] = []
    unnamed: list[str] = []
    queue: deque[tuple[tuple[Any, ...], Any]] = deque([((), content)])
    seen = 0
    while queue and seen < _CONTAINERS:
        keys, value = queue.popleft()
        seen += 1
        if isinstance(value, Mapping):
            networks += _networks_of(value, keys)
            entries = value.items()
        elif isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
            entries = enumerate(value)
            if len(value) > 10 and all(isinstance(entry, Tensor) for entry in value) and _is_averaged(keys):
                unnamed.append(_joined(keys))
        else:
            continue
        if len(keys) < _DEPTH:
            queue += [
                ((*keys, key), entry)
                for key, entry in entries
                if isinstance(entry, (Mapping, list, tuple)) and not _words((key,)) & _OPTIMIZER
            ]
    return networks, unnamed


def _networks_of(entries: Mapping[Any, Any], keys: tuple[Any, ...]) -> Iterator[Network]:
    """The networks whose tensors stand directly in this mapping."""
    tensors = {
        name: entry for name, entry in entries.items() if isinstance(name, str) and isinstance(entry, Tensor)
    }
    for first in tensors:
        start = first.rfind("input_blocks.")
        prefix = first[:start]
        if (
            start < 0
            or (prefix and not prefix.endswith("."))
            or _unwrapped(first, prefix) != FIRST
            or _words((prefix,)) & _OPTIMIZER
        ):
            continue
        names = [
            name for name, tensor in tensors.items() if name.startswith(prefix) and not _is_scalar(tensor)
        ]
        network = Network({_unwrapped(name, prefix): tensors[name] for name in names}, keys, prefix)
        if len(network.tensors) < len(
            names
        ):  # wrapped and not wrapped at once: the names are compared as they are
            network = Network({name.removeprefix(prefix): tensors[name] for name in names}, keys, prefix)
        yield network
        yield from _averages_without_dots(tensors, network)


def _averages_without_dots(tensors: Mapping[str, Tensor], network: Network) -> Iterator[Network]:
    """Averages beside a network whose names are written without dots, as latent-diffusion's LitEma does."""
    first = FIRST.replace(".", "")
    for prefix in [name.removesuffix(first) for name in tensors if name.endswith(first)]:
        names = {name: prefix + name.replace(".", "") for name in network.tensors}
        if tensors.keys() >= set(names.values()):
            yield Network({name: tensors[dotless] for name, dotless in names.items()}, network.keys, prefix)


def _unwrapped(name: str, prefix: str) -> str:
    return _WRAPPERS.sub("", name.removeprefix(prefix))


def _is_scalar(tensor: Tensor) -> bool:
    """Counters and decay rates, which averaging wrappers keep beside the weights. A network has none."""
    return not tensor.is_nested and tensor.ndim == 0


def _joined(keys: tuple[Any, ...]) -> str:
    return printable(".".join(map(str, keys)))


def _words(keys: tuple[Any, ...]) -> set[str]:
    return {word.lower() for key in keys for word in _WORDS.findall(str(key))}


def _is_averaged(keys: tuple[Any, ...]) -> bool:
    words = _words(keys)
    return bool(words & _AVERAGED) and not words & _RAW


def _line(network: Network, where: str) -> str:
    """Python that saves a network of a file alone."""
    load = (
        "safetensors.torch.load_file({})"
        if where.endswith((".safetensors", ".json"))
        else "torch.load({}, weights_only=True)"
    )
    value = load.format("shard" if where.endswith(".json") else repr(where)) + "".join(
        f"[{key!r}]" for key in network.keys
    )
    if network.prefix:
        shards = (
            f"for shard in glob.glob({where.rpartition('/')[0] + '/*.safetensors'!r}) "
            if where.endswith(".json")
            else ""
        )
        value = f"{{k: v {shards}for k, v in {value}.items() if k.startswith({network.prefix!r})}}"
    return f"torch.save({value}, 'weights.pt')"


def _what_is_there(content: Any) -> str:
    """Of a file without a network: the keys at its top level, and those of the mapping inside that has the most tensors."""
    if not isinstance(content, Mapping):
        return f"no state dict of a BCM in it, but a value of type {type(content).__name__}"
    if not content:
        return "no state dict of a BCM in it; it holds an empty mapping"
    if {"state", "param_groups"} <= content.keys():
        return "the state of an optimizer, not of a network; give the file of the weights, such as ema_*.pt, that was saved beside it"
    text = f"no state dict of a BCM in it ({FIRST} is not found); its keys are {listed(content)}"
    inner = {key: entry for key, entry in content.items() if isinstance(entry, Mapping) and entry}
    if inner and not any(isinstance(entry, Tensor) for entry in content.values()):
        key = max(inner, key=lambda key: len(inner[key]))
        text += f"; those of {printable(key)} are {listed(inner[key])}"
    return text


# Values


_FLOATS = {
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
}
_FLOATS |= {torch.float8_e4m3fnuz, torch.float8_e5m2fnuz}


def check_values(tensors: Mapping[str, Tensor], where: str) -> list[str]:
    """Raise CheckpointError for tensors that are not dense numbers that float32 holds; return notes for the user."""
    problems: dict[tuple[str, str], list[str]] = {}
    for name, tensor in tensors.items():
        if problem := _problem(tensor):
            problems.setdefault(problem, []).append(name)
    for (problem, advice), names in problems.items():
        raise CheckpointError(f"{where}: {problem} in {listed(names, 3)}. {advice}")
    coarse = {
        str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values() if tensor.dtype.itemsize == 1
    }
    return [
        f"{where}: weights in {kind} have 2 or 3 bits of precision; images may show it"
        for kind in sorted(coarse)
    ]


def _problem(tensor: Tensor) -> tuple[str, str] | None:
    """Why these are no weights, and what to do."""
    kind = str(tensor.dtype).removeprefix("torch.")
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.is_nested:
        return (
            "weights must be plain tensors; found a nested tensor or another class of tensor",
            "Save plain tensors",
        )
    if tensor.is_quantized:
        return (
            f"weights must be floating point; found quantized values ({kind})",
            "Give the network as it was before quantization",
        )
    if tensor.layout != torch.strided:
        layout = str(tensor.layout).removeprefix("torch.")
        return f"weights must be dense; found {layout}", "Save tensor.to_dense()"
    if tensor.is_meta:
        return (
            "found shapes without values (tensors on the device meta)",
            "Save the network after its weights are loaded",
        )
    if tensor.dtype not in _FLOATS:
        return f"weights must be floating point; found {kind}", "Give the network as it was trained"
    if tensor.numel() == 0:
        return "found no elements", "Save the network after its weights are loaded"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "found elements that share memory, as expand() makes them,", "Save tensor.contiguous()"
    return None
