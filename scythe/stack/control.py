"""Start, stop and remove a local stack."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

from scythe.errors import StackError
from scythe.stack.connection import StackConnection
from scythe.stack.locks import locked
from scythe.stack.paths import HOME_VARIABLE, PARTS, Layout, layout_of, private_folder
from scythe.stack.starting import Start, start_stack
from scythe.stack.state import read_state, write_state
from scythe.stack.stopping import stop_parts, stop_strays

# Longer than a build and a start take: whoever waits gets the stack that the other one starts.
_LOCK_LIMIT = 3900.0  # seconds

Report = Callable[[str], None]


def _silent(_line: str) -> None:
    """Report nothing."""


def up(home: Path | None = None, report: Report = _silent) -> StackConnection:
    """Start the local stack, or what of it does not run, and wait until all of it answers.

    The processes outlive this one. If another process is starting the same stack, this waits for
    it and returns what that one has started.

    Args:
        home: The data folder; by default `SCYTHE_DEV_HOME`, else the user's own.
        report: Called with lines that say what is being done.

    Returns:
        How to use the stack.

    Raises:
        StackError: A part did not start. All that this call had started is stopped again.
    """
    return start(home, report).connection


def start(home: Path | None, report: Report) -> Start:
    """Do what `up` does, and say which parts were started by it.

    Args:
        home: The data folder; by default `SCYTHE_DEV_HOME`, else the user's own.
        report: Called with lines that say what is being done.

    Raises:
        StackError: A part did not start. All that this call had started is stopped again.
    """
    layout = layout_of(home)
    _refuse_foreign_folder(layout)
    private_folder(layout.home)
    with locked(layout.lock_file, timeout=_LOCK_LIMIT, waiting=_waiting(layout, report)):
        return start_stack(layout, report)


def stop(
    home: Path | None = None, report: Report = _silent, parts: tuple[str, ...] = PARTS
) -> bool:
    """End the processes of the stack and see them dead. The data stay.

    Args:
        home: The data folder; by default `SCYTHE_DEV_HOME`, else the user's own.
        report: Called with lines that say what is being done.
        parts: The parts to stop.

    Returns:
        Whether anything ran.

    Raises:
        StackError: A process could not be ended.
    """
    layout = layout_of(home)
    if not layout.state_file.exists():
        return False
    with locked(layout.lock_file, timeout=_LOCK_LIMIT, waiting=_waiting(layout, report)):
        return _stop(layout, parts, report)


def reset(home: Path | None = None, report: Report = _silent) -> None:
    """Stop the stack and delete its data, keys and logs.

    Args:
        home: The data folder; by default `SCYTHE_DEV_HOME`, else the user's own.
        report: Called with lines that say what is being done.

    Raises:
        StackError: A process could not be ended, or a folder not be removed.
    """
    layout = layout_of(home)
    if not layout.home.exists():
        return
    _refuse_foreign_folder(layout)
    with locked(layout.lock_file, timeout=_LOCK_LIMIT, waiting=_waiting(layout, report)):
        try:
            read_state(layout)
        except StackError:
            report("the state file is damaged; whatever works in the data folder is ended")
            stop_strays(layout, PARTS, grace=0)
        else:
            _stop(layout, PARTS, report)
        _remove(layout)
    with suppress(OSError):  # somebody else may have put a file there
        layout.home.rmdir()


def _stop(layout: Layout, parts: tuple[str, ...], report: Report) -> bool:
    state = read_state(layout)
    if state is None:
        return False
    ran = stop_parts(layout, state, parts, report)
    # A `scythe dev` that was killed may have left what nobody knows of.
    ran = stop_strays(layout, parts, grace=0) or ran
    for part in parts:
        state = state.without(part)
    write_state(layout, state)
    return ran


def _remove(layout: Layout) -> None:
    # The state goes last: a removal that was interrupted can be done again.
    for folder in (layout.postgres, layout.s3, layout.engine, layout.logs, layout.sockets):
        try:
            if folder.exists():
                rmtree(folder)
        except OSError as err:
            raise StackError(f"{err.filename} cannot be removed: {err.strerror}.") from err
    layout.secrets_file.unlink(missing_ok=True)
    layout.state_file.unlink(missing_ok=True)


def _refuse_foreign_folder(layout: Layout) -> None:
    """Keep `up` and `reset` away from a folder that holds something else."""
    if layout.state_file.exists() or not layout.home.is_dir():
        return
    own = {
        file.name
        for file in (
            layout.secrets_file,
            layout.lock_file,
            layout.logs,
            layout.engine,
            layout.s3,
            layout.home / "postgres",
            layout.home / "run",
        )
    }
    foreign = sorted(file.name for file in layout.home.iterdir() if file.name not in own)
    if foreign:
        raise StackError(
            f"{layout.home} is not the data folder of a local stack: it holds {foreign[0]!r}. "
            f"Choose an empty folder, or a new one, with {HOME_VARIABLE}."
        )


def _waiting(layout: Layout, report: Report) -> Callable[[], None]:
    return lambda: report(f"waiting for another `scythe dev` that works on {layout.home}")
