"""The rules of ARCHITECTURE.md: who may import whom, how large things are, what imports cost."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("scythe", "scythe_ray")
MODULE_LINES, FUNCTION_LINES = 400, 60
IMPORT_SECONDS = 0.3

# The modules and packages of `scythe`. Each may import only from the lines above its own.
LAYERS: list[set[str]] = [
    {
        "errors",
        "outcomes",
        "provenance",
        "labels",
        "durations",
        "semver",
        "status",
        "texts",
        "processes",
    },
    {"options", "stack"},
    {"leaf_classes", "environment"},
    {"executor", "settings"},
    {"messages", "storage"},
    {"tables", "engine", "utils"},
    {"base", "hatchet"},
    {"specs"},
    {"scatter"},
    {"experiment", "single", "scatter_gather"},
    {"registry", "runs"},
    {"locate", "runnable"},
    {"leaf", "experiments"},
    {"local", "worker_processes"},
    {"worker"},
    {"catalog"},
    {"commands"},
    {"cli"},
]
ALLOWED_BACKWARDS = {("experiment", "single")}  # `experiment.run(spec)` starts itself


@dataclass(frozen=True)
class Import:
    """One import: who imports what, at which level, and whether only for types."""

    importer: str
    module: str
    name: str | None
    line: int
    inside: bool
    for_types: bool

    @property
    def target(self) -> str:
        """The module that is imported, also where it is named as a member of its package."""
        whole = f"{self.module}.{self.name}"
        return whole if whole in modules() else self.module


@cache
def modules() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            steps = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(steps[:-1] if steps[-1] == "__init__" else steps)] = path
    return found


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text())


@cache
def imports_of(module: str) -> tuple[Import, ...]:
    return tuple(_walk(module, tree_of(module), inside=False, for_types=False))


def _walk(module: str, node: ast.AST, *, inside: bool, for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(module, alias.name, None, child.lineno, inside, for_types)
        elif isinstance(child, ast.ImportFrom):
            for alias in child.names:
                yield Import(
                    module, child.module or "", alias.name, child.lineno, inside, for_types
                )
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            yield from _walk(module, ast.Module(child.body, []), inside=inside, for_types=True)
            yield from _walk(
                module, ast.Module(child.orelse, []), inside=inside, for_types=for_types
            )
        else:
            within = inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from _walk(module, child, inside=within, for_types=for_types)


def all_imports() -> list[Import]:
    return [item for module in modules() for item in imports_of(module)]


def importers_of(*names: str) -> set[str]:
    """Return the modules of ours that import one of these, or something below it."""
    wanted = tuple(f"{name}." for name in names)
    return {item.importer for item in all_imports() if f"{item.target}.".startswith(wanted)}


def test_scythe_never_imports_ray() -> None:
    assert {
        name for name in importers_of("ray", "scythe_ray") if name.startswith("scythe.")
    } == set()


def test_only_the_store_imports_boto3() -> None:
    assert importers_of("boto3", "botocore") == {"scythe.storage.store"}


def test_hatchets_client_and_worker_are_used_in_one_module() -> None:
    using = importers_of("hatchet_sdk")
    assert using == {
        f"scythe.engine.{name}"
        for name in (
            *("client", "lookup", "running_node", "sdk_process", "sdk_queues", "standalone"),
            *("run_tasks", "tasks"),
        )
    }
    names = {
        i.name for i in imports_of("scythe.engine.tasks") if i.module.startswith("hatchet_sdk")
    }
    assert names <= {
        *{"Context", "DurableContext", "EvictionPolicy"},
        *{"ConcurrencyExpression", "ConcurrencyLimitStrategy"},
        *{"DesiredWorkerLabel", "WorkerLabelComparator", "NonRetryableException"},
    }


def test_one_sub_package_knows_the_local_stack() -> None:
    outside = {name for name in importers_of("scythe.stack") if not name.startswith("scythe.stack")}
    assert outside == {"scythe.environment", "scythe.cli"}


def test_packages_of_scythe_ray_import_downwards() -> None:
    """Each package may import from itself and from those in its row."""
    below = {
        "config": set[str](),
        "on_node": set[str](),
        "cluster": {"config"},
        "submit": {"config", "cluster", "on_node"},
    }
    wrong = {
        f"{i.importer} imports {i.target}"
        for i in all_imports()
        for package in [i.importer.split(".")[1:2]]
        if i.importer.startswith("scythe_ray.") and i.module.startswith("scythe_ray.")
        if package[0] in below and i.target.split(".")[1] not in below[package[0]] | {package[0]}
    }
    assert wrong == set()


def test_scythe_ray_uses_the_seam_and_no_engine() -> None:
    ours = {
        i.target
        for i in all_imports()
        if i.importer.startswith("scythe_ray") and i.module.startswith("scythe.")
    }
    assert "scythe.executor" in ours
    assert not ours & {
        "scythe.engine.client",
        "scythe.engine.tasks",
        "scythe.worker_processes.served_tasks",
        "scythe.worker",
        "scythe.storage.store",
    }


def test_heavy_imports_wait_until_they_are_needed() -> None:
    heavy = (
        "hatchet_sdk",
        "boto3",
        "botocore",
        "ray",
        "pandas",
        "pyarrow",
        "httpx",
        "rich",
        "psutil",
        "numpy",
    )
    eager = {
        f"{item.importer}:{item.line} {item.module}"
        for item in all_imports()
        if item.module.split(".")[0] in heavy and not item.inside and not item.for_types
    }
    # These are imported only where what they need is there already.
    allowed = ("scythe.processes.ending:", "scythe_ray.")
    assert {item for item in eager if not item.startswith(allowed)} == set()


def _find_cycle(graph: dict[str, set[str]]) -> list[str]:
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for other in sorted(graph[module]):
            cycle = visit(other, [*path, module])
            if cycle:
                return cycle
        done.add(module)
        return []

    return next((cycle for module in graph if (cycle := visit(module, []))), [])


def test_no_import_cycles_also_inside_functions() -> None:
    graph = {
        module: {
            item.target
            for item in imports_of(module)
            if item.target in modules() and not item.for_types and item.target != module
        }
        for module in modules()
    }
    # A package that loads its modules on demand names them only as text.
    assert _find_cycle(graph) == []


def test_the_check_for_cycles_sees_one() -> None:
    assert _find_cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert _find_cycle({"a": {"b"}, "b": set()}) == []


def test_layers_point_one_way() -> None:
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}

    def place(module: str) -> str:
        return module.split(".")[1]

    ours = {module for module in modules() if module.startswith("scythe.")}
    assert {place(module) for module in ours} == set(level)
    edges = {
        (place(item.importer), place(item.target))
        for item in all_imports()
        if {item.importer, item.target} <= ours and not item.for_types
    }
    wrong = {(above, to) for above, to in edges if above != to and level[to] >= level[above]}
    assert wrong == ALLOWED_BACKWARDS


def test_no_private_names_across_modules() -> None:
    private = {
        f"{item.importer}:{item.line} {item.name}"
        for item in all_imports()
        if item.name is not None
        and item.name.startswith("_")
        and not item.name.startswith("__")
        and item.target in modules()
    }
    assert private == set()


@pytest.mark.parametrize("module", modules())
def test_modules_and_functions_are_small(module: str) -> None:
    lines = modules()[module].read_text().count("\n")
    assert lines <= MODULE_LINES
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1}"
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= FUNCTION_LINES
    ]
    # A function whose docstring lists a long public signature may be longer by that.
    assert [name for name in long if name.split(":")[0] not in ("Register", "allocate")] == []


@pytest.mark.parametrize("module", modules())
def test_every_module_says_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(tree_of(module)), f"{module} has no docstring"


def run(code: str, **environment: str) -> str:
    """Run code in a fresh process with a bare environment, far from this repository."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd="/",
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


LOADED = """
    import sys
    heavy = {"hatchet_sdk", "boto3", "pandas", "pyarrow", "ray", "numpy", "httpx", "grpc"}
    print(*heavy.intersection(sys.modules))
"""


@pytest.mark.parametrize(
    "module",
    [
        *["scythe", "scythe_ray", "scythe.base", "scythe.registry", "scythe.experiments"],
        *["scythe.scatter_gather", "scythe.worker", "scythe.settings", "scythe.utils.filesys"],
        *["scythe.hatchet", "scythe.leaf.run", "scythe.executor", "scythe.cli"],
    ],
)
def test_importing_opens_nothing(module: str) -> None:
    code = f"""
        import os, socket, threading
        def refuse(*args, **kwargs):
            raise AssertionError("an import opened a socket")
        socket.socket.connect = refuse
        before = set(os.listdir("/proc/self/fd"))
        import {module}
        assert threading.active_count() == 1
        assert len(os.listdir("/proc/self/fd")) <= len(before)
    """
    assert run(textwrap.dedent(code) + textwrap.dedent(LOADED)) == ""


def test_a_leaf_runs_without_the_hatchet_sdk() -> None:
    code = """
        import sys
        from scythe.leaf.run import run_leaf
        import scythe.tables.gather, scythe.tables.user_tables
        import scythe.storage.fetch, scythe.storage.store
        assert "hatchet_sdk" not in sys.modules
    """
    run(code)


def test_import_scythe_is_fast() -> None:
    code = """
        import time
        started = time.perf_counter()
        import scythe
        print(time.perf_counter() - started)
    """
    assert min(float(run(code)) for _ in range(3)) < IMPORT_SECONDS


def test_what_a_script_imports_is_not_slow() -> None:
    code = """
        import time
        started = time.process_time()
        import scythe.base, scythe.registry, scythe.worker
        print(time.process_time() - started)
    """
    # pydantic alone is most of it; with the SDK, boto3 and pandas it would be some seconds.
    assert min(float(run(code)) for _ in range(3)) < 1.0


def test_the_page_on_architecture_is_short_and_names_every_package() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    assert len(page) < 8000
    named = {
        word for code in re.findall(r"`([^`\n]+)`", page) for word in re.split(r"[\s/.]+", code)
    }
    ours = {module.split(".")[1] for module in modules() if "." in module}
    assert ours - named == set()


PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (page.parent / link).exists()] == []


PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
SOURCES = ("scythe", "scythe_ray", "tests", "benchmarks", "examples")


@pytest.mark.parametrize("folder", SOURCES)
def test_no_docstring_begins_with_what_or_how(folder: str) -> None:
    riddles = [
        f"{path.relative_to(ROOT)}:{line} {text}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, text in _first_lines(ast.parse(path.read_text()))
        if re.match(r"(What|How)\b", text)
    ]
    # A function does something (imperative); a class or module is something (noun phrase).
    assert riddles == []


def _first_lines(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield getattr(node, "lineno", 1), (ast.get_docstring(node) or "").partition("\n")[0]


def test_the_check_of_docstrings_sees_one() -> None:
    tree = ast.parse('"""Well."""\n\nclass A:\n    """What it is.\n\n    More."""')
    assert list(_first_lines(tree)) == [(1, "Well."), (3, "What it is.")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_source_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`([a-z_]+(?:/[a-z_]+)+\.(?:py|go|sh))`", page.read_text())
    roots = (ROOT, ROOT / "scythe")
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []
