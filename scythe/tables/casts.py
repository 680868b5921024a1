"""Casts columns to another type without changing a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from scythe.texts import printable

if TYPE_CHECKING:
    import pyarrow as pa


def cast(array: Any, kind: Any) -> pa.ChunkedArray:
    """Return a chunked array in another type.

    Raises:
        ArrowInvalid: The type cannot hold a value exactly.
    """
    import pyarrow as pa

    if array.type == kind:
        return array
    if array.null_count == len(array):
        return pa.chunked_array([pa.nulls(len(array), kind)])
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return as_text(array, kind)
    if pa.types.is_dictionary(kind):
        chunks = [_recoded(chunk, kind) for chunk in array.chunks]
        return pa.chunked_array(chunks, kind)
    if pa.types.is_dictionary(array.type):
        array = decoded(array)
    try:
        return array.cast(kind)
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError):  # structs with other fields
        return pa.chunked_array([pa.array(array.to_pylist(), kind)], kind)


def fits(array: Any, kind: Any) -> bool:
    """Return whether a type holds all values of an array."""
    import pyarrow as pa

    try:
        cast(array, kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return False
    return True


def as_text(array: Any, kind: Any) -> pa.ChunkedArray:
    """Return the text of each value by Python's `str`; null stays null."""
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        array = decoded(array)
    is_exact = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_null)
    if any(check(array.type) for check in is_exact):
        return array.cast(kind)
    chunks = [pa.array(_texts(chunk), kind) for chunk in array.chunks]
    return pa.chunked_array(chunks, kind)


def texts_of(values: Sequence[Any]) -> list[str | None]:
    """Return the text of each value by `str`; None stays None."""
    return [None if value is None else printable(str(value)) for value in values]


def decoded(array: Any) -> pa.ChunkedArray:
    """Return the values of categories."""
    import pyarrow as pa

    kind = array.type.value_type
    return pa.chunked_array([one.dictionary.take(one.indices) for one in array.chunks], kind)


def merge_variants(arrays: Sequence[Any]) -> Any:
    """Merge chunked arrays of one type in which each row has at most one value."""
    import numpy as np
    import pyarrow as pa

    rows = len(arrays[0])
    source = np.zeros(rows, np.int64)
    for number, array in enumerate(arrays):
        source[array.is_valid().to_numpy()] = number
    # Unlike `coalesce`, it knows all types.
    places = source * rows + np.arange(rows)
    return pa.chunked_array([c for a in arrays for c in a.chunks]).take(pa.array(places))


def _texts(chunk: Any) -> list[str | None]:
    import pyarrow as pa

    if isinstance(chunk.type, pa.BaseExtensionType) and _is_of_pandas(chunk.type):
        values = chunk.to_pandas()
        return texts_of(
            [None if gone else one for one, gone in zip(values, values.isna(), strict=True)]
        )
    try:
        return texts_of(chunk.to_pylist())
    except (ValueError, OverflowError, KeyError, ImportError, pa.ArrowException):
        # Years that Python's datetime has not, zones that this system does not know.
        return chunk.cast(pa.string()).to_pylist()


def _is_of_pandas(kind: Any) -> bool:
    return getattr(kind, "extension_name", "").startswith("pandas.")


def _recoded(chunk: Any, kind: Any) -> Any:
    """Return categories in another type of category."""
    import pyarrow as pa

    if not pa.types.is_dictionary(chunk.type):
        chunk = chunk.cast(kind.value_type).dictionary_encode()
    indices = chunk.indices.cast(kind.index_type)
    values = chunk.dictionary.cast(kind.value_type)
    return pa.DictionaryArray.from_arrays(indices, values, ordered=kind.ordered)
