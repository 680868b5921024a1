"""Start, stop and remove a local stack."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from shutil import rmtree

from scythe.errors import StackError
from scythe.stack.connection import StackConnection, running
from scythe.stack.files import locked
from scythe.stack.paths import (
    HOME_VARIABLE,
    PARTS,
    Layout,
    check_parents,
    layout_of,
    private_folder,
)
from scythe.stack.starting import start_stack
from scythe.stack.state import is_own_state, read_state, write_state
from scythe.stack.stopping import stop_parts, stop_strays

_OLD_FILES = ("lock", "secrets.json", "state.json.new")

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
    start(home, report)
    found = running(home)
    if found is None:
        raise StackError("The local stack has ended again. Run `scythe dev status`.")
    return found


def start(home: Path | None, report: Report) -> tuple[str, ...]:
    """Do what `up` does, and return the parts that were started by it."""
    layout = layout_of(home)
    with _sentences(layout):
        _claim(layout)
        with _locked(layout, report):
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
    with _sentences(layout):
        if not _is_stack(layout):
            return False
        with _locked(layout, report):
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
    with _sentences(layout):
        if not _is_stack(layout):
            _refuse_foreign(layout)
            return
        with _locked(layout, report):
            try:
                _stop(layout, PARTS, report)
            except StackError:
                report("the state file is damaged; whatever works in the data folder is ended")
                stop_strays(layout, PARTS, grace=0)
            _remove(layout)
        with suppress(OSError):  # somebody else may have put a file there
            layout.home.rmdir()


def _stop(layout: Layout, parts: tuple[str, ...], report: Report) -> bool:
    state = read_state(layout)
    if state is None:
        return stop_strays(layout, parts, grace=0)
    ran = stop_parts(layout, state, parts, report)
    # A `scythe dev` that was killed may have left what nobody knows of.
    ran = stop_strays(layout, parts, grace=0) or ran
    with suppress(OSError):  # a full disk: that they are dead is seen without a note, too
        write_state(layout, state.without(*parts))
    return ran


def _remove(layout: Layout) -> None:
    sockets = layout.sockets
    if layout.socket_link.is_symlink() and sockets.parent == Path(tempfile.gettempdir()):
        rmtree(sockets, ignore_errors=True)
    ours = [layout.postgres, layout.s3, layout.engine, layout.logs, layout.socket_link]
    # The marker goes last: a removal that was interrupted can be done again.
    ours += [layout.home / name for name in _OLD_FILES]
    for path in [*ours, layout.state_file, layout.marker]:
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(path.lstat().st_mode):
                rmtree(path)
            else:
                path.unlink()


def _is_stack(layout: Layout) -> bool:
    """Return whether a folder is one that Scythe made for a stack, and still this user's."""
    if not layout.marker.is_file() and not is_own_state(layout):
        return False
    check_parents(layout.home, f"Choose another with {HOME_VARIABLE}.")
    if layout.home.stat().st_uid != os.geteuid():
        raise StackError(f"The local stack in {layout.home} belongs to another user.")
    return True


def _claim(layout: Layout) -> None:
    """Make the data folder a stack's: a new or empty folder, or one that is a stack's already."""
    if not _is_stack(layout):
        _refuse_foreign(layout)
    private_folder(layout.home)
    layout.marker.touch(mode=0o600)


def _refuse_foreign(layout: Layout) -> None:
    """Refuse whatever is there, unless it is an empty folder."""
    what = "is a file"
    if layout.home.is_dir():
        first = min((file.name for file in layout.home.iterdir()), default=None)
        what = f"holds {first!r}, and no {layout.marker.name}" if first else ""
    if not what or not layout.home.exists():
        return
    raise StackError(
        f"{layout.home} is not the data folder of a local stack: it {what}. "
        f"Choose an empty folder, or a new one, with {HOME_VARIABLE}. If it is one that lost that "
        f"file, run: touch {layout.marker}"
    )


def _locked(layout: Layout, report: Report) -> AbstractContextManager[None]:
    waiting = f"waiting for another `scythe dev` that works on {layout.home}"
    return locked(layout.marker, lambda: report(waiting))


@contextmanager
def _sentences(layout: Layout) -> Generator[None]:
    """Say in a sentence what the system refused."""
    try:
        yield
    except OSError as err:
        where = err.filename or layout.home
        if isinstance(err, FileNotFoundError) and Path(where) == layout.marker:
            raise StackError(f"{layout.home} was removed by another `scythe dev reset`.") from err
        if err.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StackError(
                f"The disk of {where} is full. Free some space, then run the command again."
            ) from err
        raise StackError(
            f"{where} cannot be used: {err.strerror or err}. Put it right, or choose another data "
            f"folder with {HOME_VARIABLE}."
        ) from err
