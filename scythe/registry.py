"""The registry of the experiments of this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, ClassVar, Literal, TypeVar, overload

from scythe.errors import ExperimentTypeExists, ExperimentTypeNotFound, RegistrationError
from scythe.experiment import (
    Experiment,
    ExperimentFunction,
    TInput,
    TOutput,
    check_name,
    check_task_options,
    leaf_resources,
)
from scythe.options import ExperimentOptions, LocalFileLocation
from scythe.outcomes import LeafResources

__all__ = [
    "ExperimentFunction",
    "ExperimentFunctionWithTempdir",
    "ExperimentFunctionWithoutTempdir",
    "ExperimentRegistry",
    "ExperimentStandaloneType",
    "ExperimentTypeExists",
    "ExperimentTypeNotFound",
    "ExperimentWorkflowType",
    "TInput",
    "TOutput",
]

RunnableT = TypeVar("RunnableT")
ExperimentFunctionWithTempdir = ExperimentFunctionWithoutTempdir = ExperimentFunction
ExperimentStandaloneType = Experiment[Any, Any]
ExperimentWorkflowType = Any  # a Hatchet workflow


class ExperimentRegistry:
    """All experiments, and Hatchet tasks and workflows, that this process knows by name."""

    _experiments: ClassVar[dict[str, Experiment[Any, Any]]] = {}
    _included: ClassVar[dict[str, Any]] = {}

    @overload
    @classmethod
    def Include(cls, task: Experiment[TInput, TOutput]) -> Experiment[TInput, TOutput]: ...

    @overload
    @classmethod
    def Include(cls, task: RunnableT) -> RunnableT: ...

    @classmethod
    def Include(cls, task: Any) -> Any:
        """Register a Hatchet task or workflow whose input and output inherit from the base models.

        Args:
            task: A Hatchet standalone task or workflow, or an experiment.

        Returns:
            The task itself.

        Raises:
            ExperimentTypeExists: Something else has its name.
            RegistrationError: It is none of these.
        """
        name = getattr(task, "name", None)
        if not isinstance(name, str) or not hasattr(task, "run"):
            raise RegistrationError(
                f"Include() takes a Hatchet task or workflow, not {task!r}: decorate a plain "
                "function with @ExperimentRegistry.Register() instead."
            )
        known = cls._experiments.get(name) or cls._included.get(name)
        if known is not None and known is not task and not _same_source(known, task):
            raise ExperimentTypeExists(name)
        registry: dict[str, Any] = (
            cls._experiments if isinstance(task, Experiment) else cls._included
        )
        registry[name] = task
        return task

    @overload
    @classmethod
    def Register(cls, function: Callable[..., TOutput], /) -> Experiment[Any, TOutput]: ...

    @overload
    @classmethod
    def Register(
        cls, function: str | None = None, /, **options: Any
    ) -> Callable[[Callable[..., TOutput]], Experiment[Any, TOutput]]: ...

    @classmethod
    def Register(
        cls,
        function: Callable[..., Any] | str | None = None,
        /,
        *,
        worker: Any = None,
        description: str | None = None,
        name: str | None = None,
        desired_worker_labels: Mapping[str, Any] | None = None,
        schedule_timeout: timedelta | str | None = None,
        execution_timeout: timedelta | str | None = None,
        retries: int = 1,
        inject_workflow_run_id: bool = True,
        auto_fetch_files: bool = True,
        local_file_location: LocalFileLocation = "cache",
        resources: LeafResources | Mapping[str, Any] | None = None,
        batch_size: int | Literal["auto"] | None = None,
        reusable: bool = True,
        max_running: int | None = None,
        **task_config: Any,
    ) -> Any:
        """Make an experiment of a function that takes one spec and returns one output.

        Usage:
            @ExperimentRegistry.Register(retries=2)
            def simulate(input_spec: MyInput, tempdir: Path) -> MyOutput:
                ...

        Args:
            function: The function, where the decorator has no parentheses; or the name.
            worker: A Hatchet worker of your own that serves it, made with `hatchet.worker(...)`.
            description: What it does; the function's docstring by default.
            name: Its name in Hatchet and in the bucket; `scythe_experiment_<function>` by default.
            desired_worker_labels: Labels of the workers that may, or should, take its leaves.
            schedule_timeout: How long a leaf may wait (`SCYTHE_TIMEOUT_EXPERIMENT_SCHEDULE`).
            execution_timeout: How long a try may run (`SCYTHE_TIMEOUT_EXPERIMENT_EXECUTION`).
            retries: How often a leaf that failed is tried again.
            inject_workflow_run_id: Whether the spec gets the id of its Hatchet run.
            auto_fetch_files: Whether file references are fetched before the function is called.
            local_file_location: Whether fetched files are used from the shared cache, or copied
                to the leaf's `tempdir` (where they may be changed).
            resources: CPUs, GPUs, memory and custom resources of one leaf.
            batch_size: Leaves that one Hatchet task runs one after another, or "auto"; `allocate`
                may differ.
            reusable: Whether `allocate(reuse=...)` may take leaves over from another run; False
                for experiments that are random on purpose.
            max_running: How many of its leaves may run at once, over all workers and runs: for
                licences. A batch counts as one leaf.
            **task_config: Further options of a Hatchet task (`default_priority`, `concurrency`, …).

        Raises:
            RegistrationError: The function is not one that can be run as an experiment.
            ExperimentTypeExists: Another experiment has this name.
        """
        if isinstance(function, str):
            name = function if name is None else name
            function = None
        check_task_options(task_config)
        if not (worker is None or hasattr(worker, "register_workflow")):
            raise RegistrationError(
                f"worker={worker!r} is no Hatchet worker: leave it out, as "
                "ScytheWorkerConfig().start() serves all experiments that are registered."
            )
        options = ExperimentOptions(
            description=description,
            desired_worker_labels=desired_worker_labels,
            schedule_timeout=schedule_timeout,
            execution_timeout=execution_timeout,
            retries=retries,
            inject_workflow_run_id=inject_workflow_run_id,
            auto_fetch_files=auto_fetch_files,
            local_file_location=local_file_location,
            resources=leaf_resources(resources),
            batch_size=batch_size,
            reusable=reusable,
            max_running=max_running,
            task_config=task_config,
        )

        def decorator(fn: Callable[..., TOutput]) -> Experiment[Any, TOutput]:
            made = fn if isinstance(fn, Experiment) else Experiment(fn, name, options)
            check_name(made.name)
            experiment = cls.Include(made)
            if worker is not None:
                worker.register_workflow(experiment)
            return experiment

        return decorator if function is None else decorator(function)

    @classmethod
    def get_runnable(cls, name: str) -> Any:
        """Return the experiment, or the included task or workflow, of this name.

        Raises:
            ExperimentTypeNotFound: Nothing of this name is registered.
        """
        found = cls._experiments.get(name) or cls._included.get(name)
        if found is None:
            raise ExperimentTypeNotFound(name, [*cls._experiments, *cls._included])
        return found

    @classmethod
    def experiments(cls) -> list[Experiment[Any, Any]]:
        """Return the experiments made with `Register`."""
        return list(cls._experiments.values())

    @classmethod
    def included(cls) -> list[Any]:
        """Return the Hatchet tasks and workflows added with `Include`."""
        return list(cls._included.values())


def _same_source(one: Any, other: Any) -> bool:
    """Return whether two are made from one place in one file: a module that was imported twice."""
    codes = [getattr(getattr(item, "fn", None), "__code__", None) for item in (one, other)]
    places = [code and (code.co_filename, code.co_firstlineno, code.co_qualname) for code in codes]
    return places[0] is not None and places[0] == places[1]
