"""Code that the nodes of a Ray cluster do not have, and how it gets there."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

MAIN = """
from __future__ import annotations
import asyncio, json, os, pathlib
from beside import greeting
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry

class In(ExperimentInputSpec):
    pass

class Out(ExperimentOutputSpec):
    text: str = ""

@ExperimentRegistry.Register(name="shipped")
def shipped(spec: In) -> Out:
    import later  # not imported by the worker itself
    data = pathlib.Path("data.txt").read_text()
    return Out(text=f"{greeting} {later.word} {data} {os.environ.get('COLOUR')}")

if __name__ == "__main__":
    from scythe.specs.codec import encode_spec
    from scythe.errors import ExecutorError
    from scythe.executor import ExecutorRequest
    from scythe.locate import code_ref
    from scythe.outcomes import LeafCall, StoreConfig
    from scythe_ray.plugin import open_executor

    folder = pathlib.Path.cwd()
    executor = open_executor(ExecutorRequest(slots=1))
    folder.rename(folder.with_name("moved"))  # from now on no node has it
    spec = encode_spec(In(experiment_id="e/v1.0.0/now", sort_index=0))
    call = LeafCall("1", code_ref(shipped), spec, "e/v1.0.0/now", StoreConfig("none"))

    async def run() -> None:
        try:
            print((await executor.run(call)).scalars)
        except ExecutorError as error:
            print(json.dumps({"kind": error.failure.kind, "message": error.failure.message}))
        await executor.aclose()

    asyncio.run(run())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "main.py").write_text(MAIN)
    (folder / "beside.py").write_text("greeting = 'good'\n")
    (folder / "later.py").write_text("word = 'morning'\n")
    (folder / "data.txt").write_text("data")
    return folder


def run(folder: Path, runtime_env: Any) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SCYTHE_RAY_", "RAY_"))}
    done = subprocess.run(
        [sys.executable, "main.py"],
        cwd=folder,
        env={
            **clean,
            "SCYTHE_RAY_ADDRESS": "local",
            "SCYTHE_RAY_RUNTIME_ENV": json.dumps(runtime_env),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_script_and_what_lies_beside_it_are_shipped(folder: Path) -> None:
    found = run(folder, {"working_dir": ".", "env_vars": {"COLOUR": "red"}})
    assert found == {"text": "good morning data red"}


def test_a_runtime_env_that_cannot_be_set_up_says_so(folder: Path) -> None:
    found = run(folder, {"working_dir": f"file://{folder}/nothing.zip"})
    assert found["kind"] == "environment_setup"
    assert "SCYTHE_RAY_RUNTIME_ENV" in found["message"]
    assert "nothing.zip" in found["message"]


@pytest.mark.parametrize(
    ("module", "main_path", "missing"),
    [("models.walls", None, "'models'"), ("__main__", "/nowhere/main.py", "/nowhere/main.py")],
)
def test_a_node_that_lacks_the_code_names_it_and_how_to_ship_it(
    tmp_path: Path, module: str, main_path: str | None, missing: str
) -> None:
    code = f"""
import pickle, sys
from scythe.outcomes import CodeRef, LeafCall, StoreConfig
from scythe_ray.on_node.task import Job, load_outcome, run_envelope, this_driver
driver = this_driver("id", {str(tmp_path)!r}, {str(tmp_path)!r}, None)
ref = CodeRef("wall", {module!r}, "wall", {main_path!r})
call = LeafCall("1", ref, "{{}}", "e/v1.0.0/now", StoreConfig("none"))
data = run_envelope(pickle.dumps(driver), pickle.dumps(Job("t", call, False)))
assert "ray" not in sys.modules
sys.stdout.buffer.write(pickle.dumps(load_outcome(data)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, check=True, cwd=tmp_path
    )
    failure = pickle.loads(done.stdout)
    assert failure.kind == "environment_setup"
    assert missing in failure.message
    assert """SCYTHE_RAY_RUNTIME_ENV='{"working_dir": "."}'""" in failure.message
