"""Reading and writing Parquet files with pyarrow, which Ray Data installs."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ImageError
from ..runtime.pictures.formats import read_picture

Columns = Mapping[str, str]  # name of an array → another name that its column may have


def count_rows(file: Path, columns: Columns) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Return the arrays in a Parquet file with their shapes (N,), and the names of all its columns.

    Only the footer of the file is read. Raises ImageError.
    """
    with _opened(file) as opened:
        rows = opened.metadata.num_rows
        names = opened.schema_arrow.names
    arrays = {name: (rows,) for name, other in columns.items() if name in names or other in names}
    return arrays, names


def read_rows(
    file: Path,
    start: int,
    stop: int,
    names: Sequence[str],
    columns: Columns,
    sample_shape: tuple[int, int, int],
) -> dict[str, np.ndarray]:
    """Return rows [start, stop) of the named arrays, [stop - start, …], as far as the file contains them.

    Only the row groups that contain these rows are read. Raises ImageError.
    """
    import pyarrow

    with _opened(file) as opened:
        present = opened.schema_arrow.names
        chosen = {name: name if name in present else columns[name] for name in names}
        chosen = {name: column for name, column in chosen.items() if column in present}
        groups, first = _row_groups(opened, start, stop)
        try:
            table = opened.read_row_groups(groups, columns=list(chosen.values()), use_threads=False)
        except (pyarrow.ArrowException, OSError) as error:
            raise ImageError(
                f"{file}: rows {start} to {stop} cannot be read ({error}); write the file again"
            ) from error
    rows = table.slice(start - first, stop - start)
    arrays = {}
    for name, column in chosen.items():
        values = rows.column(column).combine_chunks()
        arrays[name] = _array(values, f"{file}: {column}", sample_shape, with_texts=name == "labels")
    return arrays


def _row_groups(file: Any, start: int, stop: int) -> tuple[list[int], int]:
    """Return the row groups that contain rows [start, stop), and the number of the first row in them."""
    groups: list[int] = []
    first, passed = start, 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if passed < stop and passed + rows > start:
            first = first if groups else passed
            groups.append(group)
        passed += rows
    return groups, first


def write_table(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a Parquet file with a column per array. Arrays [N, C, H, W] become tensors of fixed shape."""
    import pyarrow
    import pyarrow.parquet

    columns = {}
    for name, array in arrays.items():
        if array.ndim > 1:
            contiguous = np.ascontiguousarray(array)
            columns[name] = pyarrow.FixedShapeTensorArray.from_numpy_ndarray(contiguous)
        else:
            columns[name] = pyarrow.array(array)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def _opened(file: Path) -> Any:
    """Open a Parquet file, as a context manager. Raises ImageError."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(file, memory_map=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise ImageError(f"{file}: not a readable Parquet file ({error}); write the file again") from error


def _array(column: Any, where: str, sample_shape: tuple[int, int, int], with_texts: bool) -> np.ndarray:
    """Return a column as an array [N, …]. Raises ImageError.

    The column may have numbers, tensors, lists of equal lengths, encoded pictures, which are decoded to
    `sample_shape`, and with `with_texts` also texts.
    """
    import pyarrow
    from pyarrow import types

    if isinstance(column, pyarrow.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pyarrow.array([], column.type)
    if isinstance(column.type, pyarrow.FixedShapeTensorType):
        return column.to_numpy_ndarray()
    while isinstance(column.type, pyarrow.BaseExtensionType):  # other extension types store lists
        column = column.storage
    if column.null_count:
        raise ImageError(f"{where}: {column.null_count} rows have no value; fill in or remove them")
    if types.is_dictionary(column.type):  # categories of pandas
        column = column.dictionary_decode()
    if with_texts and (types.is_string(column.type) or types.is_large_string(column.type)):
        return np.array(column.to_pylist())
    if types.is_struct(column.type):
        names = [column.type.field(index).name for index in range(column.type.num_fields)]
        column = column.field("bytes") if "bytes" in names else column
    if types.is_binary(column.type) or types.is_large_binary(column.type):
        pictures = [
            read_picture(io.BytesIO(value), sample_shape, f"{where}[{index}]")
            for index, value in enumerate(column.to_pylist())
        ]
        return np.stack(pictures)
    shape, values = _unnested(column, where)
    if not (types.is_integer(values.type) or types.is_floating(values.type)):
        raise ImageError(
            f"{where} has the type {column.type}; expected numbers, tensors, lists of numbers, "
            "or encoded pictures"
        )
    array = values.to_numpy(zero_copy_only=False).reshape(shape)
    is_flat = array.ndim == 2 and array.shape[1] == np.prod(sample_shape)
    return array.reshape(len(array), *sample_shape) if is_flat else array


def _unnested(column: Any, where: str) -> tuple[list[int], Any]:
    """Return the common shape [N, …] of nested lists, and all their values in order.

    Raises ImageError if lists of one level differ in length, or if values are missing.
    """
    shape, values = [len(column)], column
    while _is_list(values.type):
        inner = values.flatten()
        length = len(inner) // max(1, len(values))
        if values.null_count or len(_lengths(values)) > 1 or len(inner) != length * len(values):
            raise ImageError(f"{where}: lists have different lengths; all images must have the same shape")
        shape.append(length)
        values = inner
    if values.null_count:
        raise ImageError(f"{where}: values are missing; fill them in, or remove the rows")
    return shape, values


def _is_list(type_: Any) -> bool:
    from pyarrow import types

    return types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_)


def _lengths(lists: Any) -> set[int]:
    from pyarrow import types

    if types.is_fixed_size_list(lists.type):
        return {lists.type.list_size}
    return set(lists.value_lengths().to_pylist())
