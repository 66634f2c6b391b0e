"""Parquet in and out, through pyarrow, which comes with Ray Data."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ImageError
from ..runtime.pictures.formats import read_picture

Others = Mapping[str, str]  # array → the column that may stand for it


def count_rows(file: Path, others: Others) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """What of `others` a Parquet file holds, and how many rows of it: name → (N,); and the names of all its columns.

    Read from its footer alone. Raises ImageError.
    """
    with _opened(file) as opened:
        rows = opened.metadata.num_rows
        columns = opened.schema_arrow.names
        return {
            name: (rows,) for name, other in others.items() if name in columns or other in columns
        }, columns


def read_rows(
    file: Path,
    start: int,
    stop: int,
    names: Sequence[str],
    others: Others,
    sample_shape: tuple[int, int, int],
) -> dict[str, np.ndarray]:
    """Rows [start, stop) of the named columns as arrays [stop - start, …], from the row groups that hold them. Raises ImageError."""
    import pyarrow

    with _opened(file) as opened:
        held = opened.schema_arrow.names
        columns = {
            name: name if name in held else others[name]
            for name in names
            if name in held or others[name] in held
        }
        groups, first, passed = [], start, 0
        for group in range(opened.num_row_groups):
            rows = opened.metadata.row_group(group).num_rows
            if passed < stop and passed + rows > start:
                first = passed if not groups else first
                groups.append(group)
            passed += rows
        try:
            table = opened.read_row_groups(groups, columns=list(columns.values()), use_threads=False).slice(
                start - first, stop - start
            )
        except (pyarrow.ArrowException, OSError) as error:
            raise ImageError(f"{file}: rows {start} to {stop} cannot be read ({error})") from error
    return {
        name: _array(
            table.column(column).combine_chunks(), f"{file}: {column}", sample_shape, name == "labels"
        )
        for name, column in columns.items()
    }


def write_table(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A Parquet file with a column per array; images and latents [N, C, H, W] as tensors of fixed shape."""
    import pyarrow
    import pyarrow.parquet

    columns = {
        name: pyarrow.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(array))
        if array.ndim > 1
        else pyarrow.array(array)
        for name, array in arrays.items()
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def _opened(file: Path) -> Any:
    """The file as pyarrow has it, to be closed by `with`."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(file, memory_map=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise ImageError(f"{file}: not a readable Parquet file ({error})") from error


def _array(column: Any, where: str, sample_shape: tuple[int, int, int], with_texts: bool) -> np.ndarray:
    """A column as an array [N, …]: numbers, tensors, lists that are all as long, pictures decoded to the model's shape, or texts."""
    import pyarrow
    from pyarrow import types

    if isinstance(column, pyarrow.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pyarrow.array([], column.type)
    if isinstance(column.type, pyarrow.FixedShapeTensorType):
        return column.to_numpy_ndarray()
    while isinstance(column.type, pyarrow.BaseExtensionType):  # others keep their values as lists
        column = column.storage
    if column.null_count:
        raise ImageError(f"{where} has {column.null_count} rows without a value")
    if types.is_dictionary(column.type):  # what pandas makes of categories
        column = column.dictionary_decode()
    if with_texts and (types.is_string(column.type) or types.is_large_string(column.type)):
        return np.array(column.to_pylist())
    if types.is_struct(column.type) and "bytes" in {
        column.type.field(i).name for i in range(column.type.num_fields)
    }:
        column = column.field("bytes")
    if types.is_binary(column.type) or types.is_large_binary(column.type):
        pictures = (
            read_picture(io.BytesIO(value), sample_shape, f"{where}[{i}]")
            for i, value in enumerate(column.to_pylist())
        )
        return np.stack(list(pictures))
    shape, values = _unnested(column, where)
    if not (types.is_integer(values.type) or types.is_floating(values.type)):
        raise ImageError(
            f"{where} is of type {column.type}; expected numbers, tensors, lists of numbers or encoded pictures"
        )
    array = values.to_numpy(zero_copy_only=False).reshape(shape)
    return (
        array.reshape(len(array), *sample_shape)
        if array.ndim == 2 and array.shape[1] == np.prod(sample_shape)
        else array
    )


def _unnested(column: Any, where: str) -> tuple[list[int], Any]:
    """Lists of lists → their common shape [N, …] and all values in order. Raises ImageError where they differ in length."""
    from pyarrow import types

    shape, values = [len(column)], column
    while (
        types.is_list(values.type)
        or types.is_large_list(values.type)
        or types.is_fixed_size_list(values.type)
    ):
        inner = values.flatten()
        each = len(inner) // max(1, len(values))
        lengths = (
            {values.type.list_size}
            if types.is_fixed_size_list(values.type)
            else set(values.value_lengths().to_pylist())
        )
        if values.null_count or len(lengths) > 1 or len(inner) != each * len(values):
            raise ImageError(f"{where} holds lists of different lengths")
        shape.append(each)
        values = inner
    if values.null_count:
        raise ImageError(f"{where} has values that are missing")
    return shape, values
