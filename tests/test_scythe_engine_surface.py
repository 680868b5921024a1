"""The public surface of the real scythe-engine 1.3.0, read from its source, against this package.

What is meant to differ stands in `MEANT`, each with its reason; anything else fails, and so does an
entry that is no difference any more.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import platformdirs
import pytest
from pydantic import BaseModel
from pydantic_settings import BaseSettings

from scythe.errors import RegistrationError
from scythe.registry import ExperimentRegistry

VERSION = "1.3.0"
ALLOCATES = "a step of `allocate`, which checks, uploads and starts in one go"
NODES = "a step of a scatter node, which is a durable task here (scythe.scatter)"
LIMITS = "a run or a queue that takes an hour is usual: finished work was lost"
LOGGERS = "nobody's: loggers are named in docs/observability.md"
TYPES = "a type variable of scythe-engine's own functions"
MEANT = {
    "scythe.base.ExperimentInputSpec.sort_index": "specs may leave it out: `allocate` gives it",
    "scythe.experiments.ExperimentRun.construct_manifest": ALLOCATES,
    "scythe.experiments.ExperimentRun.overwrite_spec_meta": ALLOCATES,
    "scythe.experiments.upload_input_artifacts": ALLOCATES,
    "scythe.experiments.logger": LOGGERS,
    "scythe.registry.ExperimentRegistry.Register(execution_timeout)": "read when it is used",
    "scythe.registry.ExperimentRegistry.Register(schedule_timeout)": "read when it is used",
    "scythe.scatter_gather.ScatterGatherInput.add_root_workflow_run_id": NODES,
    "scythe.scatter_gather.ScatterGatherInput.create_recursion_payloads": NODES,
    "scythe.scatter_gather.ScatterGatherInput.is_base_case": NODES,
    "scythe.scatter_gather.ScatterGatherInput.run_experiments": NODES,
    "scythe.scatter_gather.ScatterGatherInput.run_or_recurse": NODES,
    "scythe.scatter_gather.ScatterGatherInput.save_errors": "errors are always saved",
    "scythe.scatter_gather.ResultDataContent": TYPES,
    "scythe.scatter_gather.ZipDataContent": TYPES,
    "scythe.scatter_gather.logger": LOGGERS,
    "scythe.settings.TimeoutSettings.EXPERIMENT_EXECUTION": LIMITS,
    "scythe.settings.TimeoutSettings.EXPERIMENT_SCHEDULE": LIMITS,
    "scythe.settings.TimeoutSettings.SCATTER_GATHER_EXECUTION": LIMITS,
    "scythe.settings.TimeoutSettings.SCATTER_GATHER_SCHEDULE": LIMITS,
    "scythe.utils.filesys.fetch_uri(s3)": "by default the store's own client",
    "scythe.utils.filesys.logger": LOGGERS,
    "scythe.utils.results.logger": LOGGERS,
}


def download(name: str, kind: str) -> Path:
    """Return a file of the release, kept in the user's cache folder."""
    file = Path(platformdirs.user_cache_dir("scythe")) / "scythe-engine" / name
    if not file.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", kind, ":all:"]
        target = ["--dest", str(file.parent), f"scythe-engine=={VERSION}"]
        subprocess.run([*pip, *target], check=True)
    return file


@pytest.fixture(scope="module")
def sources() -> dict[str, ast.Module]:
    """The modules of the wheel by name, parsed and not imported."""
    wheel = download(f"scythe_engine-{VERSION}-py3-none-any.whl", "--only-binary")
    with zipfile.ZipFile(wheel) as archive:
        return {
            name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): ast.parse(
                archive.read(name)
            )
            for name in archive.namelist()
            if name.endswith(".py")
        }


def is_public(name: str) -> bool:
    return not name.startswith("_")


def find(path: str) -> Any:
    """Return what a dotted path names here; a field of a model as `model_fields` has it."""
    module, _, name = path.rpartition(".")
    if not module:
        return importlib.import_module(name)
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        owner = find(module)
    fields = field_of(owner, name)
    return getattr(owner, name) if fields is None else fields


def field_of(owner: Any, name: str) -> Any:
    if not (isinstance(owner, type) and issubclass(owner, BaseModel)):
        return None
    fields = owner.model_fields
    lower = name.lower() if name.isupper() else name  # both spellings work, see `scythe.worker`
    return fields.get(name) or fields.get(lower)


def differences(sources: dict[str, ast.Module]) -> Iterator[tuple[str, str]]:
    """Yield what differs: where, and how."""
    for module, tree in sources.items():
        for path, node in public_nodes(module, tree):
            try:
                found = find(path)
            except (AttributeError, ModuleNotFoundError):
                yield path, "missing"
                continue
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from differing_parameters(path, node, found)
            if isinstance(node, ast.AnnAssign):
                yield from differing_field(path, node, found)
            if isinstance(node, ast.ClassDef):
                yield from differing_variables(path, node, found)


def public_nodes(module: str, tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Yield what a module defines, and what its classes do, by dotted paths."""
    for node in tree.body:
        for name in names_of(node):
            yield f"{module}.{name}", node
        if isinstance(node, ast.ClassDef) and is_public(node.name):
            for member in node.body:
                for name in names_of(member):
                    yield f"{module}.{node.name}.{name}", member


def names_of(node: ast.AST) -> Iterator[str]:
    """Yield the public names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        hooks = [
            ast.unparse(one) for one in node.decorator_list
        ]  # pydantic calls them, nobody else
        names = (
            [] if any("validator" in one or "serializer" in one for one in hooks) else [node.name]
        )
    elif isinstance(node, ast.AnnAssign):
        names = [ast.unparse(node.target)]
    elif isinstance(node, ast.Assign):
        names = [ast.unparse(target) for target in node.targets]
    else:
        names = []
    yield from filter(is_public, names)


def differing_parameters(
    path: str, node: ast.FunctionDef | ast.AsyncFunctionDef, found: Any
) -> Iterator[tuple[str, str]]:
    """Yield the parameters that cannot be passed as there, or have another default."""
    is_property = any("property" in ast.unparse(item) for item in node.decorator_list)
    if is_property or not callable(found) or isinstance(found, type):
        return
    ours = inspect.signature(found).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in ours.values())
    arguments = node.args
    names = [one.arg for one in (*arguments.posonlyargs, *arguments.args)]
    defaults = dict(zip(reversed(names), reversed(arguments.defaults), strict=False))
    only = {
        one.arg: default
        for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    }
    for name in [*names, *only]:
        if name in ("self", "cls"):
            continue
        default = defaults.get(name, only.get(name))
        if name not in ours:
            if not takes_any:
                yield f"{path}({name})", "missing"
        elif default is None:
            if ours[name].default is not inspect.Parameter.empty:
                continue  # it may be left out here, which harms nobody
        else:
            there, here = ast.unparse(default), ours[name].default
            if here is inspect.Parameter.empty or repr(here) != there:
                yield f"{path}({name})", f"{there} there, {here!r} here"
    positions = [name for name in names if name not in ("self", "cls") and name in ours]
    order = [name for name in ours if name in positions]
    if positions != order:
        yield f"{path}()", f"{positions} there, {order} here"


def differing_field(path: str, node: ast.AnnAssign, found: Any) -> Iterator[tuple[str, str]]:
    """Yield a field that must be given here and not there, or has another default."""
    if not hasattr(found, "is_required") or node.value is None:
        return
    there = node.value
    default: ast.expr | None = there
    if isinstance(there, ast.Call) and ast.unparse(there.func) == "Field":
        given = {one.arg: one.value for one in there.keywords}
        default = given.get("default", there.args[0] if there.args else None)
        if "default_factory" in given:
            return
    text = "..." if default is None else ast.unparse(default)
    if text in ("...", "Ellipsis"):
        if not found.is_required():
            yield path, f"required there, {found.default!r} here"
        return
    if found.is_required() or not same_default(text, found.default):
        yield path, f"{text} there, {found.default!r} here"


def same_default(text: str, default: Any) -> bool:
    from datetime import timedelta

    return eval(text, {"timedelta": timedelta}) == default


def differing_variables(path: str, node: ast.ClassDef, found: Any) -> Iterator[tuple[str, str]]:
    """Yield environment variables that are not read here."""
    prefixes = [one.value for one in node.keywords if one.arg == "env_prefix"]
    if not prefixes or not issubclass(found, BaseSettings):
        return
    there = ast.literal_eval(prefixes[0])
    here = found.model_config.get("env_prefix")
    if there != here:
        yield f"{path}[env_prefix]", f"{there} there, {here} here"


def test_all_that_scythe_engine_has_is_here(sources: dict[str, ast.Module]) -> None:
    found = dict(differences(sources))
    new = {path: how for path, how in found.items() if path not in MEANT}
    assert new == {}, "not meant: give it to scripts of scythe-engine, or a reason in MEANT"


def test_what_is_meant_is_still_a_difference(sources: dict[str, ast.Module]) -> None:
    assert set(MEANT) - set(dict(differences(sources))) == set()


def test_the_wheel_is_read_and_not_imported(sources: dict[str, ast.Module]) -> None:
    import scythe

    assert len(sources) == 12
    assert Path(scythe.__file__ or "").parent == Path(__file__).parent.parent / "scythe"


# What pages of the documentation leave to the reader, or have written in earlier blocks.
PRELUDE = """
import pathlib, typing
from pathlib import Path
from typing import Literal
import numpy as np
import pandas as pd
from pydantic import Field
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.experiments import BaseExperiment
from scythe.registry import ExperimentRegistry
from pydantic import FilePath, HttpUrl
from scythe.utils.filesys import FileReference, S3Url
from scythe.worker import ScytheWorkerLabel

class MyInput(ExperimentInputSpec):
    temperature: float = 1
    material: str = ""

class MyOutput(ExperimentOutputSpec):
    energy: float = 0

BuildingSpec, BuildingOutput = MyInput, MyOutput
"""
NEEDS_SERVICES = ("allocate(", ".start(", "boto3", "ref.", "latest", "versions", "my_pipeline")
NEEDS_SERVICES += ("settings = Scythe",)
OF_THE_READER = (
    "my_experiments",
    "my_workflows",
    "my_workflow",
    "experiments.",
    "from experiments",
)


def snippets() -> dict[str, str]:
    """Return the Python blocks of README and documentation, by page and number."""
    found: dict[str, str] = {}
    with tarfile.open(download(f"scythe_engine-{VERSION}.tar.gz", "--no-binary")) as archive:
        for member in archive.getmembers():
            file = archive.extractfile(member) if member.name.endswith(".md") else None
            if file is None or "blog" in member.name:
                continue
            blocks = re.findall(
                r"```py(?:thon)?\b[^\n]*\n(.*?)```", file.read().decode(), re.DOTALL
            )
            page = member.name.partition("/")[2]
            found |= {f"{page} {number}": block for number, block in enumerate(blocks, 1)}
    return found


def test_what_the_documentation_imports_is_here() -> None:
    names: set[tuple[str, str]] = set()
    for block in snippets().values():
        for module, imported in re.findall(
            r"^from (scythe[.\w]*) import (.+)$", block, re.MULTILINE
        ):
            names |= {(module, name.strip()) for name in imported.split("#")[0].split(",")}
    assert len(names) == 12
    for module, name in names:
        assert hasattr(importlib.import_module(module), name), (module, name)


def test_the_blocks_of_the_documentation_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page in a module of its own; what needs services is a program of the acceptance."""
    ran: list[str] = []
    pages: dict[str, ModuleType] = {}
    for where, block in snippets().items():
        if any(word in block for word in (*NEEDS_SERVICES, *OF_THE_READER)):
            continue
        page = where.rpartition(" ")[0]
        monkeypatch.setattr(ExperimentRegistry, "_experiments", {})
        if page not in pages:
            pages[page] = ModuleType(f"page_{len(pages)}")
            exec(PRELUDE, vars(pages[page]))
        monkeypatch.setitem(sys.modules, pages[page].__name__, pages[page])
        try:
            exec(compile(block, where, "exec"), vars(pages[page]))
        except SyntaxError:
            continue  # prose with dots in place of code
        except (NameError, RegistrationError) as error:
            if "is not defined" not in str(error):  # what a block with dots should have defined
                raise
            continue
        ran.append(where)
    assert len(ran) >= 15, ran
