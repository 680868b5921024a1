"""Run one leaf: fetch its files, call the user's function, store what it returns.

The same code runs in whatever process the executor picks, and needs no Hatchet.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.codec import decode_spec
from scythe.errors import (
    FetchError,
    OutputError,
    ResultFileRefsInDataframesError,
    ScalarInDataframesError,
)
from scythe.experiment import Experiment
from scythe.fetch import set_default_store
from scythe.layout import RunLayout, check_table_name
from scythe.locate import CodeNotFoundError, find_experiment
from scythe.outcomes import FailureKind, LeafCall, LeafFailure, LeafOutcome, LeafResult, LeafStats
from scythe.settings import ScytheStorageSettings
from scythe.store import open_store
from scythe.texts import printable

INLINE_BYTES = 32 * 1024  # of tables, and of scalars; what is larger goes to the bucket
_GPUS = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
_TRACEBACK_CHARS = 20_000
_MESSAGE_CHARS = 5_000
_OWN_FOLDER = str(Path(__file__).parent)


def run_leaf(call: LeafCall, parent_folder: str | None = None) -> LeafOutcome:
    """Run one try of a leaf to its end. Never raises: what goes wrong is the outcome.

    The working directory and the environment of the process are as before when it returns.

    Args:
        call: The try.
        parent_folder: Where the leaf's `tempdir` is made: a folder that somebody else removes, as
            a process that is killed cannot. By default the system's folder for such files.
    """
    started = time.time()
    _reset_peak_rss()
    try:
        with (
            _process_state_kept(),
            tempfile.TemporaryDirectory(
                prefix="scythe-leaf-", dir=parent_folder, ignore_cleanup_errors=True
            ) as folder,
        ):
            return _run(call, Path(folder), started)
    except BaseException as error:  # noqa: BLE001 - sys.exit and the like are outcomes too
        return _failure(error, started)


def _run(call: LeafCall, tempdir: Path, started: float) -> LeafResult:
    set_default_store(call.store)
    experiment = find_experiment(call.code)
    spec = _spec_of(call, experiment)
    arguments: dict[str, Any] = {"tempdir": tempdir} if experiment.takes_tempdir else {}
    with _forks_kept_out():
        output = experiment.call(_with_files(spec, experiment, tempdir), **arguments)
    if not isinstance(output, ExperimentOutputSpec):
        raise OutputError(
            f"{experiment.fn.__qualname__} returned {type(output).__name__}, not "
            f"{experiment.output_validator_type.__name__}: return an instance of that class."
        )
    files = _store_files(call, spec, output)
    stored = output.replace_files(files)
    tables = _tables(call, spec, stored)
    scalars, scalars_key = _scalars(call, stored)
    return LeafResult(
        scalars=scalars,
        files={name: str(uri) for name, uri in stored.remote_artifact_file_paths.items()} | files,
        tables=tables,
        stats=_stats(started),
        scalars_key=scalars_key,
    )


def _spec_of(call: LeafCall, experiment: Experiment[Any, Any]) -> ExperimentInputSpec:
    text = call.spec
    if call.spec_row is not None:
        from scythe.specs_file import read_spec_text

        text = read_spec_text(call.store, *call.spec_row)
    spec: ExperimentInputSpec = decode_spec(experiment.input_validator_type, text)
    update: dict[str, Any] = {
        "storage_settings": _storage_settings(call.store.bucket, call.store.prefix).model_copy()
    }
    if experiment.options.inject_workflow_run_id and call.workflow_run_id:
        update["workflow_run_id"] = call.workflow_run_id
    if call.root_workflow_run_id:
        update["root_workflow_run_id"] = call.root_workflow_run_id
    return spec.model_copy(update=update)


@lru_cache(maxsize=16)
def _storage_settings(bucket: str, prefix: str) -> ScytheStorageSettings:
    """Return the settings; to make them reads the environment, which takes as long as a leaf."""
    return ScytheStorageSettings(BUCKET=bucket, BUCKET_PREFIX=prefix)


def _with_files(
    spec: ExperimentInputSpec, experiment: Experiment[Any, Any], tempdir: Path
) -> ExperimentInputSpec:
    """Return the spec with local paths in place of the URIs of its files."""
    if not experiment.options.auto_fetch_files:
        return spec
    files = {name: spec.fetch_uri(uri) for name, uri in spec.remote_artifact_file_paths.items()}
    if experiment.options.local_file_location == "copied-to-tempdir":
        local = {**spec.local_artifact_file_paths, **files}
        files = {name: tempdir / f"{name}{path.suffix}" for name, path in local.items()}
        for name, path in local.items():
            shutil.copyfile(path, files[name])
    return spec.with_local_files(files)


def _store_files(
    call: LeafCall, spec: ExperimentInputSpec, output: ExperimentOutputSpec
) -> dict[str, str]:
    """Upload the local files of an output and return their URIs by field."""
    uris: dict[str, str] = {}
    for name, path in output.local_artifact_file_paths.items():
        if not path.is_file():
            what = "is a folder: pack it into one file" if path.is_dir() else "is not there"
            raise OutputError(
                f"Output file {name}={str(path)!r} {what}. Write it before the function returns."
            )
        key = RunLayout.below_prefix(call.store.prefix, spec.construct_output_key(name, path))
        uris[name] = open_store(call.store).put_file(key, path)
    return uris


def _scalars(call: LeafCall, output: ExperimentOutputSpec) -> tuple[str, str | None]:
    """Return the scalars as JSON, or store them where they are too large to travel."""
    text = json.dumps(output.scalar_fields)
    if len(text) <= INLINE_BYTES:
        return text, None
    key = RunLayout(call.store.prefix, call.experiment_id).leaf_scalars(call.leaf_id)
    open_store(call.store).put_bytes(key, text.encode())
    return "{}", key


def _tables(
    call: LeafCall, spec: ExperimentInputSpec, output: ExperimentOutputSpec
) -> dict[str, bytes | str]:
    """Turn the user's tables into Arrow, and store what is too large to travel with the result."""
    if "scalars" in output.dataframes:
        raise ScalarInDataframesError(output.dataframes["scalars"])
    if "result_file_refs" in output.dataframes:
        raise ResultFileRefsInDataframesError(output.dataframes["result_file_refs"])
    if not output.dataframes:
        return {}
    from scythe.tables import to_ipc
    from scythe.user_tables import storable, with_leaf_index

    index = spec.index_data()
    layout = RunLayout(call.store.prefix, call.experiment_id)
    tables: dict[str, bytes | str] = {}
    room = INLINE_BYTES
    for name, table in output.dataframes.items():
        check_table_name(name)
        data = to_ipc(with_leaf_index(storable(name, table), index))
        if len(data) <= room:
            room -= len(data)
            tables[name] = data
        else:
            key = layout.leaf_table(call.leaf_id, name)
            open_store(call.store).put_bytes(key, data)
            tables[name] = key
    return tables


def _failure(error: BaseException, started: float) -> LeafFailure:
    kind, message = FailureKind.APPLICATION, _message_of(error)
    if isinstance(error, CodeNotFoundError):
        kind = FailureKind.ENVIRONMENT
    elif isinstance(error, MemoryError):
        kind = FailureKind.OUT_OF_MEMORY
        message = message or f"the leaf's process used {peak_rss() / 1e9:.2f} GB"
    elif isinstance(error, SystemExit):
        message = f"the experiment called sys.exit({error.code!r})"
    elif isinstance(error, FetchError):
        message = f"{message} (an input file of the leaf)"
    return LeafFailure(
        kind=kind,
        type=type(error).__qualname__,
        message=printable(message[:_MESSAGE_CHARS]),
        traceback=format_traceback(error),
        stats=_stats(started),
    )


def format_traceback(error: BaseException) -> str:
    """Return the traceback as text from the user's first frame on, its end kept when it is long."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OWN_FOLDER):
        frames = frames.tb_next
    try:
        lines = traceback.format_exception(type(error), error, frames or error.__traceback__)
        text = "".join(lines)
    except Exception:  # noqa: BLE001 - a user's exception may fail to print itself
        text = "".join(traceback.format_tb(error.__traceback__)) + type(error).__qualname__
    return printable(text if len(text) <= _TRACEBACK_CHARS else f"…{text[-_TRACEBACK_CHARS:]}")


def _message_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:  # noqa: BLE001 - a user's exception may fail to print itself
        return f"(its message cannot be shown: {type(second).__name__})"


def _stats(started: float) -> LeafStats:
    return LeafStats(
        node=platform.node(),
        pid=os.getpid(),
        started=started,
        finished=time.time(),
        peak_rss=peak_rss(),
        gpus=next(filter(None, map(os.environ.get, _GPUS)), ""),
    )


def peak_rss() -> int:
    """Return the peak resident memory of this process in bytes, since the leaf began on Linux."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    factor = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * factor


def _reset_peak_rss() -> None:
    with suppress(OSError):  # not Linux: the peak is that of the process
        Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def _forks_kept_out() -> Generator[None]:
    """End a fork of the user's that comes back: it must not send a second result."""
    own, failed = os.getpid(), True
    try:
        yield
        failed = False
    finally:
        if os.getpid() != own:
            if failed:
                traceback.print_exc()
            os._exit(int(failed))


@contextmanager
def _process_state_kept() -> Generator[None]:
    """Give the next leaf of this process the working directory and environment of this one."""
    folder, environment = Path.cwd(), dict(os.environ)
    try:
        yield
    finally:
        if dict(os.environ) != environment:
            os.environ.clear()
            os.environ.update(environment)
        os.chdir(folder)
