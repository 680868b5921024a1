"""The worker: what to serve, with how many slots, under which name."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

from pydantic import Field, PositiveInt, PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from scythe.durations import Duration
from scythe.errors import ScytheError, SettingsError, SettingsExit, WorkerExit, WorkerStartError
from scythe.experiment import Experiment
from scythe.labels import ScytheWorkerLabel
from scythe.locate import is_importing
from scythe.parts.plan import PartPlan, Work
from scythe.parts.worker_run import WorkerRun
from scythe.registry import ExperimentFunction, ExperimentRegistry
from scythe.settings import check_limits, explain_values

__all__ = ["ScytheWorkerConfig", "ScytheWorkerLabel", "WorkerNameConfig"]

_PREFIX = "SCYTHE_WORKER_"
logger = logging.getLogger("scythe.worker")


class WorkerNameConfig(BaseSettings):
    """The worker's name, by the environment that hosts it."""

    model_config = SettingsConfigDict(env_ignore_empty=True)

    FLY_REGION: str | None = None
    AWS_BATCH_JOB_ARRAY_INDEX: int | None = None
    COPILOT_ENVIRONMENT_NAME: str | None = None

    @property
    def in_aws_batch(self) -> bool:
        """Whether this is a job of an AWS Batch array."""
        return self.AWS_BATCH_JOB_ARRAY_INDEX is not None

    @property
    def in_aws_copilot(self) -> bool:
        """Whether AWS Copilot runs this."""
        return self.COPILOT_ENVIRONMENT_NAME is not None

    @property
    def in_aws(self) -> bool:
        """Whether this runs on AWS, as far as can be told."""
        return self.in_aws_batch or self.in_aws_copilot

    @property
    def in_fly(self) -> bool:
        """Whether this runs on Fly.io."""
        return self.FLY_REGION is not None

    @property
    def in_local(self) -> bool:
        """Whether this runs nowhere in particular."""
        return not (self.in_aws or self.in_fly)

    @property
    def aws_hosting_str(self) -> str:
        """`AWSBatch0001`, `AWSCopilotPROD`, or both in one; empty elsewhere."""
        batch = f"Batch{self.AWS_BATCH_JOB_ARRAY_INDEX:04d}" if self.in_aws_batch else ""
        copilot = (self.COPILOT_ENVIRONMENT_NAME or "").upper()
        return f"AWS{batch}{'Copilot' + copilot if self.in_aws_copilot else ''}" * self.in_aws

    @property
    def fly_hosting_str(self) -> str:
        """`FlyIAD`, or empty elsewhere."""
        return f"Fly{(self.FLY_REGION or '').upper()}" * self.in_fly

    @property
    def hosting_str(self) -> str:
        """Where this runs, for the name."""
        return self.aws_hosting_str or self.fly_hosting_str or "Local"

    @property
    def name(self) -> str:
        """The worker's name, such as `ScytheWorker--FlyIAD`."""
        return f"ScytheWorker--{self.hosting_str}"


class ScytheWorkerConfig(BaseSettings):
    """What a worker serves, and how. Reads the variables `SCYTHE_WORKER_…`.

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
            super().__init__(**_lower_case(values))
        except ValidationError as error:
            in_thread = threading.current_thread() is not threading.main_thread()
            kind = SettingsError if in_thread else SettingsExit  # one ends a thread without a word
            raise kind(_explain(error)) from error

    def __getattr__(self, name: str) -> Any:
        if name.isupper() and name.lower() in type(self).model_fields:
            return getattr(self, name.lower())
        return super().__getattr__(name)  # type: ignore[misc] - pydantic hides it from checkers

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
        for experiment in experiments:
            _register(experiment)
        base = PartPlan(
            name=self.computed_name,
            executor=self.executor,
            slots=self.slots,
            default_slots=self.computed_slots,
            durable_slots=self.computed_durable_slots,
            labels={name: str(value) for name, value in self.labels.items()},
            shutdown_timeout=self.shutdown_timeout.total_seconds(),
        )
        work = Work(ExperimentRegistry.experiments(), ExperimentRegistry.included(), workflows)
        self._run = WorkerRun(base, work, fan=self.does_fan, leaf=self.does_leaf)
        check_limits()
        _warn_of_unknown_variables()
        try:
            return self._run.run()
        finally:
            self._run = None


def _register(item: Any) -> None:
    if isinstance(item, Experiment) or hasattr(item, "run"):
        ExperimentRegistry.Include(item)
    elif callable(item):
        function: ExperimentFunction = item
        ExperimentRegistry.Register()(function)
    else:
        raise WorkerStartError(
            f"start(experiments=[…]) takes functions, not {item!r}: pass the functions themselves."
        )


def _warn_of_unknown_variables() -> None:
    known = [f"{_PREFIX}{name.upper()}" for name in ScytheWorkerConfig.model_fields]
    for name in os.environ:
        if name.upper().startswith(_PREFIX) and name.upper() not in known:
            close = get_close_matches(name.upper(), known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}."
            logger.warning("%s is no setting of a worker: %s", name, hint)


def _is_imported_again() -> bool:
    """Return whether this runs while a process of the worker imports the user's code."""
    # What multiprocessing sets while it imports the main script, as `__mp_main__`.
    return getattr(multiprocessing.current_process(), "_inheriting", False) or is_importing()


def _lower_case(values: dict[str, Any]) -> dict[str, Any]:
    """Return keyword arguments under the names of the fields."""
    fields = ScytheWorkerConfig.model_fields
    named: dict[str, Any] = {}
    for key, value in values.items():
        name = key.lower() if key.isupper() and key.lower() in fields else key
        if name not in fields and not name.startswith("_"):  # such as `_env_file`
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
