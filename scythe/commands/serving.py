"""The command that starts a worker: `worker`."""

from __future__ import annotations

import ast
import os
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from scythe.commands import show
from scythe.commands.base import Json, add
from scythe.commands.reloading import Reloader
from scythe.errors import SettingsError
from scythe.executor import available_executors
from scythe.provenance.project import Module, find_module
from scythe.worker import ScytheWorkerConfig

_EXECUTOR = "SCYTHE_WORKER_EXECUTOR"


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this family."""
    add(app, worker)


def worker(
    code: Annotated[str, typer.Argument(metavar="CODE", help="A script or a module.")] = "main.py",
    executor: Annotated[str | None, typer.Option(help="Where leaves run: local, ray.")] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start again when a Python file changes.")
    ] = False,
    json: Json = False,
) -> int:
    """Start a worker: what `python main.py` does.

    For a module that starts none, this starts one with the experiments that it registers.
    """
    target = _find(code)
    if executor is not None:
        _check_executor(executor)
        os.environ[_EXECUTOR] = executor
    if json:
        show.line(show.as_json({"command": target.command, "pid": os.getpid()}, in_one_line=True))
    sys.stdout.flush()
    if not reload:
        os.execv(target.command[0], target.command)  # noqa: S606 - as if the user had typed it
    return Reloader(target.command, target.module).run()


def serve_module(name: str) -> None:
    """Import a module, and start a worker for the experiments that it registers."""
    import_module(name)
    ScytheWorkerConfig().start()


@dataclass(frozen=True, slots=True)
class _Target:
    """The code that a worker is started from.

    Attributes:
        module: The script or module.
        command: Starts the worker in a process of its own.
    """

    module: Module
    command: list[str]


def _find(code: str) -> _Target:
    """Find a script or module, and put its folder where its imports are looked for."""
    path = Path(code)
    if path.suffix == ".py" or path.is_file():
        if not path.is_file():
            raise SettingsError(
                f"There is no script {code}. Give a script or a module: scythe worker main.py"
            )
        sys.path.insert(0, str(path.parent.absolute()))
        return _Target(Module(path.stem, str(path.absolute())), [sys.executable, code])
    sys.path.insert(0, str(Path.cwd()))
    is_name = all(step.isidentifier() for step in code.split("."))
    module = find_module(code) if is_name else None
    if module is None:
        raise SettingsError(
            f"There is no script and no module {code!r} here. Give one: scythe worker main.py"
        )
    main = find_module(f"{code}.__main__")
    if main is not None or _starts_a_worker(module):
        return _Target(main or module, [sys.executable, "-m", code])
    call = f"from scythe.commands.serving import serve_module; serve_module({code!r})"
    return _Target(module, [sys.executable, "-c", call])


def _starts_a_worker(module: Module) -> bool:
    """Return whether a module has `ScytheWorkerConfig(…).start()`, or the like."""
    try:
        tree = ast.parse(Path(module.file or "").read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False  # to import it says what is wrong
    nodes = list(ast.walk(tree))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    starts = any(isinstance(call, ast.Attribute) and call.attr == "start" for call in calls)
    return starts and any(name.endswith("WorkerConfig") for name in names)


def _check_executor(name: str) -> None:
    known = available_executors()
    if name not in known:
        raise SettingsError(f"--executor must be one of {', '.join(sorted(known))}, got {name!r}.")
