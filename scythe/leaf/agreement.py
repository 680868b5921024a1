"""Checks that a leaf's process has the code with which its run was allocated."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from scythe.errors import CodeMismatchError, SchemaMismatchError
from scythe.experiment import Experiment
from scythe.outcomes import LeafCall, StoreConfig
from scythe.specs.fields import describe_differences, input_fields
from scythe.storage.layout import RunLayout
from scythe.storage.manifest import from_yaml
from scythe.storage.store import open_store


def check_code(call: LeafCall, experiment: Experiment[Any, Any]) -> None:
    """Raise if the code of this process may not run a leaf.

    Raises:
        SchemaMismatchError: The input model has other fields than the run's; values of specs would
            be lost.
        CodeMismatchError: The code differs, and the run or the worker requires the same code.
    """
    run = call.run_code
    code = experiment.code
    if run is None:
        return
    if run.input_schema and experiment.input_schema not in ("", run.input_schema):
        stored = _stored_fields(call.store, call.experiment_id)
        differences = describe_differences(stored, experiment.input_fields)
        if differences:
            raise SchemaMismatchError(
                f"{experiment.input_validator_type.__name__} of this worker differs from the model "
                f"that the run was allocated with: {differences}. Start the worker with the code "
                "of the run, or allocate again."
            )
    is_other = code.fingerprint not in ("", run.fingerprint)
    if run.on_mismatch == "fail" and run.fingerprint and is_other:
        raise CodeMismatchError(
            f"The code of {experiment.name} in this worker is {_describe(code)}, and the run was "
            f"allocated with {run.fingerprint} (SCYTHE_CODE_MISMATCH=fail). Start the worker with "
            "the code of the run, or allocate again."
        )


@lru_cache(maxsize=64)
def _stored_fields(store: StoreConfig, experiment_id: str) -> dict[str, str]:
    """Read the fields of a run's input model. Cached."""
    key = RunLayout(store.prefix, experiment_id).io_spec
    return input_fields(from_yaml(open_store(store).get_bytes(key)))


def _describe(code: Any) -> str:
    details = ", ".join(
        f"{name} {value}"
        for name, value in (("version", code.version), ("commit", code.commit))
        if value
    )
    return f"{code.fingerprint} ({details})" if details else code.fingerprint
