"""Runs leaves: fetch their files, call the user's function, store its return value.

The same code runs in the leaf processes of all executors, without Hatchet.
"""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import OutputError, ScytheError
from scythe.experiment import Experiment
from scythe.leaf.agreement import check_code
from scythe.leaf.failure import failure_of
from scythe.leaf.meter import LeafMeter
from scythe.leaf.output import LeafOutput
from scythe.locate import find_experiment
from scythe.outcomes import LeafCall, LeafFailure, LeafResult
from scythe.settings import storage_settings_of
from scythe.specs.codec import decode_spec
from scythe.storage.fetch import begin_leaf, end_leaf, set_default_store
from scythe.storage.file_values import has_files
from scythe.storage.leaf_files import fetch_inputs
from scythe.storage.store import wait_for_room

_forks = 0  # number of forks since this module was imported
_has_begun = False


def _note_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_note_fork)  # cheaper than os.getpid() in every leaf
# References from before user code runs, which may replace these functions.
_exit = os._exit
_working_folder = os.getcwd
_enter = os.chdir
_make_folders = os.makedirs
_TEMPDIR = "scythe-tempdir-"
INLINE_BYTES = 32 * 1024  # of tables, and of scalars; larger ones go to the bucket


def has_begun() -> bool:
    """Return whether the function of the current leaf or batch has been called."""
    return _has_begun


def forget_begun() -> None:
    """Record that another leaf or batch is being prepared."""
    global _has_begun
    _has_begun = False


def run_leaf(call: LeafCall, parent_folder: str | None = None) -> LeafResult | LeafFailure:
    """Run one attempt of a leaf. Whatever the leaf raises becomes its outcome.

    Restores the working directory and the environment of the process.

    Args:
        call: The attempt.
        parent_folder: Parent of the leaf's `tempdir`, which another process removes if this one is
            killed. By default the system's folder for temporary files.

    Raises:
        BaseException: Something failed outside of the user's function, so the process is damaged.
    """
    forget_begun()
    meter = LeafMeter()
    meter.start()
    try:
        text = call.spec
        if call.spec_row is not None:
            from scythe.specs.file import read_spec_text

            text = read_spec_text(call.store, *call.spec_row)
        runner = LeafRunner(call, find_experiment(call.code), meter, parent_folder)
    except ScytheError as error:
        return failure_of(error, meter)
    else:
        return runner.run(text, call.leaf_id, call.workflow_run_id)
    finally:
        end_leaf()
        meter.close()


class LeafRunner:
    """Runs leaves of one experiment in this process, one after another.

    Args:
        call: The settings of all leaves.
        experiment: The experiment.
        meter: Measures them.
        parent_folder: See `run_leaf`.
        inline_bytes: Size up to which tables, and scalars, travel with the result.

    Raises:
        MismatchError: The code of this process may not run leaves of this run.
    """

    def __init__(
        self,
        call: LeafCall,
        experiment: Experiment[Any, Any],
        meter: LeafMeter,
        parent_folder: str | None,
        inline_bytes: int = INLINE_BYTES,
    ) -> None:
        wait_for_room()
        self._experiment = experiment
        self._meter = meter
        meter.code = experiment.code.text
        check_code(call, experiment)
        self._output = LeafOutput(call.experiment_id, call.store, inline_bytes)
        self._timeout = call.timeout
        self._parent_folder = parent_folder
        self._forks = _forks
        self._injects = experiment.options.inject_workflow_run_id
        self._copies = experiment.options.local_file_location == "copied-to-tempdir"
        has_inputs = has_files(experiment.input_validator_type)
        self._fetches = has_inputs and experiment.options.auto_fetch_files
        self._place = _ProcessPlace()
        set_default_store(call.store)
        settings = storage_settings_of(call.store.bucket, call.store.prefix)
        self._known: dict[str, Any] = {"storage_settings": settings.model_copy()}
        if call.root_workflow_run_id:
            self._known["root_workflow_run_id"] = call.root_workflow_run_id

    def run(self, text: str, leaf_id: str, workflow_run_id: str | None) -> LeafResult | LeafFailure:
        """Run one leaf. Whatever it raises becomes its outcome.

        Args:
            text: Its spec.
            leaf_id: Unique in its run; safe as a file name.
            workflow_run_id: Hatchet's id of the leaf.

        Raises:
            BaseException: As `run_leaf`.
        """
        begin_leaf(self._meter.start() + self._timeout)
        folder = self._new_folder() if self._experiment.takes_tempdir else None
        try:
            spec = self._spec(text, workflow_run_id)
            output = self._call_function(spec, folder)
            return self._output.result(leaf_id, spec, output, self._meter, folder)
        except BaseException as error:  # noqa: BLE001 - sys.exit and KeyboardInterrupt are outcomes too
            return failure_of(error, self._meter)
        finally:
            self._place.restore()
            if folder is not None:
                rmtree(folder, ignore_errors=True)

    def _new_folder(self) -> Path:
        """Make a leaf's folder, and its parent if a leaf or a cleaner has removed that."""
        try:
            return Path(mkdtemp(prefix=_TEMPDIR, dir=self._parent_folder))
        except FileNotFoundError:
            if self._parent_folder is None:
                raise
            _make_folders(self._parent_folder, 0o700, exist_ok=True)
            return Path(mkdtemp(prefix=_TEMPDIR, dir=self._parent_folder))

    def _spec(self, text: str, workflow_run_id: str | None) -> ExperimentInputSpec:
        spec: ExperimentInputSpec = decode_spec(self._experiment.input_validator_type, text)
        # Like `model_copy`, without the copy, because the spec is not shared.
        values = vars(spec)
        known = spec.__pydantic_fields_set__
        values.update(self._known)
        known.update(self._known)
        if self._injects and workflow_run_id:
            values["workflow_run_id"] = workflow_run_id
            known.add("workflow_run_id")
        return spec

    def _call_function(
        self, spec: ExperimentInputSpec, folder: Path | None
    ) -> ExperimentOutputSpec:
        global _has_begun
        experiment = self._experiment
        given = self._with_files(spec, folder) if self._fetches else spec
        _has_begun = True
        try:
            if folder is None:
                output = experiment.call(given)
            else:
                output = experiment.call(given, tempdir=folder)
        except BaseException:
            if self._forks != _forks:
                traceback.print_exc()
                _exit(1)  # a fork made by the user's code; it must not send a second result
            raise
        if self._forks != _forks:
            _exit(0)
        expected = experiment.output_validator_type
        if type(output) is not expected and not isinstance(output, expected):
            raise OutputError(
                f"{experiment.fn.__qualname__} returned {type(output).__name__}, not "
                f"{expected.__name__}. Return an instance of that class."
            )
        return output

    def _with_files(self, spec: ExperimentInputSpec, folder: Path | None) -> ExperimentInputSpec:
        """Return the spec with its files downloaded and their URIs replaced by local paths."""
        copies_to = folder if self._copies else None
        return spec.with_local_files(fetch_inputs(spec, spec.fetch_uri, copies_to))


class _ProcessPlace:
    """Saves and restores the working directory and the environment of this process."""

    def __init__(self) -> None:
        self._folder = _working_folder()
        # The bytes behind `os.environ`, since decoding it takes longer than a short leaf.
        self._environ = os.environ
        self._table: dict[Any, Any] = vars(os.environ)["_data"]
        self._before = dict(self._table)

    def restore(self) -> None:
        """Restore both; create the working directory again if it is gone."""
        environ = self._environ
        os.environ = environ  # noqa: B003 - restore the original object
        if self._table != self._before or vars(environ)["_data"] is not self._table:
            environ.clear()
            environ.update({os.fsdecode(k): os.fsdecode(v) for k, v in self._before.items()})
            self._table = vars(environ)["_data"]
        try:
            moved = _working_folder() != self._folder
        except OSError:  # the leaf has removed it
            moved = True
        if moved:
            enter_folder(self._folder)


def enter_folder(folder: str) -> None:
    """Make a folder the working directory, creating it if it is gone."""
    try:
        _enter(folder)
    except FileNotFoundError:
        _make_folders(folder, exist_ok=True)
        _enter(folder)
