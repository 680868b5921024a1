"""Another process finds an experiment by import, by the script's file, or by value."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from scythe.outcomes import CodeRef

MODELS = """
    from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
    from scythe.registry import ExperimentRegistry
    class In(ExperimentInputSpec):
        x: float = 1
    class Out(ExperimentOutputSpec):
        y: float = 0
"""
EXPERIMENT = """
    @ExperimentRegistry.Register(retries=7)
    def simulate(spec: In) -> Out:
        return Out(y=spec.x * 2)
"""
LOCAL = """
    def make(factor):
        @ExperimentRegistry.Register(name="local", retries=7)
        def simulate(spec: In) -> Out:
            return Out(y=spec.x * factor)
        return simulate
"""
# What a worker does in its process: `if __name__` as a script has it.
SEND = """
    if __name__ == "__main__":
        import pickle, sys
        from pathlib import Path
        from scythe.locate import code_ref
        Path(sys.argv[1]).write_bytes(pickle.dumps(code_ref({name})))
"""
# What a process that runs leaves does.
FIND = """
    import pickle, sys
    from pathlib import Path
    from scythe.errors import ScytheError
    from scythe.locate import find_experiment
    ref = pickle.loads(Path(sys.argv[1]).read_bytes())
    try:
        found = find_experiment(ref)
    except ScytheError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    spec = found.input_validator_type(experiment_id="e", sort_index=0, x=4)
    print(found.call(spec).y, found.options.retries, find_experiment(ref) is found)
"""


def python(*arguments: str, cwd: Path, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def write(path: Path, *parts: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(textwrap.dedent(part) for part in parts))


def find(folder: Path, ref: CodeRef, code: int = 0) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "ref").write_bytes(pickle.dumps(ref))
    return python("-c", textwrap.dedent(FIND), "ref", cwd=folder, code=code).strip()


def send(folder: Path, *arguments: str) -> CodeRef:
    python(*arguments, str(folder / "ref"), cwd=folder)
    return pickle.loads((folder / "ref").read_bytes())


def test_a_script_by_its_path(tmp_path: Path) -> None:
    write(
        tmp_path / "my worker.py", "import helper", MODELS, EXPERIMENT, SEND.format(name="simulate")
    )
    write(tmp_path / "helper.py", "")
    ref = send(tmp_path, "my worker.py")
    assert ref.main_path == str(tmp_path / "my worker.py")
    assert ref.pickled is ref.main_module is None
    # Its own folder is on the path of the other process too, wherever that runs.
    assert find(tmp_path / "elsewhere", ref) == "8.0 7 True"


def test_a_module_run_with_dash_m(tmp_path: Path) -> None:
    write(tmp_path / "pack" / "work.py", MODELS, EXPERIMENT, SEND.format(name="simulate"))
    write(
        tmp_path / "pack" / "__main__.py", "from pack.work import *", SEND.format(name="simulate")
    )
    write(tmp_path / "pack" / "__init__.py", "")
    by_name = send(tmp_path, "-m", "pack.work")
    assert (by_name.module, by_name.main_module, by_name.pickled) == ("__main__", "pack.work", None)
    assert find(tmp_path, by_name) == "8.0 7 True"
    by_package = send(tmp_path, "-m", "pack")
    assert (by_package.module, by_package.main_module) == ("pack.work", None)
    assert find(tmp_path, by_package) == "8.0 7 True"


def test_an_importable_module(tmp_path: Path) -> None:
    write(tmp_path / "walls.py", MODELS, EXPERIMENT)
    write(tmp_path / "main.py", "from walls import simulate", SEND.format(name="simulate"))
    ref = send(tmp_path, "main.py")
    assert (ref.module, ref.qualname, ref.main_path, ref.pickled) == (
        "walls",
        "simulate",
        None,
        None,
    )
    assert find(tmp_path, ref) == "8.0 7 True"


@pytest.mark.parametrize("where", ["script", "prompt"])
def test_by_value(where: str, tmp_path: Path) -> None:
    if where == "script":  # defined inside a function
        write(tmp_path / "main.py", MODELS, LOCAL, SEND.format(name="make(2)"))
        ref = send(tmp_path, "main.py")
    else:  # no file at all
        code = "\n".join(
            textwrap.dedent(p) for p in (MODELS, EXPERIMENT, SEND.format(name="simulate"))
        )
        ref = send(tmp_path, "-c", code)
    assert ref.pickled is not None
    assert find(tmp_path / "elsewhere", ref) == "8.0 7 True"


def test_options_given_where_the_worker_starts_travel_too(tmp_path: Path) -> None:
    plain = EXPERIMENT.replace("@ExperimentRegistry.Register(retries=7)", "")
    write(tmp_path / "walls.py", MODELS, plain)
    register = "from scythe.registry import ExperimentRegistry\nfrom walls import simulate\n"
    register += "known = ExperimentRegistry.Register(retries=7)(simulate)"
    write(tmp_path / "main.py", register, SEND.format(name="known"))
    assert find(tmp_path, send(tmp_path, "main.py")) == "8.0 7 True"


def test_what_cannot_be_sent_by_value(tmp_path: Path) -> None:
    holding = LOCAL.replace(
        "def make(factor):", "def make(factor, lock=__import__('threading').Lock()):"
    )
    holding = holding.replace("spec.x * factor", "spec.x * factor * bool(lock)")
    write(tmp_path / "main.py", MODELS, holding, SEND.format(name="make(2)"))
    error = python("main.py", "ref", cwd=tmp_path, code=1)
    assert "CodeNotFoundError" in error
    assert "define it at module level" in error


REF = CodeRef("walls", "walls", "simulate")


@pytest.mark.parametrize(
    ("sources", "ref", "reason"),
    [
        ({}, REF, "needs the module 'walls', which is not on this node"),
        (
            {"walls.py": "import not_there"},
            REF,
            r"needs the module 'not_there'.*imported from walls",
        ),
        ({"walls.py": "x = 1"}, REF, "has no simulate: it is another version of the code"),
        ({"walls.py": "1 / 0"}, REF, "walls cannot be imported on this node (ZeroDivisionError"),
        ({"walls.py": "raise SystemExit(3)"}, REF, "if __name__ == '__main__'"),
        (
            {},
            CodeRef("walls", "__main__", "f", main_path="/no/main.py"),
            "which is not on this node",
        ),
        ({}, CodeRef("walls", "__main__", "f", main_module="no.main"), "needs the module 'no'"),
    ],
    ids=["module", "import", "version", "broken", "exit", "script", "dash-m"],
)
def test_what_is_not_there_is_said(
    sources: dict[str, str], ref: CodeRef, reason: str, tmp_path: Path
) -> None:
    for name, source in sources.items():
        write(tmp_path / name, source)
    error = find(tmp_path, ref, code=1)
    assert error.startswith("CodeNotFoundError: ")
    for part in reason.split(".*"):
        assert part in error
