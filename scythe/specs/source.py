"""Specs in whatever form they are given: a list, an iterator, a table, a Parquet file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import AnyUrl, BaseModel

from scythe.errors import FetchError, SpecError
from scythe.specs.file import SPEC_COLUMN
from scythe.storage.fetch import cached_path, fetch_uri
from scythe.storage.store import Store

_ROWS = 1000  # of a table that are in memory as Python objects


def iterate_specs(given: Any, store: Store) -> Iterator[Any]:
    """Yield specs, as models or as mappings.

    Args:
        given: A spec; or specs as a list or another iterable; a table of Arrow, pandas, polars or
            alike with one row for each spec; or the path or URI of a Parquet file of such rows.
        store: For files in S3.

    Raises:
        SpecError: They come in no form that is known, or the file cannot be read.
    """
    if is_single(given):
        return iter([given])
    if isinstance(given, (str, Path, AnyUrl)):
        return _rows_of_file(given, store)
    if _is_pandas(given):
        return _rows_of_frame(given)
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


def _rows_of_frame(frame: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of a pandas table; named levels of its index are fields too."""
    named = [name for name in frame.index.names if name is not None]
    for first in range(0, len(frame), _ROWS):
        part = frame.iloc[first : first + _ROWS]
        part = part.reset_index(level=named) if named else part
        for name, kind in part.dtypes.items():
            if kind.kind != "f":  # NaN is a number, but among texts it is nothing
                part = part.assign(
                    **{name: part[name].astype(object).where(part[name].notna(), None)}
                )
        yield from part.to_dict("records")


def _rows_of_stream(table: Any) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    reader = pa.RecordBatchReader.from_stream(table)
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
