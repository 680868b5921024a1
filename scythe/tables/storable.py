"""Arrow types as Parquet, pandas and polars can all read them."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from scythe.tables.casts import as_text, cast, decoded, fits
from scythe.tables.columns import CATEGORIES
from scythe.tables.rules import map_children

if TYPE_CHECKING:
    import pyarrow as pa


@cache
def storable_type(kind: Any) -> Any:
    """Return the type that a column of this type is stored as; None where that is text."""
    import pyarrow as pa

    made = _readable(kind)
    return made if _can_be_stored(made) else pa.string()


def stored_column(array: Any, kind: Any) -> Any:
    """Return a column of a user's table in the type that it is stored as."""
    import pyarrow as pa

    if pa.types.is_run_end_encoded(array.type):
        array = array.cast(array.type.value_type)
    if pa.types.is_dictionary(array.type):
        array = array.unify_dictionaries() if pa.types.is_dictionary(kind) else decoded(array)
    return cast(array, kind) if fits(array, kind) else as_text(array, pa.string())


def stored_field(field: pa.Field, array: Any) -> pa.Field:
    """Return the field of a stored column; categories whose order matters are known by a digest."""
    import pyarrow as pa

    kind = array.type
    made = field.with_type(kind)
    if not (pa.types.is_dictionary(kind) and kind.ordered and array.num_chunks):
        return made
    digest = sha256(repr(array.chunk(0).dictionary.to_pylist()).encode()).hexdigest()
    return made.with_metadata({**(field.metadata or {}), CATEGORIES: digest.encode()})


def _readable(kind: Any) -> Any:
    """Return a type that pandas and polars read from Parquet, and that Arrow can sort."""
    import pyarrow as pa

    is_a = pa.types
    if is_a.is_run_end_encoded(kind):
        return _readable(kind.value_type)
    if is_a.is_dictionary(kind):
        values = _readable(kind.value_type)
        is_text = is_a.is_string(values) or is_a.is_large_string(values)
        # Parquet has no categories of anything else; not every Arrow reads unsigned indices.
        return pa.dictionary(pa.int32(), values, kind.ordered) if is_text else values
    if is_a.is_decimal256(kind):  # of more digits than polars reads
        return pa.decimal128(38, kind.scale) if kind.scale <= 38 else pa.string()
    if is_a.is_list_view(kind) or is_a.is_large_list_view(kind):
        make = pa.list_ if is_a.is_list_view(kind) else pa.large_list
        return make(_readable(kind.value_type))
    others = {
        pa.string_view(): pa.large_string(),
        pa.binary_view(): pa.large_binary(),
        pa.date64(): pa.date32(),
    }
    return others.get(kind) or map_children(kind, _within)


def _within(kind: Any) -> Any:
    """Return the type of what lists and structs hold: categories there become plain."""
    import pyarrow as pa

    return _readable(kind.value_type if pa.types.is_dictionary(kind) else kind)


def _can_be_stored(kind: Any) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pa.table({"c": pa.nulls(1, kind)})
        order = pa.array([0], pa.int64())
        pq.write_table(pa.concat_tables([table, table]).take(order), pa.BufferOutputStream())
    except pa.ArrowException:
        return False
    return True
