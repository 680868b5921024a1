"""Run a single leaf of an experiment outside of any run: through Hatchet, or in this process."""

from __future__ import annotations

import json
import tempfile
import uuid
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.engine.standalone import run_input
from scythe.engine.tasks import LeafHandler, TaskRun
from scythe.errors import LeafFailed, SpecError
from scythe.messages import SENTINEL, LeafInput, decode_failure, decode_result
from scythe.outcomes import LeafFailure, LeafResult
from scythe.settings import ScytheStorageSettings, store_config
from scythe.specs.codec import decode_spec, describe_validation_error, encode_spec
from scythe.storage.files import S3Url
from scythe.storage.leaf_files import OutputFiles, fetch_inputs
from scythe.storage.store import open_store
from scythe.tables.arrow import from_ipc
from scythe.tables.gather import read_scalars

OutputT = TypeVar("OutputT", bound=ExperimentOutputSpec)


def as_spec(cls: type[Any], given: Any) -> Any:
    """Return a spec, made from a dict if need be.

    Raises:
        SpecError: It is none of this class.
    """
    if isinstance(given, cls):
        return given
    try:
        return cls.model_validate(given)
    except ValidationError as error:
        raise SpecError(f"This spec is wrong: {describe_validation_error(error)}.") from error


def spec_payload(cls: type[Any], given: Any) -> LeafInput:
    """Return the input of the task that runs one leaf.

    Raises:
        SpecError: It is no spec of this class.
    """
    spec = as_spec(cls, given)
    return LeafInput(
        spec=encode_spec(spec),
        experiment_id=spec.experiment_id,
        sort_index=spec.sort_index,
        storage_settings=spec.storage_settings,
    )


def served_here(experiment: Any) -> LeafHandler:
    """Return what runs the leaves in a worker that was made with Hatchet's SDK."""

    async def handle(payload: LeafInput, run: TaskRun) -> dict[str, Any]:
        # By its name: executors know experiments, and no experiment knows executors.
        return await import_module("scythe.worker_processes.own_worker").run_leaf(
            experiment, payload, run
        )

    return handle


def read_single(experiment: Any, payload: dict[str, Any], sent: str | None) -> Any:
    """Read the output of a leaf, its tables as pandas has them.

    Args:
        experiment: The experiment.
        payload: The output of the task.
        sent: The input of the task as JSON; None to ask Hatchet for it.

    Raises:
        LeafFailed: The leaf failed its last try.
    """
    if payload.get(SENTINEL) != "done":
        text = payload.get("error") or "Cancelled: Hatchet cancelled the leaf"
        outcome: Any = decode_failure(text).outcome
        raise LeafFailed(outcome)
    record = decode_result(payload)
    outcome = record.outcome
    if isinstance(outcome, LeafFailure):
        raise LeafFailed(outcome)
    run_id = str(record.workflow_run_id)
    given = (
        LeafInput.model_validate(run_input(run_id))
        if sent is None
        else LeafInput.model_validate_json(sent)
    )
    spec = decode_spec(experiment.input_validator_type, given.spec)
    if experiment.options.inject_workflow_run_id:
        spec.workflow_run_id = run_id
    return _output(experiment.output_validator_type, outcome, spec, given.storage_settings)


def _output(
    output_type: type[OutputT],
    result: LeafResult,
    spec: ExperimentInputSpec,
    storage: ScytheStorageSettings | None,
) -> OutputT:
    def get_bytes(key: str) -> bytes:
        return open_store(store_config(storage)).get_bytes(key)

    tables: dict[str, Any] = {
        name: from_ipc(data if isinstance(data, bytes) else get_bytes(data)).to_pandas()
        for name, data in result.tables.items()
    }
    scalars = read_scalars(result, get_bytes)
    files = {name: uri for name, uri in result.files.items() if "." not in name}
    text = json.dumps({**scalars, **files})
    output = output_type.model_validate_json(text, by_alias=True, by_name=True)
    paths = [name for name in files if isinstance(getattr(output, name, None), Path)]
    output = output.replace_files({name: S3Url(files[name]) for name in paths})
    tables |= _own_tables(spec, scalars, result.files)
    return output.model_copy(update={"dataframes": tables})


def _own_tables(
    spec: ExperimentInputSpec, scalars: dict[str, Any], files: dict[str, Any]
) -> dict[str, Any]:
    """Return the tables that Scythe makes of a leaf's output, each with one row."""
    import pandas as pd

    index = spec.make_multiindex(n_rows=1, include_sort_subindex=False)
    rows = {"scalars": scalars, "result_file_refs": files}
    return {name: pd.DataFrame([row], index=index) for name, row in rows.items() if row}


def mock_single(experiment: Any, given: Any) -> Any:
    """Run a leaf in this process, without Hatchet; see `Experiment.mock_run`."""
    spec = as_spec(experiment.input_validator_type, given).model_copy()
    if experiment.options.inject_workflow_run_id:
        spec.workflow_run_id = str(uuid.uuid4())
    with tempfile.TemporaryDirectory(prefix="scythe-tempdir-") as name:
        folder = Path(name)
        call = {"tempdir": folder} if experiment.takes_tempdir else {}
        output = experiment.call(_with_files(experiment, spec, folder), **call)
        output, files = _upload(spec, output, folder)
    scalars = output.scalar_fields
    tables = {**output.dataframes, **_own_tables(spec, scalars, files)}
    return output.model_copy(update={"dataframes": tables})


def _with_files(experiment: Any, spec: Any, folder: Path) -> Any:
    options = experiment.options
    if not options.auto_fetch_files:
        return spec
    copies = options.local_file_location == "copied-to-tempdir"
    files = fetch_inputs(spec, spec.fetch_uri, folder if copies else None)
    return spec.with_local_files(files)


def _upload(spec: Any, output: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
    """Upload the files of an output, if the spec says where to."""
    if spec.storage_settings is None:
        remote = output.remote_artifact_file_paths
        return output, {name: str(uri) for name, uri in remote.items()}
    store = open_store(store_config(spec.storage_settings))
    uploads = OutputFiles(store, spec.construct_output_key, folder)
    return output.replace_files(uploads.upload(output)), uploads.uris
