"""Registration: what is taken, what is refused and with which words."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import RegistrationError
from scythe.experiment import Experiment
from scythe.labels import ScytheWorkerLabel
from scythe.outcomes import LeafResources
from scythe.registry import ExperimentRegistry, ExperimentTypeExists, ExperimentTypeNotFound


class In(ExperimentInputSpec):
    x: float = 1


class Out(ExperimentOutputSpec):
    y: float = 0


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test see what another one, or another module, has registered."""
    monkeypatch.setattr(ExperimentRegistry, "_experiments", {})
    monkeypatch.setattr(ExperimentRegistry, "_included", {})


def simulate(input_spec: In) -> Out:
    """Simulate a wall."""
    return Out(y=2 * input_spec.x)


SPEC = In(experiment_id="e", sort_index=0, x=4)


def test_a_registered_function_is_still_a_function() -> None:
    experiment = ExperimentRegistry.Register()(simulate)
    assert experiment(SPEC).y == 8
    assert experiment(input_spec=SPEC).y == 8
    assert experiment.name == "scythe_experiment_simulate"
    assert experiment.__name__ == "simulate"
    assert experiment.__doc__ == experiment.description == "Simulate a wall."
    assert (experiment.input_validator_type, experiment.output_validator_type) == (In, Out)
    for method in ("run", "aio_run", "run_no_wait"):
        assert callable(getattr(experiment, method))
    assert ExperimentRegistry.get_runnable("scythe_experiment_simulate") is experiment
    assert ExperimentRegistry.experiments() == [experiment]
    assert "scythe_experiment_simulate" in repr(experiment)


def test_every_keyword_of_scythe_engine() -> None:
    experiment = ExperimentRegistry.Register(
        worker=None,
        description="Walls.",
        name="walls",
        desired_worker_labels=ScytheWorkerLabel.HAS_GPU.worker_label,
        schedule_timeout="2h",
        execution_timeout=timedelta(minutes=5),
        retries=3,
        inject_workflow_run_id=False,
        auto_fetch_files=False,
        local_file_location="cache",
        resources=LeafResources(gpus=0.5),
        batch_size=10,
        default_priority=2,
    )(simulate)
    assert (experiment.name, experiment.description) == ("walls", "Walls.")
    assert experiment.schedule_timeout == timedelta(hours=2)
    assert experiment.execution_timeout == timedelta(minutes=5)
    assert experiment.options.retries == 3
    assert not experiment.options.inject_workflow_run_id
    assert not experiment.options.auto_fetch_files
    assert experiment.options.resources.gpus == 0.5
    assert experiment.options.task_config == {"default_priority": 2}


def test_defaults_of_scythe_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = inspect.signature(ExperimentRegistry.Register).parameters
    defaults = {name: item.default for name, item in parameters.items()}
    assert defaults["retries"] == 1
    assert defaults["inject_workflow_run_id"] is defaults["auto_fetch_files"] is True
    assert defaults["local_file_location"] == "cache"
    experiment = ExperimentRegistry.Register()(simulate)
    assert experiment.execution_timeout == timedelta(hours=1)
    # Read when it is asked for, not at import.
    monkeypatch.setenv("SCYTHE_TIMEOUT_EXPERIMENT_EXECUTION", "90s")
    monkeypatch.setenv("SCYTHE_TIMEOUT_EXPERIMENT_SCHEDULE", "3h")
    assert experiment.execution_timeout == timedelta(seconds=90)
    assert experiment.schedule_timeout == timedelta(hours=3)


def test_two_functions_under_one_name() -> None:
    def other(input_spec: In) -> Out:
        return Out()

    ExperimentRegistry.Register(name="walls")(simulate)
    with pytest.raises(
        ExperimentTypeExists, match=r"Experiment walls already exists.*another `name="
    ):
        ExperimentRegistry.Register(name="walls")(other)
    ExperimentRegistry.Register(name="roofs")(other)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ExperimentTypeNotFound, match=r"walls not found \(registered here: none\)"):
        ExperimentRegistry.get_runnable("walls")
    ExperimentRegistry.Register(name="roofs")(simulate)
    with pytest.raises(ExperimentTypeNotFound, match="registered here: roofs"):
        ExperimentRegistry.get_runnable("walls")


def test_registering_an_experiment_again_gives_it_back() -> None:
    experiment = ExperimentRegistry.Register()(simulate)
    assert ExperimentRegistry.Register()(experiment) is experiment
    assert ExperimentRegistry.Include(experiment) is experiment


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Write a module and import it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(source: str) -> Any:
        (tmp_path / "own_module.py").write_text(textwrap.dedent(source))
        importlib.invalidate_caches()
        return importlib.import_module("own_module")

    yield make
    sys.modules.pop("own_module", None)


SOURCE = """
    from __future__ import annotations
    from pathlib import Path
    from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
    from scythe.registry import ExperimentRegistry
    class In(ExperimentInputSpec):
        x: float = 1
    class Out(ExperimentOutputSpec):
        y: float = 0
    @ExperimentRegistry.Register()
    def simulate(a_spec: In, tempdir: "Path") -> "Out":
        return Out(y=a_spec.x)
"""


def test_annotations_as_text(module: Callable[[str], Any]) -> None:
    experiment = module(SOURCE).simulate
    assert experiment.takes_tempdir
    assert experiment.input_validator_type.__name__ == "In"
    spec = experiment.input_validator_type(experiment_id="e", sort_index=0, x=3)
    assert experiment.call(spec, tempdir=Path("/tmp")).y == 3  # the parameter has another name


def test_a_module_that_is_imported_again(module: Callable[[str], Any]) -> None:
    first = module(SOURCE)
    again = importlib.reload(first)
    assert ExperimentRegistry.experiments() == [again.simulate]
    # What multiprocessing does with a script: once as __main__, once as __mp_main__.
    spec = importlib.util.spec_from_file_location("__mp_main__", first.__file__)
    assert spec is not None
    assert spec.loader is not None
    twin = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(twin)
    assert ExperimentRegistry.experiments() == [twin.simulate]


def test_functions_of_all_kinds_that_have_a_name() -> None:
    class Holder:
        def method(self, spec: In) -> Out:
            return Out(y=spec.x)

        @staticmethod
        def static(spec: In) -> Out:
            return Out(y=spec.x)

    @functools.wraps(simulate)
    def wrapped(*args: Any, **kwargs: Any) -> Out:
        return simulate(*args, **kwargs)

    def with_defaults(spec: In, factor: float = 2.0, *, tempdir: Path | None = None) -> Out:
        return Out(y=spec.x * factor)

    def keyword_only(*, spec: In) -> Out:
        return Out(y=spec.x)

    async def awaited(spec: In) -> Out:
        return Out(y=spec.x)

    cached = functools.lru_cache(simulate)
    functions = [Holder().method, Holder.static, wrapped, with_defaults, keyword_only, awaited]
    for number, function in enumerate([*functions, cached]):
        experiment = Experiment(function, f"kind-{number}")
        assert experiment.input_validator_type is In
    assert Experiment(awaited).call(SPEC).y == 4
    assert Experiment(keyword_only).call(SPEC).y == 4
    assert Experiment(with_defaults).takes_tempdir


def local_models() -> Callable[..., Any]:
    class LocalIn(ExperimentInputSpec):
        pass

    def local(spec: LocalIn) -> Out:
        return Out()

    return local


class Callable_:
    def __call__(self, spec: In) -> Out:
        return Out()


def no_annotation(spec) -> Out:
    return Out()


def no_return(spec: In):
    return Out()


def wrong_input(spec: dict) -> Out:
    return Out()


def wrong_output(spec: In) -> dict:
    return {}


def maybe_output(spec: In) -> Out | None:
    return None


def two_specs(spec: In, other: In) -> Out:
    return Out()


def no_spec(tempdir: Path) -> Out:
    return Out()


def only_variable(*specs: In) -> Out:
    return Out()


def by_place(spec: In, /) -> Out:
    return Out()


def yields(spec: In) -> Out:
    yield Out()


async def yields_later(spec: In) -> Out:
    yield Out()


def bad_text(spec: "In[") -> Out:  # noqa: F722
    return Out()


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (functools.partial(simulate), "is not a function"),
        (Callable_(), "is not a function"),
        (Callable_, "is not a function"),
        (42, "42 is not a function"),
        (lambda spec: Out(), "parameter `spec`.*ExperimentInputSpec, found None"),
        (len, "signature|annotation|take one spec"),
        (no_annotation, "no_annotation needs an annotation of parameter `spec`"),
        (no_return, "its return value with a class that inherits from ExperimentOutputSpec"),
        (wrong_input, "found <class 'dict'>"),
        (wrong_output, "its return value .* found <class 'dict'>"),
        (maybe_output, "its return value .* found .*None"),
        (two_specs, r"must take one spec .*\['spec', 'other'\].*into one model"),
        (no_spec, "must take one spec .*'nothing'|must take one spec .* nothing"),
        (only_variable, r"must take one spec .*\['specs'\]"),
        (by_place, "into a parameter with a name of its own"),
        (yields, "yields yields, so .* return one output"),
        (yields_later, "return one output"),
        (bad_text, "annotations of bad_text cannot be resolved"),
        (local_models(), "cannot be resolved.*define the models at module level"),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value)[:20],
)
def test_what_cannot_be_run_is_refused_with_a_sentence(function: Any, reason: str) -> None:
    with pytest.raises(RegistrationError, match=reason):
        ExperimentRegistry.Register()(function)
    assert ExperimentRegistry.experiments() == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"local_file_location": "copied-to-tempdir"}, "does not accept tempdir"),
        ({"retries": -1}, "retries=-1"),
        ({"retries": "2"}, "retries='2': give a whole number"),
        ({"schedule_timeout": "soon"}, "schedule_timeout must be a duration .*, got 'soon'"),
        ({"execution_timeout": "0s"}, "execution_timeout must be positive, got '0s'"),
        ({"execution_timeout": 0}, "execution_timeout must be positive, got 0"),
        ({"execution_timeout": "9999999h"}, "execution_timeout must be at most '876000h'"),
        ({"execution_timeout": timedelta(seconds=-1)}, "execution_timeout must be positive"),
        ({"desired_worker_labels": {"has_gpu": "yes"}}, r"desired_worker_labels\['has_gpu'\]"),
        ({"worker": object()}, "ScytheWorkerConfig"),
        ({"max_running": 0}, "max_running=0 is not a number of leaves: give 1 or more"),
        ({"max_running": True}, "max_running=True is not a number of leaves"),
        ({"max_running": 2.5}, "max_running=2.5 is not a number of leaves"),
        ({"max_running": 2, "concurrency": []}, "max_running and concurrency exclude each other"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(RegistrationError, match=reason):
        ExperimentRegistry.Register(**options)(simulate)


def test_copies_in_a_tempdir_are_only_refused_where_files_are_fetched() -> None:
    register = ExperimentRegistry.Register(
        local_file_location="copied-to-tempdir", auto_fetch_files=False
    )
    assert register(simulate)


@pytest.mark.parametrize(
    "thing", [simulate, 1, "walls", object()], ids=["function", "number", "text", "object"]
)
def test_include_takes_tasks_only(thing: Any) -> None:
    with pytest.raises(RegistrationError, match=r"Include\(\) takes a Hatchet task or workflow"):
        ExperimentRegistry.Include(thing)


class Task:
    """Looks like a Hatchet task: it has a name and can be run."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self) -> None:
        """Run."""


def test_included_tasks() -> None:
    task = Task("roofs")
    assert ExperimentRegistry.Include(task) is task
    assert ExperimentRegistry.Include(task) is task
    assert ExperimentRegistry.included() == [task]
    assert ExperimentRegistry.get_runnable("roofs") is task
    with pytest.raises(ExperimentTypeExists):
        ExperimentRegistry.Include(Task("roofs"))
    with pytest.raises(ExperimentTypeExists):
        ExperimentRegistry.Register(name="roofs")(simulate)
    assert ExperimentRegistry.experiments() == []
