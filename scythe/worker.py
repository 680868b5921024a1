"""The worker: what to serve, with how many slots, under which name."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

from pydantic import Field, PositiveInt, PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from scythe.durations import Duration
from scythe.environment import check_installation, prepare_environment
from scythe.errors import ScytheError, SettingsError, SettingsExit, WorkerExit, WorkerStartError
from scythe.experiment import Experiment
from scythe.labels import ScytheWorkerLabel
from scythe.locate import is_importing
from scythe.registry import ExperimentFunction, ExperimentRegistry
from scythe.scatter.standalone import HatchetTask
from scythe.settings import check_limits, explain_values
from scythe.storage.cache import check_cache
from scythe.worker_processes.names import WorkerNameConfig, free_worker_name
from scythe.worker_processes.process_spec import ProcessSpec, Work
from scythe.worker_processes.worker_run import WorkerRun

__all__ = ["ScytheWorkerConfig", "ScytheWorkerLabel", "WorkerNameConfig"]

_PREFIX = "SCYTHE_WORKER_"
logger = logging.getLogger("scythe.worker")


class ScytheWorkerConfig(BaseSettings):
    """The configuration of a worker, read from arguments and the variables `SCYTHE_WORKER_…`.

    The upper-case spelling of scythe-engine works too: `ScytheWorkerConfig(SLOTS=4).SLOTS`.

    Usage:
        if __name__ == "__main__":
            ScytheWorkerConfig().start()

    Raises:
        SettingsError: A value makes no sense, or there is no such setting.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_ignore_empty=True, extra="forbid", validate_assignment=True
    )

    executor: str = Field(
        default="local", description="Where leaves run: `local`, or `ray` for a cluster."
    )
    name: str | None = Field(
        default=None, description="The worker's name; by default made of where it runs."
    )
    slots: PositiveInt | None = Field(
        default=None,
        description="Leaves that run at one time; by default the number of CPUs, from 8 on one "
        "less. With the executor `ray`, the CPUs that Ray reports.",
    )
    durable_slots: PositiveInt | None = Field(
        default=None,
        description="Scatter nodes and other durable tasks at one time; by default 1000.",
    )
    high_memory: bool = Field(default=False, description="Whether the worker has high memory.")
    high_cpu: bool = Field(default=False, description="Whether the worker has high CPU.")
    has_gpu: bool = Field(default=False, description="Whether the worker has a GPU.")
    does_fan: bool = Field(
        default=True, description="Whether the worker handles scatter and gather."
    )
    does_leaf: bool = Field(default=True, description="Whether the worker handles experiments.")
    shutdown_timeout: Duration = Field(
        default=timedelta(seconds=30),
        description="How long running leaves may take to finish when the worker stops.",
    )
    WORKER_NAME_CONFIG: WorkerNameConfig = Field(
        default_factory=WorkerNameConfig, description="What the default name is made of."
    )

    _run: WorkerRun | None = PrivateAttr(default=None)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**_lower_case(type(self), values))
            self._take_upper_case()
        except ValidationError as error:
            in_thread = threading.current_thread() is not threading.main_thread()
            kind = SettingsError if in_thread else SettingsExit  # one ends a thread without a word
            raise kind(_explain(error)) from error

    def __getattr__(self, name: str) -> Any:
        if name.isupper() and name.lower() in type(self).model_fields:
            return getattr(self, name.lower())
        return super().__getattr__(name)  # type: ignore[misc] - pydantic hides it from checkers

    def _take_upper_case(self) -> None:
        """Take what a subclass says of a setting as scythe-engine spells it: `SLOTS: int = 4`."""
        for name in type(self).model_fields:
            lower = name.lower()
            given = self.model_fields_set
            if name.isupper() and lower in type(self).model_fields and not given & {lower} - {name}:
                setattr(self, lower, self.__dict__[name])

    def __setattr__(self, name: str, value: Any) -> None:
        lower = name.lower()
        try:
            super().__setattr__(lower if lower in type(self).model_fields else name, value)
        except ValidationError as error:
            raise SettingsError(_explain(error)) from error

    @property
    def labels(self) -> dict[str, str | int]:
        """The labels of the worker, by which experiments are routed to it."""
        flags = {
            ScytheWorkerLabel.HIGH_MEMORY: self.high_memory,
            ScytheWorkerLabel.HIGH_CPU: self.high_cpu,
            ScytheWorkerLabel.HAS_GPU: self.has_gpu,
        }
        return {label.value: label.yes for label, is_set in flags.items() if is_set}

    @property
    def computed_slots(self) -> int:
        """The slots as given, else those of this machine's CPUs (Ray reports its own)."""
        from scythe.local.slots import default_slots

        return self.slots if self.slots is not None else default_slots()[0]

    @property
    def _own_slots(self) -> int | None:
        """The slots that the user asks for, also by a `computed_slots` of their own."""
        is_theirs = type(self).computed_slots is not ScytheWorkerConfig.computed_slots
        return self.computed_slots if is_theirs else self.slots

    @property
    def computed_durable_slots(self) -> int:
        """The durable slots as given, else 1000."""
        return self.durable_slots if self.durable_slots is not None else 1000

    @property
    def computed_name(self) -> str:
        """The name as given, else one made of where the worker runs."""
        return self.name or self.WORKER_NAME_CONFIG.name

    def start(
        self,
        experiments: Sequence[ExperimentFunction] | None = None,
        additional_workflows: Sequence[Any] | None = None,
    ) -> None:
        """Serve until SIGTERM, Ctrl-C or `stop()`.

        In a process that imports the script again only for its definitions, this does nothing:
        also a script that does not guard it with `if __name__ == "__main__":` works.

        Args:
            experiments: Functions to register, in addition to those registered already.
            additional_workflows: Hatchet tasks and workflows to serve as well.

        Raises:
            WorkerExit: The worker cannot start, or a part of it keeps dying. In a script this is
                one line on standard error and exit code 1.
            SystemExit: It was told a second time to stop, and did so at once.
        """
        if _is_imported_again():
            return
        try:
            forced_by = self._serve(experiments or (), additional_workflows or ())
        except ScytheError as error:
            if threading.current_thread() is not threading.main_thread():
                raise  # a thread that ends with an exit says nothing
            raise WorkerExit(str(error)) from error
        except KeyboardInterrupt:
            forced_by = signal.SIGINT  # before any part was started
        if forced_by is not None:
            raise SystemExit(128 + forced_by)

    def stop(self) -> None:
        """Stop a started worker from another thread: gracefully, and the second time at once."""
        if self._run is not None:
            self._run.stop()

    def _serve(self, experiments: Sequence[Any], workflows: Sequence[Any]) -> int | None:
        check_installation(warn=logger.warning)
        for experiment in [*experiments, *(one for one in workflows if _is_experiment(one))]:
            _register(experiment)
        check_cache()
        prepare_environment()
        name = self.computed_name
        with nullcontext(name) if self.name else free_worker_name(name) as free_name:
            return self._run_as(free_name, [one for one in workflows if not _is_ours(one)])

    def _run_as(self, name: str, workflows: Sequence[Any]) -> int | None:
        base = ProcessSpec(
            name=name,
            executor=self.executor,
            slots=self._own_slots,
            default_slots=self.computed_slots,
            durable_slots=self.computed_durable_slots,
            labels={name: str(value) for name, value in self.labels.items()},
            shutdown_timeout=self.shutdown_timeout.total_seconds(),
        )
        work = Work(ExperimentRegistry.experiments(), ExperimentRegistry.included(), workflows)
        self._run = WorkerRun(base, work, fan=self.does_fan, leaf=self.does_leaf)
        check_limits()
        _warn_of_unknown_variables(type(self).model_fields)
        try:
            return self._run.run()
        finally:
            self._run = None


def _is_experiment(item: Any) -> bool:
    return isinstance(item, Experiment)


def _is_ours(item: Any) -> bool:
    """Return whether a worker serves it anyway: an experiment, or `scatter_gather`."""
    return isinstance(item, HatchetTask)


def _register(item: Any) -> None:
    if _is_experiment(item) or hasattr(item, "run"):
        ExperimentRegistry.Include(item)
    elif callable(item):
        function: ExperimentFunction = item
        ExperimentRegistry.Register()(function)
    else:
        raise WorkerStartError(
            f"start(experiments=[…]) takes functions, not {item!r}: pass the functions themselves."
        )


def _warn_of_unknown_variables(fields: Mapping[str, Any]) -> None:
    known = list(dict.fromkeys(f"{_PREFIX}{name.upper()}" for name in fields))
    for name in os.environ:
        if name.upper().startswith(_PREFIX) and name.upper() not in known:
            close = get_close_matches(name.upper(), known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}."
            logger.warning("%s is no setting of a worker: %s", name, hint)


def _is_imported_again() -> bool:
    """Return whether this runs while a process of the worker imports the user's code."""
    # What multiprocessing sets while it imports the main script, as `__mp_main__`.
    return getattr(multiprocessing.current_process(), "_inheriting", False) or is_importing()


def _lower_case(cls: type[ScytheWorkerConfig], values: dict[str, Any]) -> dict[str, Any]:
    """Return keyword arguments under the names of the fields."""
    fields = cls.model_fields
    has_own = cls is not ScytheWorkerConfig  # which may have other names too
    named: dict[str, Any] = {}
    for key, value in values.items():
        is_setting = key in fields or key.lower() not in fields
        name = key if is_setting or not key.isupper() else key.lower()
        if name not in fields and not (has_own or name.startswith("_")):  # such as `_env_file`
            close = get_close_matches(name.lower(), fields, n=1)
            hint = f"did you mean `{close[0]}`? " if close else ""
            raise SettingsError(
                f"ScytheWorkerConfig has no setting {key!r}: {hint}There are {', '.join(fields)}."
            )
        if name in named:
            raise SettingsError(f"ScytheWorkerConfig got {name!r} twice: pass it in one spelling.")
        named[name] = value
    return named


def _explain(error: ValidationError) -> str:
    """Say which settings are wrong, by the names of their variables."""

    def name_of(field: str) -> str:
        known = field in ScytheWorkerConfig.model_fields
        return f"{_PREFIX}{field.upper()} (`{field}`)" if known else field

    return explain_values(error, name_of)
