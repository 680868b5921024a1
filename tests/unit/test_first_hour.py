"""Mistakes of a beginner's first hour: each works, or gives one sentence with the fix."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import RegistrationError, ScytheError, SpecError
from scythe.experiments import BaseExperiment, SemVer, SerializableRunnable
from scythe.options import TASK_OPTIONS
from scythe.outcomes import LeafResources
from scythe.registry import ExperimentRegistry
from scythe.settings import ScytheStorageSettings
from scythe.worker import ScytheWorkerConfig
from scythe.worker_processes.names import free_worker_name


class In(ExperimentInputSpec):
    x: float = 1.0
    many: list[int] = []


class Out(ExperimentOutputSpec):
    y: float


def roof(input_spec: In) -> Out:
    """A roof."""
    return Out(y=2 * input_spec.x)


STORAGE = ScytheStorageSettings(BUCKET="b", BUCKET_PREFIX="p")


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExperimentRegistry, "_experiments", {})


def test_register_without_parentheses_and_with_a_name() -> None:
    assert ExperimentRegistry.Register(roof).name == "scythe_experiment_roof"
    assert ExperimentRegistry.Register("flat-roof_2.1")(roof).name == "flat-roof_2.1"
    assert ExperimentRegistry.Register(roof)(In(x=2)).y == 4.0


def test_an_async_function_works() -> None:
    @ExperimentRegistry.Register
    async def later(input_spec: In) -> Out:
        await asyncio.sleep(0)
        return Out(y=input_spec.x)

    assert later.mock_run(In(x=3)).y == 3.0


def test_specs_need_neither_id_nor_number() -> None:
    assert (In(x=1).experiment_id, In().sort_index) == ("placeholder", 0)


@pytest.mark.parametrize("text", ["1.2.0", "v1.2.0", "1.2"])
def test_a_version_as_text(text: str) -> None:
    experiment: Any = BaseExperiment(
        runnable=ExperimentRegistry.Register(roof), storage_settings=STORAGE
    )
    assert experiment.resolve_next_version(text) == SemVer(major=1, minor=2)
    with pytest.raises(ValueError, match="version='new' is unknown.*a version such as '1.2.0'"):
        experiment.resolve_next_version("new")


def test_resources_as_a_dict() -> None:
    assert ExperimentRegistry.Register(resources={"cpus": 2})(roof).options.resources.cpus == 2


@pytest.mark.parametrize(
    "given",
    [{"cpus": -1}, {"cpus": float("nan")}, {"gpus": float("inf")}, {"memory": "2 GB"}],
)
def test_amounts_that_make_no_sense(given: dict[str, Any]) -> None:
    name = next(iter(given))
    with pytest.raises(ValueError, match=f"{name}=.* is no amount: give a number, 0 or more"):
        LeafResources(**given)
    with pytest.raises(RegistrationError, match="is no amount"):
        ExperimentRegistry.Register(resources=given)
    with pytest.raises(ValueError, match="pool="):
        LeafResources(custom={"pool": -1})


@pytest.mark.parametrize("given", [{"cpu": 2}, {"nonsense": 1}, 3, "cpus"])
def test_what_is_no_resource(given: Any) -> None:
    with pytest.raises(RegistrationError, match="is not a LeafResources: give one, or a dict"):
        ExperimentRegistry.Register(resources=given)


@pytest.mark.parametrize("name", ["my roof", "a/b", "a:b", "dächer", "", "x" * 201, "a\n", "../x"])
def test_names_that_cannot_be_used(name: str) -> None:
    with pytest.raises(RegistrationError, match="use letters from a to z, digits"):
        ExperimentRegistry.Register(name=name or " ")(roof)


def test_an_option_that_there_is_not() -> None:
    with pytest.raises(RegistrationError, match="has no option 'nonsense': there are name, desc"):
        ExperimentRegistry.Register(nonsense=1)
    with pytest.raises(RegistrationError, match="'retry': did you mean 'retries'"):
        ExperimentRegistry.Register(retry=1)


def test_the_options_that_are_handed_on_are_those_of_the_sdk() -> None:
    from hatchet_sdk import Hatchet

    ours = {"name", "description", "input_validator", "schedule_timeout", "execution_timeout"}
    ours |= {"retries", "desired_worker_labels"}
    assert set(inspect.signature(Hatchet.task).parameters) - {"self"} - ours == TASK_OPTIONS


@pytest.mark.parametrize("timeout", ["1000000000000h", "0s", "-5s", "soon", float("nan")])
def test_timeouts_that_make_no_sense(timeout: Any) -> None:
    with pytest.raises(RegistrationError, match="execution_timeout"):
        ExperimentRegistry.Register(execution_timeout=timeout)(roof)


@pytest.mark.parametrize("path", ["a//b", "../x", "/a", "a/./b", "a\x00"])
def test_paths_that_leave_the_folder(path: str) -> None:
    experiment = ExperimentRegistry.Register(roof)
    with pytest.raises((SpecError, ValueError), match="is not a plain relative path"):
        BaseExperiment(runnable=experiment, run_name=path, storage_settings=STORAGE)
    if not path.startswith("/"):
        with pytest.raises(ValueError, match="is not a plain relative path"):
            ScytheStorageSettings(BUCKET="b", BUCKET_PREFIX=path)


def test_the_name_before_scythe_engine_1_1() -> None:
    experiment = ExperimentRegistry.Register(roof)
    base: Any = BaseExperiment(experiment=experiment, storage_settings=STORAGE)  # type: ignore
    assert base.runnable is base.experiment is experiment


class Tuned(In, SerializableRunnable[Any, Any]):
    """A spec that names what it is for."""

    nested: dict[str, list[int]] = {}


def test_a_deep_copy_of_a_spec_that_has_a_runnable() -> None:
    first = Tuned(runnable=ExperimentRegistry.Register(roof), many=[1], nested={"a": [1]})
    second = first.model_copy(deep=True)
    second.many.append(2)
    second.nested["a"].append(2)
    assert (first.many, first.nested) == ([1], {"a": [1]})
    assert second.runnable is first.runnable


def test_a_subclass_of_the_worker_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(ScytheWorkerConfig):
        manifest: str = "runs.yml"
        QUEUE: str | None = None
        DOES_FAN: bool = False
        SLOTS: int | None = 3

    assert (Mine().manifest, Mine(manifest="x").manifest, Mine(QUEUE="q").QUEUE) == (
        *("runs.yml", "x"),
        "q",
    )
    assert (Mine().does_fan, Mine().slots, Mine().computed_slots) == (False, 3, 3)
    assert (Mine(does_fan=True).does_fan, Mine(SLOTS=5).slots) == (True, 5)
    monkeypatch.setenv("SCYTHE_WORKER_QUEUE", "env")
    monkeypatch.setenv("SCYTHE_WORKER_DOES_FAN", "true")
    assert (Mine().QUEUE, Mine().does_fan) == ("env", True)
    with pytest.raises(ScytheError, match="nothing"):
        Mine(nothing=1)


def test_two_workers_on_one_host_have_two_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path))
    with free_worker_name("W") as first, free_worker_name("W") as second:
        assert (first, second) == ("W", "W-2")
        monkeypatch.setenv("HATCHET_CLIENT_TOKEN", "of another engine")
        with free_worker_name("W") as elsewhere:
            assert elsewhere == "W"
    monkeypatch.setenv("SCYTHE_CACHE_DIR", "/proc/nowhere")
    with free_worker_name("W") as first:
        assert first == "W"


def in_new_process(code: str, *path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SCYTHE", "HATCHET", "AWS"))}
    paths = os.pathsep.join(map(str, path))
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**env, "PYTHONPATH": paths, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("given", ["", "example.org", "*"])
def test_loopback_needs_no_entry_in_no_proxy(given: str) -> None:
    code = """
        import os
        from scythe.environment import prepare_environment
        prepare_environment()
        import urllib.request
        print(urllib.request.proxy_bypass("127.0.0.1:80"), os.environ["no_proxy"])
    """
    proxies = {"HTTP_PROXY": "http://10.255.255.1:1", "NO_PROXY": given, "no_proxy": given}
    done = in_new_process(code, SCYTHE_DEV_HOME="/nonexistent", **proxies)
    assert done.stdout.startswith("True"), done.stderr
    assert given in done.stdout


def fake_engine(folder: Path) -> Path:
    """Make what pip leaves of scythe-engine for `importlib.metadata`."""
    info = folder / "scythe_engine-1.3.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scythe-engine\nVersion: 1.3.0\n")
    return folder


def test_scythe_engine_beside_this_package_is_told(tmp_path: Path) -> None:
    code = "import sys; from scythe.cli import main; sys.exit(main(['dev', 'status']))"
    done = in_new_process(code, fake_engine(tmp_path), SCYTHE_DEV_HOME=str(tmp_path / "home"))
    assert "scythe: scythe-engine 1.3.0 is installed too" in done.stderr
    assert "pip uninstall scythe-engine" in done.stderr


@pytest.mark.parametrize("code", ["import scythe_ray", "from scythe.cli import main; main([])"])
def test_scythe_engine_over_this_package_is_told(tmp_path: Path, code: str) -> None:
    over = "import scythe; del scythe.DISTRIBUTION\n" + code  # what its `__init__.py` has not
    done = in_new_process(over, fake_engine(tmp_path))
    told = "scythe-engine 1.3.0 was installed over the folder `scythe`: run `pip uninstall"
    assert told in done.stderr


def test_labels_in_a_plain_task(monkeypatch: pytest.MonkeyPatch) -> None:
    from hatchet_sdk.labels import DesiredWorkerLabel as SdkLabel

    from scythe.worker import ScytheWorkerLabel

    labels = ScytheWorkerLabel.HAS_GPU.worker_label
    made = [SdkLabel(key=k, **d.model_dump(exclude={"key"})) for k, d in labels.items()]
    assert json.loads(made[0].model_dump_json())["key"] == "has_gpu"
    assert (made[0].value, made[0].required) == ("yes", True)


def test_importing_what_is_made_on_first_use_opens_nothing() -> None:
    code = """
        import sys, scythe.utils.s3, scythe.utils.results, scythe.utils, scythe.settings
        import scythe.scatter_gather
        print(*{"boto3", "pandas", "hatchet_sdk", "pyarrow"}.intersection(sys.modules))
        from scythe.settings import timeout_settings
        print(timeout_settings.EXPERIMENT_EXECUTION.total_seconds())
    """
    done = in_new_process(code, SCYTHE_TIMEOUT_EXPERIMENT_EXECUTION="90s")
    assert done.stdout.split() == ["90.0"], done.stderr


def test_a_client_made_before_the_local_stack_was_known(monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    from scythe.outcomes import StoreConfig
    from scythe.storage.store import check_client

    client = boto3.client("s3", region_name="eu-central-1")
    local = StoreConfig(bucket="b", endpoint_url="http://127.0.0.1:9")
    with pytest.raises(ScytheError, match=r'run `eval "\$\(scythe dev env\)"` before the script'):
        check_client(local, client)
    check_client(StoreConfig(bucket="b"), client)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a folder")
def test_a_worker_says_that_the_shared_memory_is_full() -> None:
    full = "mount -t tmpfs -o size=4k tmpfs /dev/shm && head -c 9999 /dev/zero > /dev/shm/x"
    code = "from scythe.worker_processes import worker_run\n"
    code += "worker_run._check_shared_memory()"
    command = f"{full}; exec {sys.executable} -c '{code}'"
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", command], capture_output=True, text=True, check=False
    )
    assert "cannot share memory in /dev/shm (No space left on device). Free space" in done.stderr
