r"""Messages that travel through Hatchet: the input of a leaf, its result, and its failure.

Specs and results travel as JSON inside a string. So NaN, infinities and `\u0000`, which the
engine's database refuses, arrive as they were.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, cast

from pydantic import BaseModel, model_validator

from scythe.outcomes import (
    BatchResult,
    FailureKind,
    LeafFailure,
    LeafResult,
    LeafStats,
    RunCode,
)
from scythe.settings import StoragePlace
from scythe.texts import printable

SENTINEL = "scythe_leaf"
_HANDED_BACK = "handed back"
CANCELLED = LeafFailure(
    kind=FailureKind.CANCELLED,
    type="Cancelled",
    message="Hatchet cancelled the leaf: its run was cancelled, or no worker took it within its "
    "schedule timeout (check that a worker serves this experiment and has its labels)",
)
LOST = LeafFailure(
    kind=FailureKind.WORKER_CRASH,
    type="WorkerLost",
    message="each worker that ran the leaf was lost, and Hatchet hands it out no more: look in the "
    "workers' logs for how they ended",
)
FAILURE_MARK = "scythe-failure: "
_FAILURE = re.compile(rf"{FAILURE_MARK}([A-Za-z0-9+/]+=*)")
_TRACEBACK_CHARS = 8_000


class LeafInput(BaseModel):
    """The input of a leaf task.

    A plain spec, as somebody may type it into Hatchet's dashboard, is taken as well.

    Attributes:
        spec: The spec as text, see `scythe.specs.codec`.
        spec_row: Number of the spec's row in the stored specs, when `spec` is empty.
        rows: First row of a batch in the stored specs, and the one after its last; None for one
            leaf.
        specs: Key of the stored specs that have these rows; None for the run's own.
        queued: When a batch was handed to Hatchet, in seconds since 1970.
        experiment_id: The run, or the id that a single spec names.
        sort_index: The leaf's place in its run.
        root_workflow_run_id: Hatchet's id of the run, None for a single leaf.
        storage_settings: The bucket of the run, None to use the worker's.
        run_code: What `allocate` saw of the experiment, None for a single leaf.
    """

    spec: str = ""
    spec_row: int | None = None
    rows: tuple[int, int] | None = None
    specs: str | None = None
    queued: float = 0.0
    experiment_id: str
    sort_index: int = 0
    root_workflow_run_id: str | None = None
    storage_settings: StoragePlace | None = None
    run_code: RunCode | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_plain_spec(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        plain = cast("dict[str, Any]", value)
        if {"spec", "spec_row", "rows"} & set(plain) and set(plain) <= set(cls.model_fields):
            return plain
        return {
            "spec": json.dumps(plain),
            "experiment_id": plain.get("experiment_id", ""),
            "sort_index": plain.get("sort_index", 0),
            "storage_settings": plain.get("storage_settings"),
        }


@dataclass(slots=True)
class LeafRecord:  # not frozen: see `scythe.outcomes`
    """The outcome of a leaf's last try.

    Attributes:
        outcome: What the leaf gave back, or why it failed.
        attempts: How often it was tried.
        workflow_run_id: Hatchet's id of the leaf, where it is known.
    """

    outcome: LeafResult | LeafFailure
    attempts: int
    workflow_run_id: str | None


def encode_result(result: LeafResult, attempts: int, workflow_run_id: str) -> dict[str, Any]:
    """Make the output of a leaf task that ended well."""
    record = LeafRecord(result, attempts, workflow_run_id)
    return {SENTINEL: "done", "record": json.dumps(_write_record(record))}


def encode_batch(result: BatchResult) -> dict[str, Any]:
    """Make the output of the task of a batch."""
    packs = [
        {"b64": base64.b64encode(pack).decode()} if isinstance(pack, bytes) else {"key": pack}
        for pack in result.packs
    ]
    counts = {"n_leaves": result.n_leaves, "n_failed": result.n_failed, "seconds": result.seconds}
    return {SENTINEL: "batch", "packs": packs, **counts}


def hand_back() -> dict[str, Any]:
    """Make the output of a task that has run nothing, because its run is paused."""
    return {SENTINEL: _HANDED_BACK}


def is_handed_back(output: object) -> bool:
    """Return whether a task has run nothing, so that its node starts it again later."""
    return isinstance(output, dict) and cast("Any", output).get(SENTINEL) == _HANDED_BACK


def decode_batch(payload: dict[str, Any]) -> BatchResult:
    """Read what `encode_batch` made."""
    packs = [
        base64.b64decode(pack["b64"]) if "b64" in pack else str(pack["key"])
        for pack in payload["packs"]
    ]
    return BatchResult(
        tuple(packs), payload["n_leaves"], payload["n_failed"], float(payload["seconds"])
    )


def encode_cut_batch(stored: Sequence[tuple[str, int]], records: Sequence[LeafRecord]) -> bytes:
    """Write what is known of a batch that was cancelled.

    Args:
        stored: The packs that are in the bucket: the key and the number of leaves of each.
        records: The leaves after those.
    """
    document = {"packs": stored, "records": [_write_record(record) for record in records]}
    return json.dumps(document).encode()


def decode_cut_batch(data: bytes) -> tuple[list[tuple[str, int]], list[LeafRecord]]:
    """Read what `encode_cut_batch` made."""
    document = json.loads(data)
    stored = [(str(key), int(count)) for key, count in document["packs"]]
    return stored, [_read_record(record) for record in document["records"]]


def find_payload(output: dict[str, Any]) -> dict[str, Any]:
    """Return the output of the task itself from what Hatchet gives for a run of one task."""
    if SENTINEL in output or len(output) != 1:
        return output
    inner = next(iter(output.values()))
    return cast("dict[str, Any]", inner) if isinstance(inner, dict) else output


def decode_result(payload: dict[str, Any]) -> LeafRecord:
    """Read what `encode_result` made."""
    return _read_record(json.loads(payload["record"]))


def _write_record(record: LeafRecord) -> dict[str, Any]:
    outcome = record.outcome
    common = {
        "stats": asdict(outcome.stats),
        "attempts": record.attempts,
        "workflow_run_id": record.workflow_run_id,
    }
    if isinstance(outcome, LeafFailure):
        return {
            "kind": outcome.kind.value,
            "type": outcome.type,
            "message": printable(outcome.message),
            "traceback": printable(outcome.traceback[-_TRACEBACK_CHARS:]),
            **common,
        }
    tables = {
        name: {"b64": base64.b64encode(data).decode()} if isinstance(data, bytes) else {"key": data}
        for name, data in outcome.tables.items()
    }
    return {
        "scalars": outcome.scalars,
        "scalars_key": outcome.scalars_key,
        "files": outcome.files,
        "tables": tables,
        **common,
    }


def _read_record(record: dict[str, Any]) -> LeafRecord:
    if "kind" in record:
        return _read_failure(record)
    tables = {
        name: base64.b64decode(data["b64"]) if "b64" in data else data["key"]
        for name, data in record["tables"].items()
    }
    result = LeafResult(
        scalars=record["scalars"],
        files=record["files"],
        tables=tables,
        stats=LeafStats(**record["stats"]),
        scalars_key=record["scalars_key"],
    )
    return LeafRecord(result, record["attempts"], record["workflow_run_id"])


def encode_failure(failure: LeafFailure, attempts: int, workflow_run_id: str) -> str:
    """Make the message of the exception with which a leaf task fails.

    It reads well in Hatchet's dashboard; its last line holds the same for `decode_failure`.
    """
    record = _write_record(LeafRecord(failure, attempts, workflow_run_id))
    # Hatchet's database refuses NUL characters, and its SDK cuts the text at line ends.
    data = base64.b64encode(json.dumps(record).encode()).decode()
    text = f"{failure.summary}\n{failure.traceback[-_TRACEBACK_CHARS:]}".replace("\x00", "\\x00")
    return f"{printable(text)}\n{FAILURE_MARK}{data}"


def decode_failure(text: str) -> LeafRecord:
    """Read the failure out of the error text that Hatchet gives for a leaf.

    A text without one of ours was written by the engine, which timed the leaf out or cancelled it,
    or by a task that is not an experiment of Scythe.
    """
    for data in reversed(_FAILURE.findall(text)):  # a user's message may hold the mark as well
        with suppress(ValueError, KeyError, TypeError):
            return _read_failure(json.loads(base64.b64decode(data, validate=True)))
    if text.strip() in ("task was cancelled", "HatchetError: task was cancelled"):
        return LeafRecord(CANCELLED, 0, None)
    if not text.strip() or "maximum reassignment count" in text:
        return LeafRecord(LOST, 0, None)
    first, _, trace = text.partition("\n")
    kind = FailureKind.TIMEOUT if "exceeded timeout" in text else FailureKind.APPLICATION
    name, separator, message = first.partition(": ")
    failure = LeafFailure(
        kind=kind,
        type=name if separator else "HatchetError",
        message=message or first,
        traceback=trace,
    )
    return LeafRecord(failure, 0, None)


def _read_failure(record: dict[str, Any]) -> LeafRecord:
    failure = LeafFailure(
        kind=FailureKind(record["kind"]),
        type=record["type"],
        message=record["message"],
        traceback=record["traceback"],
        stats=LeafStats(**record["stats"]),
    )
    return LeafRecord(failure, record["attempts"], record["workflow_run_id"])
