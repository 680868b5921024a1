"""Makes the tables of a scatter node from the outcomes of its leaves."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from scythe.errors import SpecError
from scythe.messages import LeafRecord
from scythe.outcomes import LeafFailure, LeafResult
from scythe.provenance.identity import read_identity
from scythe.storage.store import Store
from scythe.tables.arrow import ipc_windows, table_from_rows
from scythe.tables.combine import concat
from scythe.tables.names import ORDER, SORT_INDEX
from scythe.tables.pandas_index import free_name, with_pandas_index

if TYPE_CHECKING:
    import pyarrow as pa

SCALARS = "scalars"
FILES = "result_file_refs"
ERRORS = "errors"
LEAVES = "leaves"
REPORTS = (ERRORS, LEAVES)  # the tables of a run that are not results
_STAT_TYPES = {
    "node": "string",
    "pid": "int64",
    "started": "float64",
    "finished": "float64",
    "peak_rss": "int64",
    "gpus": "string",
}
CODE = "code"  # the fingerprint of the code that a leaf ran
_CODE_COLUMNS = {CODE: "fingerprint", "code_version": "version", "code_commit": "commit"}
_OUR_NAME = re.compile(f"(user_)*({ERRORS}|{LEAVES})")


@dataclass(slots=True)
class LeafSlice:
    """The leaves of a node.

    Attributes:
        rows: The row of each leaf in the specs of the run.
        index: The index columns of these leaves, n rows.
        records: The outcome of each leaf.
        queued: When each leaf was handed to Hatchet, in seconds since 1970.
        root_workflow_run_id: Hatchet's id of the run.
    """

    rows: Sequence[int]
    index: pa.Table
    records: Sequence[LeafRecord]
    queued: float
    root_workflow_run_id: str | None = None


def node_tables(leaves: LeafSlice, store: Store) -> dict[str, pa.Table]:
    """Make the tables of a node from the outcomes of its leaves.

    Returns:
        By name: `scalars`, `result_file_refs` and the user's tables where there are any, `errors`
        and `leaves` always. Each has the column `__order__`, by which it is sorted.
    """
    tables = own_tables(leaves, store)
    users = user_tables(leaves, store, tables)
    return tables | {name: concat(parts) for name, parts in users.items()}


def own_tables(leaves: LeafSlice, store: Store) -> dict[str, pa.Table]:
    """Make Scythe's own tables of a node; see `node_tables`."""
    outcomes = [record.outcome for record in leaves.records]
    good = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, LeafResult)]
    bad = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, LeafFailure)]
    done = [outcome for outcome in outcomes if isinstance(outcome, LeafResult)]
    index = _with_run_ids(leaves)
    tables: dict[str, pa.Table] = {}
    scalars = _all_scalars(done, store.get_bytes)
    if any(scalars) or not good:
        tables[SCALARS] = _beside_index(index, leaves.rows, good, scalars)
    with_files = [(i, result.files) for i, result in zip(good, done, strict=True) if result.files]
    if with_files:
        numbers, uris = zip(*with_files, strict=True)
        tables[FILES] = _beside_index(index, leaves.rows, numbers, uris)
    errors = [_error_row(leaves.records[i]) for i in bad]
    tables[ERRORS] = _beside_index(index, leaves.rows, bad, errors, error_schema())
    tables[LEAVES] = _leaves_table(leaves, index)
    return tables


def user_tables(
    leaves: LeafSlice, store: Store, ours: Collection[str], folder: Path | None = None
) -> dict[str, LeafTables]:
    """Return the tables that leaves returned, by name.

    Args:
        leaves: The leaves.
        store: Where the large ones are.
        ours: The names of the other tables.
        folder: Where those are downloaded to; None to keep them in memory.
    """
    parts: dict[str, list[tuple[int, bytes | Path]]] = {}
    for row, record in zip(leaves.rows, leaves.records, strict=True):
        outcome = record.outcome
        for name, data in outcome.tables.items() if isinstance(outcome, LeafResult) else ():
            own = parts.setdefault(_kept_name(name, ours), [])
            if isinstance(data, bytes) or folder is None:
                own.append((row, data if isinstance(data, bytes) else store.get_bytes(data)))
                continue
            file = folder / f"leaf-{sum(map(len, parts.values()))}.arrow"
            store.download(data, file)
            own.append((row, file))
    return {name: LeafTables(own) for name, own in parts.items()}


class LeafTables:
    """The tables of one name that leaves returned, in the order of the leaves.

    Args:
        parts: The row of each leaf in the specs, and its table as an Arrow IPC stream.
    """

    def __init__(self, parts: Sequence[tuple[int, bytes | Path]]) -> None:
        self._parts = parts

    def heads(self) -> Iterator[pa.Table]:
        """Yield the first rows of each table."""
        for row, data in self._parts:
            yield _with_order_of(row, next(ipc_windows(data)))

    def __iter__(self) -> Iterator[pa.Table]:
        for row, data in self._parts:
            yield from (_with_order_of(row, table) for table in ipc_windows(data))


def count_codes(leaves: Path) -> Counter[str | None]:
    """Count the leaves of a `leaves` file by the fingerprint of their code, None for unknown."""
    import pyarrow.parquet as pq

    counts = Counter[str | None]()
    with pq.ParquetFile(leaves) as file:
        for batch in file.iter_batches(columns=[CODE]):
            for one in batch.column(0).value_counts().to_pylist():
                counts[one["values"]] += one["counts"]
    return counts


def _kept_name(name: str, ours: Collection[str]) -> str:
    """Return the name of a user's table, another one where it has the name of one of ours.

    It is the same in all nodes, and no two tables get one name.
    """
    return f"user_{name}" if name in ours or _OUR_NAME.fullmatch(name) else name


def read_scalars(result: LeafResult, get_bytes: Callable[[str], bytes]) -> dict[str, Any]:
    """Return the scalar outputs of a leaf; large ones are read from the bucket."""
    key = result.scalars_key
    text = result.scalars if key is None else get_bytes(key)
    try:
        return from_json(text)
    except ValueError:  # half of a surrogate pair, which the quicker reader refuses
        return json.loads(text)


def _all_scalars(
    results: Sequence[LeafResult], get_bytes: Callable[[str], bytes]
) -> list[dict[str, Any]]:
    """Return the scalar outputs of leaves, read in one go where that is possible."""
    if not any(result.scalars_key for result in results):
        with suppress(ValueError):  # half of a surrogate pair in one of them
            return from_json(f"[{','.join([result.scalars for result in results])}]")
    return [read_scalars(result, get_bytes) for result in results]


def _with_run_ids(leaves: LeafSlice) -> pa.Table:
    """Add Hatchet's ids, which are unknown when the specs are written."""
    import pyarrow as pa

    pc = _compute()
    index = leaves.index
    text = pa.string()
    ids = {
        "workflow_run_id": pa.array([one.workflow_run_id or None for one in leaves.records], text),
        "root_workflow_run_id": pa.scalar(leaves.root_workflow_run_id or None, text),
    }
    for place, name in enumerate(index.column_names):
        if name in ids:
            filled = pc.coalesce(ids[name], index.column(name).cast(text))
            index = index.set_column(place, name, filled)
    return index


def _beside_index(
    index: pa.Table,
    rows: Sequence[int],
    numbers: Sequence[int],
    values: Sequence[Mapping[str, Any]],
    schema: pa.Schema | None = None,
) -> pa.Table:
    """Add the index of their leaves to values."""
    import pyarrow as pa

    data = table_from_rows(values, final=False)
    if schema is not None:
        data = pa.Table.from_pylist([dict(row) for row in values], schema=schema)
    all_rows = len(numbers) == index.num_rows
    levels = index if all_rows else index.take(pa.array(numbers, pa.int64()))
    fields = [free_name(name, data.column_names) for name in levels.column_names]
    columns = pa.schema([*levels.rename_columns(fields).schema, *data.schema])
    table = pa.table([*levels.itercolumns(), *data.itercolumns()], schema=columns)
    table = with_pandas_index(table, list(zip(fields, levels.column_names, strict=True)))
    return _with_order(table, rows if all_rows else [rows[i] for i in numbers])


def _with_order(table: pa.Table, order: Any) -> pa.Table:
    import pyarrow as pa

    return table.append_column(ORDER, pa.array(order, pa.int64()))


def _with_order_of(row: int, table: pa.Table) -> pa.Table:
    import numpy as np

    return _with_order(table, np.full(table.num_rows, row))


def error_schema() -> pa.Schema:
    """Return the columns of `errors`, without those of the index."""
    import pyarrow as pa

    texts = [(name, pa.string()) for name in ("kind", "type", "message", "traceback")]
    return pa.schema([*texts, ("attempts", pa.int64()), ("node", pa.string()), ("pid", pa.int64())])


def _error_row(record: LeafRecord) -> dict[str, Any]:
    failure = record.outcome
    if not isinstance(failure, LeafFailure):
        msg = "only a failed leaf has an error"
        raise SpecError(msg)
    return {
        "kind": failure.kind.value,
        "type": failure.type,
        "message": failure.message,
        "traceback": failure.traceback,
        "attempts": record.attempts,
        "node": failure.stats.node,
        "pid": failure.stats.pid,
    }


def _leaves_table(leaves: LeafSlice, index: pa.Table) -> pa.Table:
    import pyarrow as pa

    pc = _compute()
    levels = [
        n for n in ("experiment_id", SORT_INDEX, "workflow_run_id") if n in index.column_names
    ]
    records = leaves.records
    # A column at a time: a tuple for each leaf would be one more for the garbage collector.
    all_stats = [record.outcome.stats for record in records]
    stats = {
        name: _column(list(map(attrgetter(name), all_stats)), kind)
        for name, kind in _STAT_TYPES.items()
    }
    started = stats["started"]
    finished = stats["finished"]
    queued = pa.repeat(pa.scalar(leaves.queued, pa.float64()), len(records))
    waited = pc.max_element_wise(pc.subtract(started, queued), 0.0)
    states = ["done" if isinstance(one.outcome, LeafResult) else "failed" for one in records]
    columns = {name: index.column(name) for name in levels}
    columns |= {
        "state": _column(states, "string"),
        "attempts": _column([record.attempts for record in records], "int64"),
        "queued": _times(queued),
        "started": _times(started),
        "finished": _times(finished),
        "queue_seconds": pc.if_else(pc.equal(started, 0.0), None, waited),
        "seconds": pc.max_element_wise(pc.subtract(finished, started), 0.0),
        **{name: stats[name] for name in ("peak_rss", "node", "pid", "gpus")},
        **_codes([one.code for one in all_stats]),
    }
    return _with_order(with_pandas_index(pa.table(columns), levels), leaves.rows)


def _column(values: Sequence[Any], kind: str) -> pa.Array:
    """Return values as an array, quickly where all are the same, as in leaves of one process."""
    import pyarrow as pa

    if values and values.count(values[0]) == len(values):
        return pa.repeat(pa.scalar(values[0], pa.type_for_alias(kind)), len(values))
    return pa.array(values, pa.type_for_alias(kind))


def _codes(texts: Sequence[str]) -> dict[str, Any]:
    """Return the columns that say which code each leaf ran, null where its process did not tell."""
    import pyarrow as pa

    encoded = _column(texts, "string").dictionary_encode()
    identities = [read_identity(text) for text in encoded.dictionary.to_pylist()]
    return {
        column: pa.array([getattr(one, name) or None for one in identities], pa.string()).take(
            encoded.indices
        )
        for column, name in _CODE_COLUMNS.items()
    }


def _times(seconds: pa.Array) -> pa.Array:
    """Convert seconds since 1970 to times; 0 becomes null."""
    import pyarrow as pa

    pc = _compute()
    micros = pc.cast(pc.multiply(seconds, 1e6), pa.int64(), safe=False)
    known = pc.if_else(pc.equal(micros, 0), None, micros)
    return known.cast(pa.timestamp("us", tz="UTC"))


def _compute() -> Any:
    """Return Arrow's functions: most are made when it is imported, so that no type is known."""
    import pyarrow.compute as pc

    return pc
