"""Leaves that are the user's own Hatchet tasks, added with `ExperimentRegistry.Include`."""

from __future__ import annotations

import json
from typing import Any

from scythe.base import ExperimentOutputSpec
from scythe.messages import LeafRecord
from scythe.outcomes import LeafResult, LeafStats
from scythe.settings import ScytheStorageSettings
from scythe.tables.arrow import to_ipc
from scythe.tables.user_tables import storable

_FILE_SCHEMES = ("s3://", "http://", "https://", "file://")


def plain_spec(text: str, root_id: str, storage: ScytheStorageSettings) -> dict[str, Any]:
    """Make the input of the user's own task: the spec itself."""
    return {
        **json.loads(text),
        "root_workflow_run_id": root_id,
        "storage_settings": storage.model_dump(),
    }


def plain_record(output: dict[str, Any]) -> LeafRecord:
    """Read the output of the user's own task: an output model as JSON.

    Its tables named `scalars` and `result_file_refs` are taken as they are.
    """
    frames = ExperimentOutputSpec.model_validate({"dataframes": output.get("dataframes") or {}})
    values = {name: value for name, value in output.items() if name != "dataframes"}
    files = {
        name: value
        for name, value in values.items()
        if isinstance(value, str) and value.startswith(_FILE_SCHEMES)
    }
    scalars = {name: value for name, value in values.items() if name not in files}
    result = LeafResult(
        scalars=json.dumps(scalars),
        files=files,
        tables={name: to_ipc(storable(name, table)) for name, table in frames.dataframes.items()},
        stats=LeafStats(),
    )
    return LeafRecord(result, 1, None)
