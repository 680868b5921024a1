"""Specs in whatever form they are given: a list, an iterator, a table, a Parquet file."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import AnyUrl, BaseModel, ValidationError

from scythe.errors import FetchError, SpecError
from scythe.specs.file import SPEC_COLUMN
from scythe.storage.fetch import cached_path, fetch_uri
from scythe.storage.store import Store

_FLOATS = ("float16", "float32", "float64")  # in which pandas has NaN for what is missing
_ROWS = 1000  # of a table that are in memory as Python objects


def iterate_specs(given: Any, store: Store, cls: type[BaseModel]) -> Iterator[Any]:
    """Yield specs, as models or as mappings.

    Args:
        given: A spec; or specs as a list or another iterable; a table of Arrow, pandas, polars or
            alike with one row for each spec; or the path or URI of a Parquet file of such rows.
        store: For files in S3.
        cls: Their class. What pandas has as NaN in a column of numbers is NaN where the field takes
            that, else None: pandas keeps whole numbers of which some are missing in no other way.

    Raises:
        SpecError: They come in no form that is known, or the file cannot be read.
    """
    if is_single(given):
        return iter([given])
    if isinstance(given, (str, Path, AnyUrl)):
        return _rows_of_file(given, store)
    if _is_pandas(given):
        return _rows_of_frame(given, cls)
    if hasattr(given, "__arrow_c_stream__"):
        return _rows_of_stream(given)
    if isinstance(given, Iterable):
        return iter(cast("Iterable[Any]", given))
    return iter([given])  # the wrong type is reported as that of a spec


def is_single(given: Any) -> bool:
    """Return whether one spec was given, not several."""
    return isinstance(given, (BaseModel, Mapping))


def _is_pandas(value: Any) -> bool:
    pandas = sys.modules.get("pandas")  # who has a DataFrame has imported pandas
    return pandas is not None and isinstance(value, pandas.DataFrame)


def _rows_of_frame(frame: Any, cls: type[BaseModel]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a pandas table; named levels of its index are fields too."""
    named = [name for name in frame.index.names if name is not None]
    frame = frame.reset_index(level=named) if named else frame
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise SpecError(f"The table of specs has two columns {twice!r}: give each its own name.")
    floats = [name for name, kind in frame.dtypes.items() if str(kind) in _FLOATS]
    kept = {name for name in floats if _takes_nan(cls, name)}
    for first in range(0, len(frame), _ROWS):
        part = frame.iloc[first : first + _ROWS]
        columns = {
            name: column if name in kept else column.astype(object).where(column.notna(), None)
            for name, column in part.items()
        }
        yield from type(frame)(columns).to_dict("records")


def _takes_nan(cls: type[BaseModel], name: Any) -> bool:
    """Return whether NaN is a value of this field."""
    try:
        cls.model_validate({name: math.nan})
    except ValidationError as error:
        return all(one["loc"][:1] != (name,) for one in error.errors())
    except Exception:  # noqa: BLE001 - a validator of the user's, which needs the other fields
        return True
    return True


def _rows_of_stream(table: Any) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    try:
        reader = pa.RecordBatchReader.from_stream(table)
    except pa.ArrowInvalid as error:
        kind = type(table).__name__
        raise SpecError(
            f"A {kind} is no table of specs ({error}): pass a table with a row for each spec and a "
            "column for each field."
        ) from error
    for batch in reader:
        for first in range(0, batch.num_rows, _ROWS):
            yield from batch.slice(first, _ROWS).to_pylist()


def _rows_of_file(file: str | Path | AnyUrl, store: Store) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = str(file)
    if "://" not in text and not text.endswith((".pq", ".parquet")):
        raise SpecError(
            f"{text!r} is no spec: pass specs, or the path or URI of a Parquet file (.parquet or "
            ".pq)."
        )
    try:
        path = Path(text)
        if "://" in text:
            path = fetch_uri(text, cached_path(text), use_cache=False, store=store.config)
        with pq.ParquetFile(path) as parquet:
            names = [name for name in parquet.schema_arrow.names if name != SPEC_COLUMN]
            for batch in parquet.iter_batches(_ROWS, columns=names):
                yield from batch.to_pylist()
    except (OSError, FetchError, pa.ArrowException) as error:
        raise SpecError(
            f"The specs cannot be read from {text} ({error}): give the path or URI of a Parquet "
            "file with one row for each spec."
        ) from error
