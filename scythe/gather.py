"""From the outcomes of a node's leaves to its tables."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from scythe.errors import SpecError
from scythe.messages import LeafRecord
from scythe.outcomes import LeafFailure, LeafResult
from scythe.pandas_index import free_name, with_pandas_index
from scythe.store import Store
from scythe.tables import ORDER, SORT_INDEX, concat, from_ipc, table_from_rows

if TYPE_CHECKING:
    import pyarrow as pa

SCALARS, FILES, ERRORS, LEAVES = "scalars", "result_file_refs", "errors", "leaves"
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
    results = [(i, record.outcome) for i, record in enumerate(leaves.records)]
    done = [(i, result) for i, result in results if isinstance(result, LeafResult)]
    good = [i for i, _ in done]
    bad = [i for i, result in results if isinstance(result, LeafFailure)]
    index = _with_run_ids(leaves)
    tables: dict[str, pa.Table] = {}
    scalars = [read_scalars(result, store.get_bytes) for _, result in done]
    if any(scalars) or not good:
        tables[SCALARS] = _beside_index(index, leaves.rows, good, scalars)
    with_files = [(i, result.files) for i, result in done if result.files]
    if with_files:
        numbers, uris = zip(*with_files, strict=True)
        tables[FILES] = _beside_index(index, leaves.rows, numbers, uris)
    user_tables = _user_tables(leaves.rows, [one for one in done if one[1].tables], store)
    errors = [_error_row(leaves.records[i]) for i in bad]
    tables[ERRORS] = _beside_index(index, leaves.rows, bad, errors, _error_schema())
    tables[LEAVES] = _leaves_table(leaves, index)
    return tables | {_kept_name(name, tables): table for name, table in user_tables.items()}


def _kept_name(name: str, ours: Mapping[str, Any]) -> str:
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


def _with_run_ids(leaves: LeafSlice) -> pa.Table:
    """Fill in Hatchet's ids, which are not known when the specs are written."""
    import pyarrow as pa

    index = leaves.index
    ids = {
        "workflow_run_id": [record.workflow_run_id for record in leaves.records],
        "root_workflow_run_id": [leaves.root_workflow_run_id] * len(leaves.records),
    }
    for name, values in ids.items():
        if name in index.column_names:
            given = index.column(name).to_pylist()
            filled = [value or known for value, known in zip(values, given, strict=True)]
            place = index.column_names.index(name)
            index = index.set_column(place, name, pa.array(filled, pa.string()))
    return index


def _beside_index(
    index: pa.Table,
    rows: Sequence[int],
    numbers: Sequence[int],
    values: Sequence[Mapping[str, Any]],
    schema: pa.Schema | None = None,
) -> pa.Table:
    """Put values beside the index of the leaves that they belong to."""
    import pyarrow as pa

    data = table_from_rows(values)
    if schema is not None:
        data = pa.Table.from_pylist([dict(row) for row in values], schema=schema)
    levels = index.take(pa.array(list(numbers), pa.int64()))
    fields = [free_name(name, data.column_names) for name in levels.column_names]
    table = levels.rename_columns(fields)
    for position, name in enumerate(data.column_names):
        table = table.append_column(data.schema.field(position), data.column(name))
    table = with_pandas_index(table, list(zip(fields, levels.column_names, strict=True)))
    return _with_order(table, [rows[i] for i in numbers])


def _with_order(table: pa.Table, order: Sequence[int]) -> pa.Table:
    import pyarrow as pa

    return table.append_column(ORDER, pa.array(list(order), pa.int64()))


def _user_tables(
    rows: Sequence[int], results: Sequence[tuple[int, LeafResult]], store: Store
) -> dict[str, pa.Table]:
    collected: dict[str, list[pa.Table]] = {}
    for number, result in results:
        for name, data in result.tables.items():
            table = from_ipc(data if isinstance(data, bytes) else store.get_bytes(data))
            order = [rows[number]] * table.num_rows
            collected.setdefault(name, []).append(_with_order(table, order))
    return {name: concat(tables) for name, tables in collected.items()}


def _error_schema() -> pa.Schema:
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

    stats = [record.outcome.stats for record in leaves.records]
    count, seconds = len(leaves.records), pa.float64()
    levels = [
        n for n in ("experiment_id", SORT_INDEX, "workflow_run_id") if n in index.column_names
    ]
    columns = {name: index.column(name) for name in levels}
    columns |= {
        "state": pa.array(
            [
                "done" if isinstance(record.outcome, LeafResult) else "failed"
                for record in leaves.records
            ],
            pa.string(),
        ),
        "attempts": pa.array([record.attempts for record in leaves.records], pa.int64()),
        "queued": _times([leaves.queued] * count),
        "started": _times([item.started for item in stats]),
        "finished": _times([item.finished for item in stats]),
        "queue_seconds": pa.array(
            [_waited(leaves.queued, item.started) for item in stats], seconds
        ),
        "seconds": pa.array([item.seconds for item in stats], seconds),
        "peak_rss": pa.array([item.peak_rss for item in stats], pa.int64()),
        "node": pa.array([item.node for item in stats], pa.string()),
        "pid": pa.array([item.pid for item in stats], pa.int64()),
        "gpus": pa.array([item.gpus for item in stats], pa.string()),
    }
    return _with_order(with_pandas_index(pa.table(columns), levels), leaves.rows)


def _waited(queued: float, started: float) -> float | None:
    return max(0.0, started - queued) if started else None


def _times(seconds: Sequence[float]) -> pa.Array:
    import pyarrow as pa

    micros = [int(second * 1e6) if second else None for second in seconds]
    return pa.array(micros, pa.timestamp("us", tz="UTC"))
