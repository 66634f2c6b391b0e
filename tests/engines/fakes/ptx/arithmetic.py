"""What the instructions of PTX compute. Arrays have one value per thread."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

DTYPES: dict[str, Any] = {
    "pred": np.bool_,
    **{f"{kind}{bits}": f"u{bits // 8}" for kind in "bu" for bits in (16, 32, 64)},
    **{f"s{bits}": f"i{bits // 8}" for bits in (16, 32, 64)},
    **{f"f{bits}": f"f{bits // 8}" for bits in (32, 64)},
}

LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


def multiply_high(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the upper 64 bits of products of 64-bit numbers."""
    a_high, a_low, b_high, b_low = a >> HALF, a & LOW, b >> HALF, b & LOW
    middle = a_high * b_low + (a_low * b_low >> HALF)
    carried = a_low * b_high + (middle & LOW)
    return a_high * b_high + (middle >> HALF) + (carried >> HALF)


def fused_multiply_add(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return a · b + c, rounded once (Boldo and Melquiond 2008, "Emulation of a FMA and correctly rounded
    sums: proved algorithms using rounding to odd"). Products of float64 must not overflow or underflow.
    """
    high, low = _product(a, b)
    upper, rest = _sum(c, low)
    total, error = _sum(high, upper)
    result = total + _sum_to_odd(error, rest)
    return np.where(np.isfinite(result), result, a * b + c)


def reciprocal(a: np.ndarray) -> np.ndarray:
    """Return 1 / a, of which a GPU computes only the upper 32 bits."""
    return ((1 / a).view(np.uint64) & ~LOW).view(np.float64)


def _product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a · b, rounded, and the error of the rounding."""
    high = a * b
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    return high, a_low * b_low - (((high - a_high * b_high) - a_low * b_high) - a_high * b_low)


def _halves(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scaled = a * 134217729.0  # 2²⁷ + 1
    high = scaled - (scaled - a)
    return high, a - high


def _sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a + b, rounded, and the error of the rounding."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _sum_to_odd(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a + b, of the two neighbours of an inexact sum the one whose last bit is 1."""
    total, error = _sum(a, b)
    is_even = total.view(np.uint64) & np.uint64(1) == 0
    return np.where((error != 0) & is_even, np.nextafter(total, np.copysign(np.inf, error)), total)


def _shift(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda a, b: function(a, b.astype(a.dtype))


def _cast(kind: str) -> Callable[[np.ndarray], np.ndarray]:
    return lambda a: a.astype(DTYPES[kind])


# opcode → (types of the operands, type of the result, function)
OPERATIONS: dict[str, tuple[tuple[str, ...], str, Callable[..., np.ndarray]]] = {
    "fma.rn.f64": (("f64",) * 3, "f64", fused_multiply_add),
    "rcp.approx.ftz.f64": (("f64",), "f64", reciprocal),
    "sqrt.rn.f64": (("f64",), "f64", np.sqrt),
    "neg.f64": (("f64",), "f64", operator.neg),
    "mul.hi.u64": (("u64", "u64"), "u64", multiply_high),
    "mul.lo.s64": (("u64", "u64"), "u64", operator.mul),
    "mul.lo.s32": (("u32", "u32"), "u32", operator.mul),
    "mul.wide.u32": (("u32", "u32"), "u64", lambda a, b: a.astype(np.uint64) * b.astype(np.uint64)),
    "mad.lo.s32": (("u32",) * 3, "u32", lambda a, b, c: a * b + c),
    "cvt.rn.f64.u64": (("u64",), "f64", _cast("f64")),
    "cvt.rn.f32.f64": (("f64",), "f32", _cast("f32")),
    "cvt.rzi.s64.f64": (("f64",), "s64", _cast("s64")),
    "cvt.rzi.f64.f64": (("f64",), "f64", np.trunc),
    "cvt.rni.f64.f64": (("f64",), "f64", np.rint),
    "cvt.u64.u32": (("u32",), "u64", _cast("u64")),
    "cvt.u32.u64": (("u64",), "u32", _cast("u32")),
    "cvta.to.global.u64": (("u64",), "u64", np.copy),
    "and.pred": (("pred", "pred"), "pred", operator.and_),
    "selp.b64": (("b64", "b64", "pred"), "b64", lambda a, b, p: np.where(p, a, b)),
    "selp.f64": (("f64", "f64", "pred"), "f64", lambda a, b, p: np.where(p, a, b)),
    "shr.u64": (("u64", "u32"), "u64", _shift(operator.rshift)),
}
for _bits in ("32", "64"):
    for _name, _function in {"and": operator.and_, "or": operator.or_, "xor": operator.xor}.items():
        OPERATIONS[f"{_name}.b{_bits}"] = ((f"b{_bits}",) * 2, f"b{_bits}", _function)
    OPERATIONS[f"shl.b{_bits}"] = ((f"b{_bits}", "u32"), f"b{_bits}", _shift(operator.lshift))
    OPERATIONS[f"add.s{_bits}"] = ((f"u{_bits}",) * 2, f"u{_bits}", operator.add)
OPERATIONS["shr.u32"] = (("u32", "u32"), "u32", _shift(operator.rshift))
for _name, _function in {"add": operator.add, "sub": operator.sub, "mul": operator.mul}.items():
    for _rounding in ("", ".rn"):
        for _kind in ("f32", "f64"):
            OPERATIONS[f"{_name}{_rounding}.{_kind}"] = ((_kind,) * 2, _kind, _function)
# "neu" is also true if an operand is NaN, as != is.
for _name, _function in {
    "eq": operator.eq,
    "ne": operator.ne,
    "neu": operator.ne,
    "lt": operator.lt,
    "gt": operator.gt,
    "ge": operator.ge,
}.items():
    for _kind in DTYPES:
        OPERATIONS[f"setp.{_name}.{_kind}"] = ((_kind,) * 2, "pred", _function)
