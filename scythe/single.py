"""Run a single leaf of an experiment through Hatchet, outside of any run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, TypeVar

from scythe.base import ExperimentOutputSpec
from scythe.codec import encode_spec
from scythe.errors import LeafFailed
from scythe.experiment import Experiment
from scythe.messages import SENTINEL, LeafInput, decode_failure, decode_result
from scythe.outcomes import LeafFailure, LeafResult
from scythe.references import RunRef
from scythe.settings import store_config
from scythe.store import open_store
from scythe.tables import from_ipc

OutputT = TypeVar("OutputT", bound=ExperimentOutputSpec)


def start_single(experiment: Experiment[Any, OutputT], spec: Any) -> RunRef[OutputT]:
    """Start one leaf and return a reference to it."""
    from scythe.engine import start_run

    reference = start_run(experiment.name, _payload(spec), {"experiment_name": experiment.name})
    return RunRef(reference, _reader(experiment))


async def aio_start_single(experiment: Experiment[Any, OutputT], spec: Any) -> RunRef[OutputT]:
    """Start one leaf and return a reference to it."""
    return await asyncio.to_thread(start_single, experiment, spec)


def run_single(experiment: Experiment[Any, OutputT], spec: Any) -> OutputT:
    """Run one leaf and wait for its output."""
    return start_single(experiment, spec).result()


async def aio_run_single(experiment: Experiment[Any, OutputT], spec: Any) -> OutputT:
    """Run one leaf and await its output."""
    reference = await aio_start_single(experiment, spec)
    return await reference.aio_result()


def _payload(spec: Any) -> LeafInput:
    return LeafInput(
        spec=encode_spec(spec),
        experiment_id=spec.experiment_id,
        sort_index=spec.sort_index,
        storage_settings=spec.storage_settings,
    )


def _reader(experiment: Experiment[Any, OutputT]) -> Callable[[dict[str, Any]], OutputT]:
    def read(payload: dict[str, Any]) -> OutputT:
        if payload.get(SENTINEL) != "done":
            text = payload.get("error") or "Cancelled: Hatchet cancelled the leaf"
            outcome = decode_failure(text).outcome
        else:
            outcome = decode_result(payload).outcome
        if isinstance(outcome, LeafFailure):
            raise LeafFailed(outcome)
        return _output(experiment.output_validator_type, outcome)

    return read


def _output(output_type: type[OutputT], result: LeafResult) -> OutputT:
    tables = {
        name: from_ipc(data if isinstance(data, bytes) else open_store(store_config()).get_bytes(data))
        for name, data in result.tables.items()
    }
    values = {**json.loads(result.scalars), **result.files}
    output = output_type.model_validate_json(json.dumps(values))
    return output.model_copy(update={"dataframes": tables})
