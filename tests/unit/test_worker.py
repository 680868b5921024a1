"""The worker's settings, name and labels, and how its work is divided among processes."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import textwrap
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from scythe.errors import ScytheError, SettingsError, WorkerExit, WorkerStartError
from scythe.outcomes import CodeRef, StoreConfig
from scythe.worker import ScytheWorkerConfig, ScytheWorkerLabel, WorkerNameConfig
from scythe.worker_processes.banner import ProcessFacts, WorkerFacts, banner
from scythe.worker_processes.process_spec import ProcessReady, ProcessSpec, Work, plan_processes

HOSTS = ("FLY_REGION", "AWS_BATCH_JOB_ARRAY_INDEX", "COPILOT_ENVIRONMENT_NAME")


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SCYTHE_WORKER_") or name in HOSTS:
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def items() -> Any:
    """Hatchet tasks; making them needs a token, but not one that an engine knows."""
    import base64
    import json

    claims = {
        "sub": "707d0855-80ab-4e1f-a156-f1c4546cbf52",
        "grpc_broadcast_address": "127.0.0.1:1",
        "server_url": "http://127.0.0.1:1",
    }
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    with pytest.MonkeyPatch.context() as patch:
        if not os.environ.get("HATCHET_CLIENT_TOKEN"):
            patch.setenv("HATCHET_CLIENT_TOKEN", f"eyJhbGciOiJFUzI1NiJ9.{body}.c2ln")
        from scythe.engine.client import client

        client.cache_clear()
        from tests.unit import worker_items

        yield worker_items
        client.cache_clear()


# Settings


def test_defaults_are_those_of_the_page() -> None:
    config = ScytheWorkerConfig()
    assert config.executor == "local"
    assert config.name is None
    assert config.slots is None
    assert config.durable_slots is None
    assert config.computed_durable_slots == 1000
    assert (config.high_memory, config.high_cpu, config.has_gpu) == (False, False, False)
    assert (config.does_fan, config.does_leaf) == (True, True)
    assert config.shutdown_timeout == timedelta(seconds=30)
    assert config.labels == {}


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("NAME", "mine", "name", "mine"),
        ("EXECUTOR", "ray", "executor", "ray"),
        ("SLOTS", "3", "slots", 3),
        ("DURABLE_SLOTS", "5", "durable_slots", 5),
        ("HIGH_MEMORY", "true", "high_memory", True),
        ("HIGH_CPU", "1", "high_cpu", True),
        ("HAS_GPU", "yes", "has_gpu", True),
        ("DOES_FAN", "False", "does_fan", False),
        ("DOES_LEAF", "0", "does_leaf", False),
        ("SHUTDOWN_TIMEOUT", "2m", "shutdown_timeout", timedelta(minutes=2)),
        ("SHUTDOWN_TIMEOUT", "90", "shutdown_timeout", timedelta(seconds=90)),
        ("SLOTS", "", "slots", None),  # as docker-compose sets what is not set
    ],
)
def test_variables(
    variable: str, text: str, field: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"SCYTHE_WORKER_{variable}", text)
    config = ScytheWorkerConfig()
    assert getattr(config, field) == value
    assert getattr(config, field.upper()) == value


def test_upper_case_works_as_in_scythe_engine() -> None:
    config = ScytheWorkerConfig(SLOTS=4, DOES_FAN=False, NAME="x", has_gpu=True)
    assert (config.slots, config.SLOTS) == (4, 4)
    assert (config.does_fan, config.DOES_FAN, config.HAS_GPU) == (False, False, True)
    assert config.computed_name == config.NAME == "x"
    config.SLOTS = 6
    config.HIGH_CPU = True
    assert (config.slots, config.labels) == (6, {"high_cpu": "yes", "has_gpu": "yes"})
    with pytest.raises(AttributeError):
        _ = config.NOTHING


def test_keywords_win_over_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCYTHE_WORKER_SLOTS", "3")
    assert ScytheWorkerConfig(SLOTS=4).slots == ScytheWorkerConfig(slots=4).slots == 4


@pytest.mark.parametrize("name", ["slot", "SLOT", "gpu"])
def test_a_misspelt_keyword_is_named(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        ScytheWorkerConfig(**{name: 1})
    text = str(caught.value)
    assert f"no setting {name!r}" in text
    assert "executor, name, slots, durable_slots" in text
    assert name == "gpu" or "did you mean `slots`?" in text


def test_a_keyword_in_both_spellings_is_refused() -> None:
    with pytest.raises(SettingsError, match="'slots' twice"):
        ScytheWorkerConfig(slots=1, SLOTS=2)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SLOTS", "0"),
        ("SLOTS", "-2"),
        ("SLOTS", "many"),
        ("SLOTS", "1.5"),
        ("DURABLE_SLOTS", "0"),
        ("HAS_GPU", "perhaps"),
        ("SHUTDOWN_TIMEOUT", "-1s"),
        ("SHUTDOWN_TIMEOUT", "soon"),
    ],
)
def test_bad_values_name_the_variable(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match=rf"SCYTHE_WORKER_{variable} .* cannot be '{value}'"):
        ScytheWorkerConfig(**{variable: value})
    with pytest.raises(SettingsError, match=rf"SCYTHE_WORKER_{variable}"):
        setattr(ScytheWorkerConfig(), variable, value)
    monkeypatch.setenv(f"SCYTHE_WORKER_{variable}", value)
    with pytest.raises(SettingsError, match=rf"SCYTHE_WORKER_{variable}"):
        ScytheWorkerConfig()


def test_a_misspelt_variable_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SCYTHE_WORKER_SLOT", "3")
    monkeypatch.setenv("HATCHET_CLIENT_TOKEN", "none")
    caplog.set_level(logging.WARNING, "scythe")
    config = ScytheWorkerConfig(does_leaf=False)
    with pytest.raises(WorkerExit):
        config.start()
    assert "SCYTHE_WORKER_SLOT is no setting of a worker: did you mean SCYTHE_WORKER_SLOTS?" in (
        caplog.text
    )


# Slots


@pytest.mark.parametrize(("cpus", "slots"), [(1, 1), (2, 2), (7, 7), (8, 7), (9, 8), (64, 63)])
def test_slots_follow_the_cpu_count(cpus: int, slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cpus)
    assert ScytheWorkerConfig().computed_slots == slots
    assert ScytheWorkerConfig(slots=5).computed_slots == 5


# Names


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "ScytheWorker--Local"),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "1"}, "ScytheWorker--AWSBatch0001"),
        ({"COPILOT_ENVIRONMENT_NAME": "prod"}, "ScytheWorker--AWSCopilotPROD"),
        ({"FLY_REGION": "iad"}, "ScytheWorker--FlyIAD"),
        (
            {"AWS_BATCH_JOB_ARRAY_INDEX": "1", "COPILOT_ENVIRONMENT_NAME": "prod"},
            "ScytheWorker--AWSBatch0001CopilotPROD",
        ),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "12345"}, "ScytheWorker--AWSBatch12345"),
        ({"FLY_REGION": ""}, "ScytheWorker--Local"),
    ],
)
def test_names_by_environment(
    variables: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert WorkerNameConfig().name == name
    config = ScytheWorkerConfig()
    assert config.computed_name == config.WORKER_NAME_CONFIG.name == name
    monkeypatch.setenv("SCYTHE_WORKER_NAME", "custom")
    assert ScytheWorkerConfig().computed_name == "custom"


def test_a_bad_array_index_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_BATCH_JOB_ARRAY_INDEX", "first")
    with pytest.raises(SettingsError, match="AWS_BATCH_JOB_ARRAY_INDEX cannot be 'first'"):
        ScytheWorkerConfig()


# Labels


def test_labels_are_those_of_the_flags() -> None:
    config = ScytheWorkerConfig(high_memory=True, high_cpu=True, has_gpu=True)
    assert config.labels == {"high_memory": "yes", "high_cpu": "yes", "has_gpu": "yes"}
    names = {
        **ScytheWorkerLabel.HAS_GPU.worker_label,
        **ScytheWorkerLabel.HIGH_MEMORY.worker_label,
    }
    assert set(names) == {"has_gpu", "high_memory"}
    assert all(label.required and label.value == "yes" for label in names.values())


# The division of the work

BASE = ProcessSpec("w")


def test_leaves_and_scatter_nodes_get_processes_of_their_own(items: Any) -> None:
    leaf, fan = plan_processes(BASE, Work([items.named]), fan=True, leaf=True)
    assert (leaf.name, leaf.role) == ("w", "leaf")
    assert [ref.experiment for ref in leaf.experiments] == ["another_name"]
    assert (fan.name, fan.role, fan.experiments) == ("w--fan", "fan", ())


@pytest.mark.parametrize(("fan", "leaf"), [(True, False), (False, True)])
def test_a_single_role_is_one_process_with_the_workers_name(
    fan: bool, leaf: bool, items: Any
) -> None:
    (plan,) = plan_processes(BASE, Work([items.named], [items.task]), fan=fan, leaf=leaf)
    assert (plan.name, plan.role) == ("w", "fan" if fan else "leaf")
    assert [ref.experiment for ref in plan.workflows] == ([items.task.name] if leaf else [])


def names_of(refs: tuple[CodeRef, ...]) -> list[str]:
    return [ref.experiment for ref in refs]


def test_workflows_go_where_their_kind_of_slots_is(items: Any) -> None:
    work = Work([items.named], [items.task], [items.pipeline, items.durable, items.task])
    leaf, fan = plan_processes(BASE, work, fan=True, leaf=True)
    assert names_of(leaf.workflows) == ["worker_items_task", "worker_items_pipeline"]
    assert names_of(fan.workflows) == ["worker_items_durable"]
    (leaf,) = plan_processes(BASE, work, fan=False, leaf=True)
    assert sorted(names_of(leaf.workflows)) == [
        "worker_items_durable",
        "worker_items_pipeline",
        "worker_items_task",
    ]
    (fan,) = plan_processes(BASE, work, fan=True, leaf=False)
    assert len(fan.workflows) == 3


def test_a_worker_of_neither_role_serves_workflows(items: Any) -> None:
    (plan,) = plan_processes(BASE, Work([items.named], [], [items.pipeline]), fan=False, leaf=False)
    assert (plan.role, plan.name, plan.experiments) == ("tasks", "w", ())
    assert names_of(plan.workflows) == ["worker_items_pipeline"]


def test_a_combined_worker_without_experiments_serves_workflows(items: Any) -> None:
    tasks, fan = plan_processes(BASE, Work([], [], [items.pipeline]), fan=True, leaf=True)
    assert (tasks.role, tasks.name, fan.name) == ("tasks", "w", "w--fan")
    (fan,) = plan_processes(BASE, Work([], [], [items.durable]), fan=True, leaf=True)
    assert (fan.role, fan.name) == ("fan", "w")


def test_nothing_to_do_is_refused() -> None:
    with pytest.raises(WorkerStartError, match="Import the modules that register them"):
        plan_processes(BASE, Work(), fan=False, leaf=True)
    with pytest.raises(WorkerStartError, match="Import the modules that register them"):
        plan_processes(BASE, Work(), fan=True, leaf=True)
    with pytest.raises(WorkerStartError, match="has nothing to do"):
        plan_processes(BASE, Work(), fan=False, leaf=False)


# How other processes find what is served


def test_hatchet_workflows_travel_by_import(items: Any) -> None:
    from scythe.worker_processes.workflow_ref import find_workflow, workflow_ref

    for item in (items.task, items.durable, items.pipeline):
        ref = pickle.loads(pickle.dumps(workflow_ref(item)))
        assert ref.module == "tests.unit.worker_items"
        assert find_workflow(ref) is item


def test_a_workflow_that_no_module_holds_is_refused(items: Any) -> None:
    from scythe.hatchet import hatchet
    from scythe.worker_processes.workflow_ref import workflow_ref

    with pytest.raises(
        WorkerStartError, match="cannot find the Hatchet workflow hidden.* at module level"
    ):
        workflow_ref(hatchet.workflow(name="hidden"))
    with pytest.raises(WorkerStartError, match="is not a Hatchet task or workflow"):
        workflow_ref(items.named)


def test_a_workflow_that_is_gone_is_named(items: Any) -> None:
    from scythe.locate import CodeNotFoundError
    from scythe.worker_processes.workflow_ref import find_workflow

    with pytest.raises(CodeNotFoundError, match="has no Hatchet workflow lost"):
        find_workflow(CodeRef("lost", "tests.unit.worker_items", "lost"))


def test_experiments_travel_by_import_where_that_brings_the_same(items: Any) -> None:
    from scythe.experiment import Experiment
    from scythe.locate import code_ref, find_experiment
    from scythe.options import ExperimentOptions

    assert code_ref(items.named).pickled is None
    assert code_ref(Experiment(items.plain)).pickled is None
    ref = code_ref(Experiment(items.plain, "with_options", ExperimentOptions(retries=9)))
    found = find_experiment(pickle.loads(pickle.dumps(ref)))
    assert (found.name, found.options.retries, found.fn) == ("with_options", 9, items.plain)


def test_experiments_of_a_function_travel_by_value(items: Any) -> None:
    from scythe.experiment import Experiment
    from scythe.locate import code_ref, find_experiment

    factor = 5

    def scaled(input_spec: Any) -> Any:
        return items.ItemOutput(y=factor * input_spec.x)

    scaled.__annotations__ = {"input_spec": items.ItemInput, "return": items.ItemOutput}
    found = find_experiment(pickle.loads(pickle.dumps(code_ref(Experiment(scaled)))))
    spec = items.ItemInput(experiment_id="e", sort_index=0, x=2)
    assert found(spec).y == 10


# The start


def test_the_exit_is_an_error_and_one_line() -> None:
    error = WorkerExit("It is not there: start it.")
    assert isinstance(error, ScytheError)
    assert isinstance(error, SystemExit)
    assert str(error) == "It is not there: start it."
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.code) == (str(error), "scythe: It is not there: start it.")
    code = "from scythe.errors import WorkerExit; raise WorkerExit('Why, and what to do.')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (1, "scythe: Why, and what to do.\n")


@pytest.mark.parametrize("item", [42, "name", None])
def test_what_is_no_function_is_refused(item: Any) -> None:
    with pytest.raises(WorkerExit, match=r"takes functions, not"):
        ScytheWorkerConfig().start(experiments=[item])


def test_an_unknown_executor_is_refused_before_anything_is_started(items: Any) -> None:
    config = ScytheWorkerConfig(executor="slurm", does_fan=False)
    with pytest.raises(WorkerExit, match=r"Unknown executor 'slurm' \(installed: .*local"):
        config.start(experiments=[items.plain])
    # A thread would swallow the exit, so there the error itself is raised.
    assert "scythe: " not in str(_error_in_thread(lambda: config.start([items.plain])))


def _error_in_thread(call: Any) -> BaseException:
    import threading

    caught: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert isinstance(caught[0], WorkerStartError)
    assert not isinstance(caught[0], SystemExit)
    return caught[0]


def test_importing_the_worker_opens_nothing(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import sys, threading
        from scythe.worker import ScytheWorkerConfig, ScytheWorkerLabel, WorkerNameConfig
        ScytheWorkerConfig()
        heavy = {"hatchet_sdk", "boto3", "ray", "pandas", "pyarrow", "grpc"} & set(sys.modules)
        assert not heavy, heavy
        assert threading.active_count() == 1
    """)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        check=False,
    )
    assert done.returncode == 0, done.stderr


# What the worker says of itself


def test_the_banner_says_what_is_served_and_where() -> None:
    leaf = ProcessSpec(
        "w",
        executor="local",
        experiments=(CodeRef("one", "m", "one"), CodeRef("gpu_only", "m", "gpu_only")),
        workflows=(CodeRef("pipeline", "m", "p"),),
    )
    fan = ProcessSpec("w--fan", "fan", durable_slots=50)
    ready = ProcessReady(2, "2 CPUs of this machine", {"high_cpu": "yes"}, "2 processes on host")
    text = banner(
        WorkerFacts(
            [ProcessFacts(leaf, ready, 11), ProcessFacts(fan, ProcessReady(1), 12)],
            "Hatchet v1 at host:7070",
            StoreConfig("bucket", "runs", "http://s3", access_key_id="KEY", secret_access_key="S"),
            {"one": {}, "gpu_only": {"has_gpu": "yes", "high_cpu": "yes"}},
        )
    )
    lines = text.splitlines()
    assert lines[0] == "w is ready."
    said = dict(line.strip().split(None, 1) for line in lines[1:])
    assert said["serves"] == "scatter and gather; leaves of one, gpu_only; tasks pipeline"
    assert said["executor"] == "local, 2 processes on host"
    assert said["slots"] == "2 (2 CPUs of this machine), 50 for scatter and gather"
    assert said["labels"] == "high_cpu=yes"
    assert said["engine"] == "Hatchet v1 at host:7070"
    assert said["bucket"] == "s3://bucket/runs at http://s3"
    assert said["processes"] == f"worker {os.getpid()}, leaf 11, fan 12"
    assert said["gpu_only"] == (
        "needs has_gpu=yes, which this worker does not have; its leaves wait for another worker."
    )
    assert "KEY" not in text


# Classes of leaves


def experiments(**labels_and_resources: tuple[str, dict[str, Any]]) -> list[Any]:
    from scythe.experiment import Experiment
    from scythe.options import ExperimentOptions
    from scythe.outcomes import LeafResources
    from tests.unit import worker_items

    return [
        Experiment(
            worker_items.plain,
            name,
            ExperimentOptions(
                desired_worker_labels=ScytheWorkerLabel(label).worker_label if label else None,
                resources=LeafResources(**resources),
            ),
        )
        for name, (label, resources) in labels_and_resources.items()
    ]


ON_RAY = ProcessSpec("w", executor="ray")


def test_each_class_of_leaves_has_a_part(items: Any) -> None:
    work = Work(
        experiments(
            gpu=("has_gpu", {}),
            plain=("", {}),
            heavy=("high_memory", {"cpus": 2}),
            unlabelled_gpu=("", {"gpus": 1}),
            shared_gpu=("has_gpu", {"gpus": 0.5}),
            large=("", {"cpus": 4}),
        )
    )
    plans = plan_processes(ON_RAY, work, fan=True, leaf=True)
    assert [(plan.name, plan.role, plan.guest, plan.title) for plan in plans] == [
        ("w", "leaf", False, "leaf"),
        ("w--gpu", "leaf", True, "gpu"),
        ("w--gpu-0.5", "leaf", True, "gpu-0.5"),
        ("w--high-memory", "leaf", True, "high-memory"),
        ("w--fan", "fan", False, "fan"),
    ]
    served = [names_of(plan.experiments) for plan in plans]
    assert served == [["plain", "large"], ["gpu", "unlabelled_gpu"], ["shared_gpu"], ["heavy"], []]
    # Without a label of all of them, a leaf may come that is to be refused.
    assert [plan.needs for plan in plans[1:4]] == [
        *({}, {"has_gpu": "yes"}, {"high_memory": "yes"})
    ]
    assert [plan.number for plan in plans] == [0, 1, 2, 3, 4]
    assert [plan.ahead for plan in plans] == [(1, 2, 3), (), (1,), (1, 2), ()]
    assert len({plan.classes for plan in plans[:4]}) == 1


def test_a_class_alone_carries_the_workers_name(items: Any) -> None:
    leaf, fan = plan_processes(ON_RAY, Work(experiments(gpu=("has_gpu", {}))), fan=True, leaf=True)
    assert (leaf.name, leaf.guest, leaf.ahead, fan.name) == ("w", False, (), "w--fan")
    assert leaf.leaf_class is not None
    assert leaf.leaf_class.resource == "has_gpu"
    first, second = plan_processes(
        ON_RAY,
        Work(experiments(memory=("high_memory", {}), gpu=("has_gpu", {}))),
        fan=False,
        leaf=True,
    )
    assert (first.name, first.guest) == ("w", False)
    assert names_of(first.experiments) == ["gpu"]
    assert (second.name, second.guest) == ("w--high-memory", True)


def test_ordinary_tasks_do_not_hold_slots_of_a_gpu(items: Any) -> None:
    work = Work(experiments(gpu=("has_gpu", {})), [items.task])
    tasks, gpu, _ = plan_processes(ON_RAY, work, fan=True, leaf=True)
    assert (tasks.name, tasks.role, names_of(tasks.workflows)) == (
        *("w", "tasks", ["worker_items_task"]),
    )
    assert (gpu.name, gpu.role, gpu.guest, gpu.workflows) == ("w--gpu", "leaf", False, ())
    mixed = Work(experiments(gpu=("has_gpu", {}), plain=("", {})), [items.task])
    leaf, gpu, _ = plan_processes(ON_RAY, mixed, fan=True, leaf=True)
    assert (leaf.role, names_of(leaf.workflows), gpu.workflows) == (
        *("leaf", ["worker_items_task"], ()),
    )


@pytest.mark.parametrize("base", [ProcessSpec("w"), ProcessSpec("w", executor="ray", slots=1)])
def test_leaves_are_not_divided_on_this_machine_or_with_one_slot(
    base: ProcessSpec, items: Any
) -> None:
    work = Work(experiments(gpu=("has_gpu", {}), plain=("", {})))
    (leaf,) = plan_processes(base, work, fan=False, leaf=True)
    assert (leaf.name, leaf.leaf_class, leaf.classes) == ("w", None, ())
    assert names_of(leaf.experiments) == ["gpu", "plain"]


def test_the_banner_names_parts_by_their_class_and_leaves_that_are_too_large() -> None:
    from scythe.leaf_classes import LeafClass

    gpu = ProcessSpec("w--gpu", leaf_class=LeafClass("has_gpu"), guest=True)
    memory = ProcessSpec(
        "w--high-memory",
        leaf_class=LeafClass("high_memory"),
        guest=True,
        experiments=(CodeRef("heavy", "m", "heavy"),),
    )
    leaf = ProcessSpec("w", experiments=(CodeRef("large", "m", "large"),))
    has_gpu = {"has_gpu": "yes"}
    text = banner(
        WorkerFacts(
            [
                ProcessFacts(leaf, ProcessReady(2, "2 CPUs", has_gpu), 11),
                ProcessFacts(gpu, ProcessReady(1, "1 GPU", has_gpu), 12),
                ProcessFacts(memory, ProcessReady(0, labels=has_gpu), 0),
            ],
            "Hatchet",
            None,
            {"heavy": {"high_memory": "yes"}},
            {"large": 4, "heavy": 1},
        )
    )
    said = dict(line.strip().split(None, 1) for line in text.splitlines()[1:])
    assert said["slots"] == "2 (2 CPUs), 1 (1 GPU)"
    assert said["processes"] == f"worker {os.getpid()}, leaf 11, gpu 12"
    assert "heavy needs high_memory=yes, which this worker does not have" in text
    assert "A leaf of large needs 4 slots, and this worker has 2" in text
