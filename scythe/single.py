"""Run a single leaf of an experiment through Hatchet, outside of any run."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from scythe.base import ExperimentOutputSpec
from scythe.errors import LeafFailed
from scythe.messages import SENTINEL, LeafInput, decode_failure, decode_result
from scythe.nodes.references import RunRef
from scythe.outcomes import LeafFailure, LeafResult
from scythe.settings import ScytheStorageSettings, store_config
from scythe.specs.codec import encode_spec
from scythe.storage.store import open_store
from scythe.tables.arrow import from_ipc
from scythe.tables.gather import read_scalars

OutputT = TypeVar("OutputT", bound=ExperimentOutputSpec)


def start_single(experiment: Any, output_type: type[OutputT], spec: Any) -> RunRef[OutputT]:
    """Start one leaf of an experiment and return a reference to it."""
    from scythe.engine.client import start_run
    from scythe.nodes.known_tasks import make_experiment_known

    name = experiment.name
    make_experiment_known(experiment)
    reference = start_run(name, _payload(spec), {"experiment_name": name})
    return RunRef(reference, _reader(output_type, spec.storage_settings))


def _payload(spec: Any) -> LeafInput:
    return LeafInput(
        spec=encode_spec(spec),
        experiment_id=spec.experiment_id,
        sort_index=spec.sort_index,
        storage_settings=spec.storage_settings,
    )


def _reader(
    output_type: type[OutputT], storage: ScytheStorageSettings | None
) -> Callable[[dict[str, Any]], OutputT]:
    def read(payload: dict[str, Any]) -> OutputT:
        if payload.get(SENTINEL) != "done":
            text = payload.get("error") or "Cancelled: Hatchet cancelled the leaf"
            outcome = decode_failure(text).outcome
        else:
            outcome = decode_result(payload).outcome
        if isinstance(outcome, LeafFailure):
            raise LeafFailed(outcome)
        return _output(output_type, outcome, storage)

    return read


def _output(
    output_type: type[OutputT], result: LeafResult, storage: ScytheStorageSettings | None
) -> OutputT:
    def get_bytes(key: str) -> bytes:
        return open_store(store_config(storage)).get_bytes(key)

    tables = {
        name: from_ipc(data if isinstance(data, bytes) else get_bytes(data))
        for name, data in result.tables.items()
    }
    values = {**read_scalars(result, get_bytes), **result.files}
    output = output_type.model_validate_json(json.dumps(values), by_alias=True, by_name=True)
    return output.model_copy(update={"dataframes": tables})
