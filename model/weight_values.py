"""Check that the tensors of a network are dense floating-point numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from ..runtime.wording import listed

_FLOATS = {
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
}


def check_values(tensors: Mapping[str, Tensor], where: str) -> list[str]:
    """Return notes for the user. Raises CheckpointError unless all tensors can be converted to float32.

    where: their file, for messages.
    """
    problems: dict[tuple[str, str], list[str]] = {}
    for name, tensor in tensors.items():
        if problem := _problem(tensor):
            problems.setdefault(problem, []).append(name)
    for (problem, advice), names in problems.items():
        raise CheckpointError(f"{where}: {problem} in {listed(names, 3)}. {advice}")
    coarse = {_short(tensor.dtype) for tensor in tensors.values() if tensor.dtype.itemsize == 1}
    return [
        f"{where}: weights in {kind} have 2 or 3 bits of precision; images may show it"
        for kind in sorted(coarse)
    ]


def _short(kind: torch.dtype | torch.layout) -> str:
    return str(kind).removeprefix("torch.")


def _problem(tensor: Tensor) -> tuple[str, str] | None:
    """Return (why a tensor cannot be a weight, what to do), or None."""
    kind = _short(tensor.dtype)
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.is_nested:
        problem = "weights must be plain tensors; found a nested tensor or another class of tensor"
        return problem, "Save plain tensors"
    if tensor.is_quantized:
        problem = f"weights must be floating point; found quantized values ({kind})"
        return problem, "Give the network as it was before quantization"
    if tensor.layout != torch.strided:
        return f"weights must be dense; found {_short(tensor.layout)}", "Save tensor.to_dense()"
    if tensor.is_meta:
        problem = "found shapes without values (tensors on the device meta)"
        return problem, "Save the network after its weights are loaded"
    if tensor.dtype not in _FLOATS:
        return f"weights must be floating point; found {kind}", "Give the network as it was trained"
    if tensor.numel() == 0:
        return "found no elements", "Save the network after its weights are loaded"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "found elements that share memory, as expand() makes them,", "Save tensor.contiguous()"
    return None
