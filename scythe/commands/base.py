"""Common parts of all commands: arguments, exit codes, and how they end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import IntEnum
from functools import wraps
from typing import Annotated

import typer

from scythe.errors import EngineError, LeafFailed, RunFailedError, ScytheError, StorageError
from scythe.status import RunStatus

Command = Callable[..., int | None]

RunName = Annotated[
    str,
    typer.Argument(metavar="RUN", help="An id, EXPERIMENT, EXPERIMENT@v1.2.0 or @latest."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class ExitCode(IntEnum):
    """Exit codes of the commands."""

    GOOD = 0
    FAILED_LEAVES = 1
    WRONG_USE = 2
    NOT_REACHABLE = 3
    INTERRUPTED = 130
    PIPE_CLOSED = 141


def add(app: typer.Typer, function: Command, name: str | None = None) -> None:
    """Add a command to the app. Its exit code is what the function returns; None is good.

    Args:
        app: The app.
        function: The command; its docstring is the help.
        name: The name, by default that of the function.
    """

    @wraps(function)
    def run(*args: object, **options: object) -> None:
        try:
            code = function(*args, **options)
            sys.stdout.flush()
        except BrokenPipeError:
            # `scythe ... | head`: nobody reads any more, which is no error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = ExitCode.PIPE_CLOSED
        raise typer.Exit(code or ExitCode.GOOD)

    app.command(name or function.__name__)(run)


def exit_code(error: ScytheError) -> ExitCode:
    """Return the exit code of a command that ended with this error."""
    if isinstance(error, EngineError | StorageError):
        return ExitCode.NOT_REACHABLE
    if isinstance(error, LeafFailed | RunFailedError):
        return ExitCode.FAILED_LEAVES
    return ExitCode.WRONG_USE


def code_of(status: RunStatus) -> ExitCode:
    """Return the exit code of a command that shows a run."""
    is_good = not status.failed and status.state in ("queued", "running", "paused", "done")
    return ExitCode.GOOD if is_good else ExitCode.FAILED_LEAVES
