"""The fingerprint of an experiment's code: what changes it, and what does not."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scythe.provenance.identity import CodeIdentity, identify, read_identity
from scythe.provenance.project import Module, project_sources

HEAD = """
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
"""
MODEL = """
class In(ExperimentInputSpec):
    x: int

class Out(ExperimentOutputSpec):
    y: float
"""
PROJECT = {
    "experiments/__init__.py": "",
    "experiments/roof.py": HEAD
    + "from experiments.physics import gain\n"
    + MODEL
    + "@ExperimentRegistry.Register()\n"
    + "def simulate(spec: In) -> Out:\n    return Out(y=gain(spec.x))\n",
    "experiments/physics.py": "from . import tables\n\ndef gain(x):\n    import helper\n"
    "    return helper.twice(x) * tables.FACTOR\n",
    "experiments/tables.py": "FACTOR = 3\n",
    "helper.py": "def twice(x):\n    return 2 * x\n",
    "unrelated.py": "A = 1\n",
    "main.py": "from experiments import roof\n",
}
SAY = "import sys; sys.path.insert(0, '.')\nfrom {module} import {name} as found\n{before}\n"
PRINT = "from scythe.provenance.identity import identify\nprint(identify(found.fn).text)"


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def run(folder: Path, code: str, **env: str) -> str:
    return subprocess.run(
        [sys.executable, "-B", "-c", code],
        cwd=folder,
        env={**os.environ, **env},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def identity(
    folder: Path, module: str = "experiments.roof", name: str = "simulate", before: str = ""
) -> CodeIdentity:
    """Import an experiment in a process of its own and return its identity."""
    return read_identity(run(folder, SAY.format(module=module, name=name, before=before) + PRINT))


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The fingerprint of the project."""
    return identity(write(tmp_path_factory.mktemp("usual"), PROJECT)).fingerprint


def test_it_is_the_same_in_another_folder(usual: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "a folder" / "deeper", PROJECT)
    assert len(usual) == 16
    assert identity(folder).fingerprint == usual


def test_compiled_files_times_comments_and_layout_do_not_count(usual: str, tmp_path: Path) -> None:
    files = {name: f"# a comment\r\n{text}\n\n# more" for name, text in PROJECT.items()}
    folder = write(tmp_path, files)
    for path in folder.rglob("*.py"):
        py_compile.compile(str(path))
        os.utime(path, (1, 1))
    assert identity(folder).fingerprint == usual


@pytest.mark.parametrize("name", [one for one in PROJECT if one not in ("main.py", "unrelated.py")])
def test_each_module_that_the_experiment_imports_counts(
    usual: str, tmp_path: Path, name: str
) -> None:
    changed = {**PROJECT, name: PROJECT[name] + "\nADDED = 1\n"}
    assert identity(write(tmp_path, changed)).fingerprint != usual


@pytest.mark.parametrize("name", ["main.py", "unrelated.py"])
def test_what_it_does_not_import_does_not_count(usual: str, tmp_path: Path, name: str) -> None:
    changed = {**PROJECT, name: PROJECT[name] + "\nADDED = 1\n"}
    assert identity(write(tmp_path, changed)).fingerprint == usual


def test_a_file_that_is_edited_after_its_import_counts_as_it_was(
    usual: str, tmp_path: Path
) -> None:
    folder = write(tmp_path, PROJECT)
    edit = "open('experiments/tables.py', 'a').write('FACTOR = 5\\n')"
    assert identity(folder, before=edit).fingerprint == usual
    assert identity(folder).fingerprint != usual
    again = "import importlib, experiments.tables as t; importlib.reload(t)"
    assert identity(write(tmp_path, PROJECT), before=f"{edit}\n{again}").fingerprint != usual


def test_a_script_has_the_fingerprint_that_it_has_as_a_module(tmp_path: Path) -> None:
    text = PROJECT["experiments/roof.py"] + "if __name__ == '__main__':\n    found = simulate\n"
    files = {**PROJECT, "roof.py": text + "".join(f"    {line}\n" for line in PRINT.splitlines())}
    folder = write(tmp_path, files)
    command = [sys.executable, "-B"]
    script, by_module = (
        subprocess.run(
            [*command, *how], cwd=folder, check=True, capture_output=True, text=True
        ).stdout.strip()
        for how in (["roof.py"], ["-m", "roof"])
    )
    imported = identity(folder, "roof").text
    assert script == by_module == imported
    assert len(read_identity(script).fingerprint) == 16


def test_it_is_the_same_in_a_package_a_namespace_package_and_as_python_m(tmp_path: Path) -> None:
    package = write(
        tmp_path,
        {
            "space/inner/roof.py": PROJECT["experiments/roof.py"].replace("experiments.", ""),
            "physics.py": "from space.inner import tables\ndef gain(x):\n    return tables.FACTOR",
            "space/inner/tables.py": "FACTOR = 3\n",
        },
    )
    usual = identity(package, "space.inner.roof").fingerprint
    (package / "space/inner/tables.py").write_text("FACTOR = 4\n")
    assert len({usual, identity(package, "space.inner.roof").fingerprint, ""}) == 3


def test_a_module_that_an_experiment_imports_only_when_it_runs_counts(tmp_path: Path) -> None:
    lazy = "def gain(x):\n    import importlib\n    return importlib.import_module('late').X\n"
    folder = write(tmp_path, {**PROJECT, "experiments/physics.py": lazy, "late.py": "X = 1\n"})
    before = identity(folder).fingerprint
    (folder / "late.py").write_text("X = 2\n")
    assert identity(folder).fingerprint != before


def test_long_odd_and_unreadable_sources_have_one_too(tmp_path: Path) -> None:
    folder = write(tmp_path, PROJECT)
    (folder / "helper.py").write_text(f"A = [{'1, ' * 600_000}]\ndef twice(x):\n    return x\n")
    long = identity(folder).fingerprint
    (folder / "helper.py").write_text("A = " + " + ".join(["1"] * 900) + "\n")
    deep = identity(folder).fingerprint
    (folder / "helper.py").write_bytes(b"# coding: latin-1\nA = '\xe9'\nB = 0x" + b"f" * 6000)
    coded = identity(folder).fingerprint
    (folder / "helper.py").write_text("this is {{ no }} Python")
    assert len({long, deep, coded, identity(folder).fingerprint, ""}) == 5


def test_an_installed_package_counts_with_its_version(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "site-packages"
    write(site, {"roofs/__init__.py": "", "roofs/one.py": HEAD + "import pandas\n" + MODEL})
    with (site / "roofs/one.py").open("a") as file:
        file.write(PROJECT["experiments/roof.py"].split(MODEL)[1].replace("gain(spec.x)", "1"))

    def found(version: str) -> CodeIdentity:
        text = f"Metadata-Version: 2.1\nName: roofs\nVersion: {version}\n"
        write(site, {"roofs-1.dist-info/METADATA": text})
        return identity(site, "roofs.one")

    first, second = found("1.0"), found("1.1")
    assert (first.version, second.version) == ("1.0", "1.1")
    assert first.fingerprint != second.fingerprint
    assert found("1.0") == first
    with (site / "roofs/one.py").open("a") as file:
        file.write("X = 2\n")  # installed again under the same version
    assert found("1.0").fingerprint != first.fingerprint


def git(folder: Path, *command: str) -> str:
    options = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(folder)]
    return subprocess.run(
        ["git", *options, *command], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_it_names_version_and_commit_and_says_what_is_not_committed(tmp_path: Path) -> None:
    folder = write(tmp_path, {**PROJECT, "pyproject.toml": "[project]\nname='x'\nversion='2.1'\n"})
    assert (identity(folder).version, identity(folder).commit) == ("2.1", "")
    git(folder, "init", "-q")
    assert identity(folder).commit == ""
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "x")
    head = git(folder, "rev-parse", "HEAD")
    assert identity(folder).commit == head
    (folder / "unrelated.py").write_text("A = 2\n")
    assert identity(folder).commit == head
    (folder / "helper.py").write_text("def twice(x):\n    return 4 * x\n")
    assert identity(folder).commit == f"{head}-dirty"


def make(factor: int):  # type: ignore[no-untyped-def]
    def inner(x: int) -> int:
        return factor * x + len(PROJECT)

    return inner


def test_a_function_inside_another_counts_with_what_it_uses() -> None:
    import cloudpickle

    ones = identify(make(1)).fingerprint
    assert len(ones) == 16
    assert identify(make(1)).fingerprint == ones != identify(make(2)).fingerprint
    assert identify(cloudpickle.loads(cloudpickle.dumps(make(1)))).fingerprint == ones


NOTEBOOK = """
import cloudpickle, subprocess, sys
cells = {{}}
def helper(x):
    return x + {number}
def simulate(x):
    return helper(x)
from scythe.provenance.identity import identify
own = identify(simulate).text
code = "import sys, cloudpickle; from scythe.provenance.identity import identify;"
code += "print(identify(cloudpickle.load(sys.stdin.buffer)).text)"
data = cloudpickle.dumps(simulate)
other = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
assert other.stdout.decode().strip() == own, (other.stdout, own)
print(own)
"""


def test_a_function_at_a_prompt_is_the_same_where_it_is_sent_to(tmp_path: Path) -> None:
    found = [run(tmp_path, NOTEBOOK.format(number=number)) for number in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    assert all(len(one) == 16 for one in found)


def test_what_cannot_be_identified_has_no_fingerprint() -> None:
    assert identify(len).text == identify(len).text
    assert identify(object()) == CodeIdentity()
    assert read_identity("") == CodeIdentity()
    whole = CodeIdentity("f" * 16, "1.0", "abc-dirty")
    assert read_identity(whole.text) == whole
    assert read_identity(CodeIdentity("f" * 16, "", "abc").text).commit == "abc"


names = st.sampled_from(["a", "b", "pkg.c", "pkg.d", "pkg.sub.e"])
values = st.integers(0, 3)


@st.composite
def projects(draw: st.DrawFn) -> dict[str, str]:
    """Some modules that import each other, each with values; all are reached from `root`."""
    chosen = draw(st.lists(names, unique=True, min_size=1))
    files: dict[str, str] = {"root.py": "".join(f"import {name}\n" for name in chosen)}
    for name in chosen:
        others = draw(st.lists(st.sampled_from(chosen), unique=True))
        text = "".join(f"def f():\n    from {one} import VALUE\n" for one in others)
        path = name.replace(".", "/") + ".py"
        files[path] = f"{text}VALUE = {draw(values)}\nNAME = {draw(st.text(max_size=8))!r}\n"
    return files


def fingerprint_below(folder: Path) -> frozenset[tuple[str, str]]:
    sys.path.insert(0, str(folder))
    try:
        root = Module("root", str(folder / "root.py"))
        return frozenset((one.stem, source.digest) for one, source in project_sources(root))
    finally:
        sys.path.remove(str(folder))


@settings(max_examples=200)  # each writes four folders of files
@given(projects(), st.data())
def test_the_same_files_are_the_same_code_wherever_they_lie_and_each_change_is_another(
    files: dict[str, str], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        before = fingerprint_below(write(Path(one), files))
        assert fingerprint_below(write(Path(other) / "deeper", files)) == before
        assert len(before) == len(files)
        changed = data.draw(st.sampled_from(sorted(files)))
        write(Path(one), {changed: files[changed] + "\nMORE = 1\n"})
        assert fingerprint_below(Path(one)) != before
        write(Path(one), {changed: f"{files[changed]}# a comment\n"})
        assert fingerprint_below(Path(one)) == before
