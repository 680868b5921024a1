"""Converts tables of pandas and polars to Arrow."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from scythe.errors import OutputError
from scythe.tables.objects import is_plain_text, plain_values
from scythe.tables.pandas_index import index_names, with_pandas_index

if TYPE_CHECKING:
    import pyarrow as pa

_MANY_COLUMNS = 200  # with more, pyarrow's conversion takes too long
_SIMPLE = "iufbMm"  # kinds of dtypes that need no look at each column
_HEADERS = "iufM"  # kinds of dtypes of headers that pandas reads again
_NOT_PLAIN = (b'"numpy_type": "object"', b'"pandas_type": "categorical"')
_INT128 = ("Int128", "UInt128")  # that Arrow has not


def is_pandas(value: Any) -> bool:
    """Return whether a value is a DataFrame of pandas."""
    pandas = sys.modules.get("pandas")  # who has a DataFrame has imported pandas
    return pandas is not None and isinstance(value, pandas.DataFrame)


def is_polars(value: Any) -> bool:
    """Return whether a value is a DataFrame of polars."""
    polars = sys.modules.get("polars")
    return polars is not None and isinstance(value, polars.DataFrame)


def from_pandas(frame: Any) -> pa.Table:
    """Convert a pandas DataFrame with its index to an Arrow table."""
    import pyarrow as pa

    frame = _with_text_headers(frame)
    if len(frame.columns) <= _MANY_COLUMNS:
        with suppress(pa.ArrowException, ValueError, TypeError, OverflowError):
            table = _from_pandas(frame)
            if not any(word in table.schema.metadata[b"pandas"] for word in _NOT_PLAIN):
                return table  # to look at the dtypes first takes a tenth longer
    simple = [_is_simple(dtype) for dtype in frame.dtypes]
    frame = _with_plain_columns(_with_plain_index(frame), simple)
    is_wide = sum(simple) > _MANY_COLUMNS and frame.columns.nlevels == 1
    if is_wide and not set(frame.index.names) & set(frame.columns):
        return _from_wide(frame, simple)
    return _from_pandas(frame)


def from_polars(frame: Any) -> pa.Table:
    """Convert a polars DataFrame to an Arrow table."""
    import pyarrow as pa

    odd = [name for name, kind in frame.schema.items() if str(kind) in ("Object", *_INT128)]
    if not odd:
        return pa.table(frame)
    rest = pa.table(frame.drop(odd))
    columns = {
        name: pa.array(plain_values(name, frame[name])) if name in odd else rest.column(name)
        for name in frame.columns
    }
    return pa.table(columns)


def _from_pandas(frame: Any) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pandas(frame, preserve_index=not _has_default_index(frame) or None)


def _from_wide(frame: Any, simple: list[bool]) -> pa.Table:
    """Convert a DataFrame with many columns to an Arrow table, by blocks of one dtype."""
    import numpy as np
    import pyarrow as pa

    is_simple = np.array(simple)
    rest = _from_pandas(frame.iloc[:, np.flatnonzero(~is_simple)])
    places = {name: number for number, name in enumerate(rest.column_names)}
    dtypes = np.array([str(dtype) for dtype in frame.dtypes])
    arrays: dict[int, pa.Array] = {}
    for dtype in np.unique(dtypes[is_simple]):
        numbers = np.flatnonzero(dtypes == dtype)
        if dtype == "str":  # arrays of Arrow already
            arrays |= {int(number): pa.array(frame.iloc[:, number].array) for number in numbers}
            continue
        block = frame.iloc[:, numbers].to_numpy()
        kind = pa.array(frame.iloc[:, numbers[0]]).type
        values = pa.array(block.T.ravel(), kind, from_pandas=True)  # all columns in one go
        for place, number in enumerate(numbers.tolist()):
            arrays[number] = values.slice(place * len(frame), len(frame))
    names = [str(name) for name in frame.columns]
    columns = [
        rest.column(places[name]) if number not in arrays else arrays[number]
        for number, name in enumerate(names)
    ]
    index = rest.column_names[len(names) - len(arrays) :]
    columns += [rest.column(places[name]) for name in index]
    made = pa.table(columns, names=[*names, *index]).replace_schema_metadata(rest.schema.metadata)
    return with_pandas_index(made, index_names(rest.schema))


def _has_default_index(frame: Any) -> bool:
    index = frame.index
    return (
        isinstance(index, sys.modules["pandas"].RangeIndex)
        and index.name is None
        and (index.start, index.step) == (0, 1)
    )


def _is_simple(dtype: Any) -> bool:
    import numpy as np

    return dtype.kind in _SIMPLE if isinstance(dtype, np.dtype) else str(dtype) == "str"


def _with_text_headers(frame: Any) -> Any:
    """Return the frame with text headers if pandas could not read its headers back."""
    import pandas as pd

    columns = frame.columns
    if columns.nlevels == 1:
        if _is_plain_header(columns):
            return frame
        made = pd.Index([str(name) for name in columns], dtype=object, name=columns.name)
    else:
        levels = [columns.get_level_values(number) for number in range(columns.nlevels)]
        if all(map(_is_plain_header, levels)):
            return frame
        texts = [level if _is_plain_header(level) else map(str, level) for level in levels]
        made = pd.MultiIndex.from_arrays([list(one) for one in texts], names=columns.names)
    return frame.set_axis(made, axis=1)


def _is_plain_header(columns: Any) -> bool:
    import numpy as np

    dtype = columns.dtype
    if isinstance(dtype, np.dtype):
        return dtype.kind in _HEADERS or all(isinstance(name, str) for name in columns)
    return str(dtype).startswith("str") or hasattr(dtype, "tz")


def _with_plain_index(frame: Any) -> Any:
    """Return the frame with an index that Arrow supports."""
    import pandas as pd

    index = frame.index
    if index.nlevels == 1 and _is_simple(index.dtype):
        return frame
    levels = [index.get_level_values(number) for number in range(index.nlevels)]
    names = [name or f"level {number}" for number, name in enumerate(index.names)]
    made = [_plain(name, level) for name, level in zip(names, levels, strict=True)]
    if all(one is None for one in made):
        return frame
    arrays = [old if new is None else new for old, new in zip(levels, made, strict=True)]
    if index.nlevels == 1:
        return frame.set_axis(pd.Index(arrays[0], name=index.name), axis=0)
    return frame.set_axis(pd.MultiIndex.from_arrays(arrays, names=index.names), axis=0)


def _with_plain_columns(frame: Any, simple: list[bool]) -> Any:
    """Return the frame with columns that Arrow supports."""
    made = frame
    for number, is_simple in enumerate(simple):
        if is_simple:
            continue
        column = _plain(frame.columns[number], frame.iloc[:, number])
        if column is not None:
            made = frame.copy(deep=False) if made is frame else made
            made.isetitem(number, column)
    return made


def _plain(name: Any, values: Any) -> Any:
    """Convert values of pandas to a form that Arrow supports; None if no conversion is needed."""
    import numpy as np
    import pandas as pd

    dtype = values.dtype
    if isinstance(dtype, pd.SparseDtype):
        return values.to_numpy()
    objects = values
    if isinstance(dtype, pd.CategoricalDtype):
        objects = dtype.categories
        if isinstance(objects.dtype, pd.IntervalDtype):
            raise OutputError(f"column {name!r} holds categories of intervals: use .astype(str)")
    is_of_objects = pd.api.types.is_object_dtype(objects) and not is_plain_text(objects)
    if not (is_of_objects or pd.api.types.is_complex_dtype(objects)):
        return None
    found = plain_values(name, values)
    made = np.empty(len(found), object)
    made[:] = found
    return made
