"""`SCYTHE_RAY_RUNTIME_ENV`: what it may be, and what is said of what it may not be."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("ray")

from scythe.errors import SettingsError
from scythe.outcomes import FailureKind
from scythe_ray.config.runtime_env import Shipment, read_runtime_env
from scythe_ray.on_node.task import Driver
from scythe_ray.submit.failures import failure_of


@pytest.mark.parametrize("text", [None, "", "  "])
def test_nothing_is_shipped_by_default(text: str | None) -> None:
    assert read_runtime_env(text) == Shipment()
    assert read_runtime_env(text).options() == {}


def test_an_object_with_paths_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lib").mkdir()
    text = '{"working_dir": ".", "py_modules": ["lib", "s3://b/m.zip"], "env_vars": {"A": "1"}}'
    shipment = read_runtime_env(text)
    assert shipment.folder == str(tmp_path)
    assert shipment.options() == {
        "runtime_env": {
            "working_dir": str(tmp_path),
            "py_modules": [str(tmp_path / "lib"), "s3://b/m.zip"],
            "env_vars": {"A": "1"},
        }
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [("env.json", '{"env_vars": {"A": "1"}}'), ("env.yaml", "env_vars:\n  A: '1'\n")],
)
def test_a_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    shipment = read_runtime_env(str(tmp_path / name))
    assert shipment == Shipment({"env_vars": {"A": "1"}})


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("{working_dir: .}", "not a JSON object"),
        ("/nowhere/env.yaml", "nor a readable file"),
        ('{"working_dir": "/nowhere"}', "/nowhere is not there"),
        ('{"workdir": "."}', "knows no workdir: it takes .*working_dir"),
        ('{"env_vars": {"A": 1}}', "env_vars"),
        ('{"pip": ["a"], "conda": "b"}', "cannot be specified at the same time"),
    ],
)
def test_what_is_wrong_is_named(text: str, hint: str) -> None:
    with pytest.raises(SettingsError, match=f"SCYTHE_RAY_RUNTIME_ENV.*{hint}"):
        read_runtime_env(text)


def test_a_file_that_holds_no_object(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(SettingsError, match="must be an object .* holds list"):
        read_runtime_env(str(tmp_path / "list.json"))
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(SettingsError, match="neither JSON nor YAML"):
        read_runtime_env(str(tmp_path / "broken.yaml"))


def test_paths_of_what_was_shipped_are_looked_for_in_its_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "main.py").touch()
    monkeypatch.chdir(tmp_path)
    common = ("id", "1", "/session", (), (), "/code", None, ())
    shipped = Driver(*common, shipped="/code")
    assert shipped.here("/code/main.py") == str(tmp_path / "main.py")
    assert shipped.here("/code") == str(tmp_path)
    assert shipped.here("/code/ignored.py") == "/code/ignored.py"
    assert shipped.here("/other/main.py") == "/other/main.py"
    assert Driver(*common).here("/code/main.py") == "/code/main.py"


def test_a_runtime_env_that_a_node_cannot_set_up_is_not_tried_again() -> None:
    from ray.exceptions import RuntimeEnvSetupError

    failure = failure_of(RuntimeEnvSetupError("pip install\nnothing-like-it failed"))
    assert failure.kind is FailureKind.ENVIRONMENT
    assert failure.kind.is_final
    assert "nothing-like-it failed" in failure.message
    assert "SCYTHE_RAY_RUNTIME_ENV" in failure.message
