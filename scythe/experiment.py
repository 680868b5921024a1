"""An experiment: a typed function with its models and options."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from datetime import timedelta
from difflib import get_close_matches
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import CoroutineType
from typing import Any, Generic, Literal, TypeVar, cast, get_type_hints

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.durations import parse_timeout
from scythe.engine.tasks import leaf_task
from scythe.errors import RegistrationError
from scythe.messages import LeafInput
from scythe.options import TASK_OPTIONS, ExperimentOptions
from scythe.outcomes import LeafResources
from scythe.provenance.identity import CodeIdentity, identify
from scythe.provenance.sources import remember_sources
from scythe.scatter.registration import make_experiment_known
from scythe.scatter.standalone import HatchetTask
from scythe.scatter.tree import AUTO
from scythe.settings import TimeoutSettings
from scythe.single import mock_single, read_single, served_here, spec_payload
from scythe.specs.fields import fields_digest, input_fields
from scythe.storage.manifest import io_schema

TInput = TypeVar("TInput", bound=ExperimentInputSpec)
TOutput = TypeVar("TOutput", bound=ExperimentOutputSpec)

ExperimentFunction = Callable[..., Any]
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_OPTIONS = ("name", *(one.name for one in fields(ExperimentOptions) if one.name != "task_config"))


class Experiment(HatchetTask[TOutput], Generic[TInput, TOutput]):
    """A registered experiment. Calling it calls the plain function, without any server.

    Attributes:
        fn: The user's function.
        name: Its name in Hatchet and in the bucket.
        options: The options for its leaves.
        input_validator_type: The class of its input.
        output_validator_type: The class of its output.
        takes_tempdir: Whether the function takes a `tempdir`.
    """

    def __init__(
        self,
        fn: Callable[..., TOutput],
        name: str | None = None,
        options: ExperimentOptions | None = None,
    ) -> None:
        _check_function(fn)
        self.fn = fn
        self.name = name or f"scythe_experiment_{fn.__name__}"
        self.options = options or ExperimentOptions()
        _check_options(self.name, self.options)
        hints = _type_hints(fn)
        self._parameter, self.takes_tempdir = _parameters(fn)
        _batch_size(self.options.batch_size)
        self.input_validator_type = cast(
            "type[TInput]", _model(fn, hints, self._parameter, ExperimentInputSpec)
        )
        self.output_validator_type = cast(
            "type[TOutput]", _model(fn, hints, "return", ExperimentOutputSpec)
        )
        if (
            self.options.auto_fetch_files
            and self.options.local_file_location == "copied-to-tempdir"
            and not self.takes_tempdir
        ):
            raise RegistrationError(
                f"Function {fn.__qualname__} does not accept tempdir, so local_file_location must "
                "be 'cache': add the parameter `tempdir: Path` or leave local_file_location out."
            )
        self.__name__ = fn.__name__
        self.__qualname__ = fn.__qualname__
        self.__module__ = fn.__module__
        self.__doc__ = fn.__doc__
        remember_sources()

    def __call__(self, *args: Any, **kwargs: Any) -> TOutput:
        """Call the user's function."""
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Experiment({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _bare, (), vars(self)

    @property
    def description(self) -> str:
        """The description of the experiment, or else the docstring of its function."""
        return self.options.description or inspect.getdoc(self.fn) or ""

    @cached_property
    def code(self) -> CodeIdentity:
        """The identity of its code, as imported by this process."""
        return identify(self.fn)

    @cached_property
    def input_fields(self) -> dict[str, str]:
        """The type of each field of its input, see `scythe.specs.fields`."""
        return input_fields(io_schema(self.input_validator_type, None))

    @cached_property
    def input_schema(self) -> str:
        """Hash of the input model's fields; empty if it has no schema."""
        try:
            return fields_digest(self.input_fields)
        except Exception:  # noqa: BLE001 - a user's type that pydantic cannot describe
            return ""

    @property
    def execution_timeout(self) -> timedelta:
        """The time limit of one attempt of a leaf."""
        given = self.options.execution_timeout
        return parse_timeout(given) if given else TimeoutSettings().EXPERIMENT_EXECUTION

    @property
    def schedule_timeout(self) -> timedelta:
        """The time for which a leaf may wait for a slot."""
        given = self.options.schedule_timeout
        return parse_timeout(given) if given else TimeoutSettings().EXPERIMENT_SCHEDULE

    def call(self, spec: TInput, **kwargs: Any) -> TOutput:
        """Call the function with the spec as the parameter that is not `tempdir`."""
        result: Any = self.fn(**{self._parameter: spec}, **kwargs)
        if isinstance(result, CoroutineType):
            result = asyncio.run(result)
        return result

    def make_standalone(self) -> Any:
        """Make the SDK's object, for workers that are made with Hatchet's SDK."""
        return leaf_task(self, served_here(self))

    def make_known(self) -> None:
        """Register the experiment with the engine, if no worker has done so."""
        make_experiment_known(self)

    def payload(self, given: Any) -> LeafInput:
        """Encode a spec for Hatchet, or raise `SpecError`."""
        return spec_payload(self.input_validator_type, given)

    def metadata(self, payload: Any) -> dict[str, Any]:  # noqa: ARG002
        """Return the metadata of a leaf outside of a run."""
        return {"experiment_name": self.name}

    def read_output(self, output: dict[str, Any], sent: str | None) -> TOutput:
        """Read the output of a leaf, or raise `LeafFailed`."""
        return read_single(self, output, sent)

    def mock_run(self, input: Any, **_: Any) -> TOutput:  # noqa: A002 - the SDK's name
        """Run one leaf in this process, without Hatchet.

        Its outputs are also in `dataframes["scalars"]`, as with a leaf in Hatchet. Files are
        uploaded only if the spec has `storage_settings`; otherwise they stay in the leaf's
        `tempdir`, which is removed.

        Args:
            input: The spec.
            **_: Other arguments of Hatchet's `mock_run`, which are ignored.
        """
        return mock_single(self, input)

    async def aio_mock_run(self, input: Any, **options: Any) -> TOutput:  # noqa: A002
        """Run one leaf in a thread of this process, see `mock_run`."""
        return await asyncio.to_thread(self.mock_run, input, **options)

    def map_local(
        self, specs: Any, *, processes: int | None = None, folder: Path | None = None
    ) -> dict[str, Any]:
        """Run many leaves in processes of this machine, without Hatchet and without a bucket.

        For tests and first tries: what has run is lost where this process ends before all have.

        Args:
            specs: As those of `allocate`.
            processes: How many leaves run at one time; by default as many as there are CPUs.
            folder: Where files that leaves leave are kept; by default a folder that is removed
                when this process ends.

        Returns:
            The tables that a run would have, by name, as pandas has them. A leaf that failed is a
            row of `errors`.

        Raises:
            SpecError: A spec is wrong.
        """
        run = import_module(
            "scythe.worker_processes.map_local"
        ).map_local  # executors know experiments
        return run(self, specs, processes, folder)


def _bare() -> Experiment[Any, Any]:
    return object.__new__(Experiment)


def _check_function(fn: Any) -> None:
    if isinstance(fn, type) or not (callable(fn) and hasattr(fn, "__qualname__")):
        raise RegistrationError(
            f"{fn!r} is not a function (a class, a partial or an object cannot be found again by "
            "its name in another process): wrap it in a function with annotations."
        )
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise RegistrationError(
            f"{fn.__qualname__} yields, so that calling it gives a generator: return one output."
        )


def leaf_resources(given: LeafResources | Mapping[str, Any] | None) -> LeafResources:
    """Return the resources of a leaf, also from a dict such as `{"cpus": 2}`.

    Raises:
        RegistrationError: A resource is unknown, or an amount is invalid.
    """
    if isinstance(given, LeafResources):
        return given
    try:
        return LeafResources(**(given or {}))
    except ValueError as error:
        raise RegistrationError(str(error)) from None
    except TypeError:
        known = ", ".join(one.name for one in fields(LeafResources))
        raise RegistrationError(
            f"resources={given!r} is not a LeafResources: give one, or a dict with some of {known}."
        ) from None


def check_name(name: str) -> None:
    """Raise `RegistrationError` unless an experiment may have this name.

    The name is used for a folder in the bucket and a task in Hatchet, and in shell commands.
    """
    if not _NAME.fullmatch(name):
        raise RegistrationError(
            f"{name!r} cannot be the name of an experiment: use letters from a to z, digits, '_', "
            "'-' and '.', at most 200 of them, as in Register(name=\"roof_2\")."
        )


def check_task_options(given: Iterable[str]) -> None:
    """Raise `RegistrationError` if a keyword of `Register` is not one of Hatchet's either."""
    unknown = sorted(set(given) - TASK_OPTIONS)
    if unknown:
        close = get_close_matches(unknown[0], [*TASK_OPTIONS, *_OPTIONS], n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(_OPTIONS)}."
        raise RegistrationError(f"Register() has no option {unknown[0]!r}: {hint}")


def _check_options(name: str, options: ExperimentOptions) -> None:
    for what in ("schedule_timeout", "execution_timeout"):
        given = getattr(options, what)
        try:
            _ = given is None or parse_timeout(given)
        except ValueError as error:
            raise RegistrationError(f"{name}: {what} {error}, got {given!r}.") from None
    retries: Any = options.retries
    if not isinstance(retries, int) or retries < 0:
        raise RegistrationError(f"{name}: retries={retries!r}: give a whole number, 0 or more.")
    _check_max_running(name, options)
    for label, value in (options.desired_worker_labels or {}).items():
        if not hasattr(value, "value"):
            raise RegistrationError(
                f"{name}: desired_worker_labels[{label!r}] is {value!r}: give a "
                "DesiredWorkerLabel, or unpack ScytheWorkerLabel.HAS_GPU.worker_label."
            )


def _check_max_running(name: str, options: ExperimentOptions) -> None:
    given: Any = options.max_running
    if given is None:
        return
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise RegistrationError(
            f"{name}: max_running={given!r} is not a number of leaves: give 1 or more."
        )
    if "concurrency" in options.task_config:
        raise RegistrationError(
            f"{name}: max_running and concurrency exclude each other, as both set how many leaves "
            "run at once: leave one out."
        )


def batch_size_of(runnable: Any, given: int | Literal["auto"] | None) -> int:
    """Return the batch size of a run; `AUTO` if it is to be measured.

    Args:
        runnable: The experiment, or a Hatchet task or workflow.
        given: The argument of `allocate`; None for the registered size.

    Raises:
        RegistrationError: The size is invalid, or the leaves are Hatchet tasks, without batches.
    """
    if not isinstance(runnable, Experiment):
        if given not in (None, 1):
            raise RegistrationError(
                f"{runnable.name} is a Hatchet task of your own, which takes one spec at a time: "
                "leave batch_size out."
            )
        return 1
    sizes = (_batch_size(given), _batch_size(runnable.options.batch_size), 1)
    size = next(size for size in sizes if size is not None)
    if size != 1 and runnable.options.resources.fresh_process:
        raise RegistrationError(
            f"{runnable.name} asks for a process of its own for each leaf (fresh_process), and a "
            "batch is one process for many: leave batch_size out, or fresh_process."
        )
    return size


def _batch_size(value: Any) -> int | None:
    if value is None:
        return None
    if value == "auto":
        return AUTO
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RegistrationError(
            f"batch_size={value!r} is not a number of leaves: give 1 or more (a batch that takes "
            'a few seconds is a good size), or "auto".'
        )
    return value


def _type_hints(fn: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(fn)
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        raise RegistrationError(
            f"The annotations of {fn.__qualname__} cannot be resolved ({error}): define the models "
            "at module level, or leave out `from __future__ import annotations` in that module."
        ) from error


def _parameters(fn: Callable[..., Any]) -> tuple[str, bool]:
    try:
        parameters = dict(inspect.signature(fn).parameters)
    except ValueError as error:
        raise RegistrationError(f"{fn.__qualname__} has no signature: {error}.") from error
    takes_tempdir = parameters.pop("tempdir", None) is not None
    required = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    if len(required) != 1 or parameters[required[0]].kind is inspect.Parameter.POSITIONAL_ONLY:
        raise RegistrationError(
            f"{fn.__qualname__} must take one spec (and, if it likes, `tempdir: Path`), but takes "
            f"{list(parameters) or 'nothing'}: put all inputs into one model, and that into a "
            "parameter with a name of its own."
        )
    return required[0], takes_tempdir


def _model(fn: Callable[..., Any], hints: dict[str, Any], name: str, base: type) -> type:
    hint = hints.get(name)
    if not (isinstance(hint, type) and issubclass(hint, base)):
        what = "its return value" if name == "return" else f"parameter `{name}`"
        raise RegistrationError(
            f"{fn.__qualname__} needs an annotation of {what} with a class that inherits from "
            f"{base.__name__}, found {hint!r}."
        )
    return hint
