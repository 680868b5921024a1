"""The main loop of a pool process: take a call, run the leaf, send its result.

Only the main thread exists, and it runs the leaves, so user code may fork and gets signals.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import socket
import sys
from collections.abc import Callable
from os import _exit, getpid, kill
from pathlib import Path
from pickle import loads
from typing import IO, Any

from scythe.leaf.batch import BatchPlace, run_batch
from scythe.leaf.children import children_left
from scythe.leaf.failure import format_traceback
from scythe.leaf.faults import give_up
from scythe.leaf.log import LeafLog
from scythe.leaf.run import run_leaf
from scythe.leaf.state import DUMP_SIGNAL, ProcessState, give_forks_usual_signals
from scythe.local.pool_messages import (
    JOURNAL,
    Finished,
    NotStarted,
    Ready,
    Setup,
    Started,
    frame_of,
)
from scythe.locate import CodeNotFoundError, find_experiment, is_found
from scythe.outcomes import FailureKind, LeafCall, LeafFailure
from scythe.processes.ending import end_tree
from scythe.processes.frames import read_frame
from scythe.processes.keeper import adopt_orphans, get_keeper
from scythe.processes.spawning import prepare

_sendall = socket.socket.sendall  # references from before user code runs
_set_handler = signal.signal


class LeafInterrupted(BaseException):
    """Raised in a leaf that must end now, so that its `finally` blocks run."""


class _Interrupt:
    """The handler of SIGTERM: the first signal interrupts the leaf, the second exits."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, *_: Any) -> None:
        self.asked = True
        _set_handler(signal.SIGTERM, signal.SIG_DFL)
        raise LeafInterrupted

    def die(self) -> None:
        """Exit as if killed by the signal."""
        _set_handler(signal.SIGTERM, signal.SIG_DFL)
        kill(getpid(), signal.SIGTERM)
        _exit(1)  # SIGTERM is blocked


def main(descriptor: int) -> None:
    """Serve leaves over a socket until the worker closes it; never returns."""
    get_keeper()
    connection = socket.socket(fileno=descriptor)
    stream = connection.makefile("rb")
    interrupt = _Interrupt()
    try:
        frame = read_frame(stream)
        if frame is not None:
            _serve(loads(frame), connection, stream, interrupt)  # noqa: S301 - from the worker
    except LeafInterrupted:
        interrupt.die()
    except OSError:
        pass  # the worker is gone
    _exit(0)


def _serve(
    setup: Setup, connection: socket.socket, stream: IO[bytes], interrupt: _Interrupt
) -> None:
    crash = Path(setup.crash_file).open("ab", buffering=0)  # noqa: SIM115 - open as long as the process
    faulthandler.enable(crash)
    # Ctrl-C goes to the supervisor. A handler, because programs of leaves would inherit SIG_IGN.
    signal.signal(signal.SIGINT, _pass_over)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, DUMP_SIGNAL))
    adopt_orphans()
    failure = _prepare(setup)
    if failure is not None:
        _send(connection, NotStarted(failure))
        return
    signal.signal(signal.SIGTERM, interrupt)
    give_forks_usual_signals({signal.SIGTERM: interrupt, signal.SIGINT: _pass_over})
    log = LeafLog(Path(setup.log_file))
    process = _Process(setup.folder, interrupt, ProcessState(crash), log)
    _send(connection, Ready(os.getpid()))
    while (frame := read_frame(stream)) is not None:
        try:
            call: LeafCall = loads(frame)  # noqa: S301 - from the worker
            finished = process.run(call, lambda: _send(connection, Started()))
            _send(connection, finished)
        except (LeafInterrupted, ConnectionError):
            raise
        except BaseException as error:  # noqa: BLE001 - any exception of user code is an outcome
            give_up(crash.fileno(), error)


class _Process:
    """The environment of leaves in this process.

    Args:
        folder: Parent of the leaves' folders.
        interrupt: Interrupts the running leaf.
        state: Process state that is restored after each leaf.
        log: Captures the output of leaves.
    """

    def __init__(
        self, folder: str, interrupt: _Interrupt, state: ProcessState, log: LeafLog
    ) -> None:
        self._folder = folder
        self._interrupt = interrupt
        self._state = state
        self._log = log

    def run(self, call: LeafCall, started: Callable[[], None]) -> Finished:
        """Run a leaf or a batch; call `started` once its code is imported."""
        with self._log:
            if not is_found(call.code):
                with contextlib.suppress(CodeNotFoundError):  # run_leaf reports it
                    _ = find_experiment(
                        call.code
                    ).code  # computed here, outside of the leaf's time limit
                if sys.modules.get("__mp_main__") is not None:
                    # The leaf's own use of multiprocessing looks for the main script here.
                    sys.modules["__main__"] = sys.modules["__mp_main__"]
                self._state.accept()
            if self._interrupt.asked:
                self._interrupt.die()
            started()
            if call.batch is None:
                outcome = run_leaf(call, self._folder)
            else:
                journal = Path(self._folder) / JOURNAL
                place = BatchPlace(journal, self._folder, self._log, self._between, self._state)
                outcome = run_batch(call, call.batch, place)
        if self._interrupt.asked:
            self._interrupt.die()
        left = [f"{child.name()} ({child.pid})" for child in children_left()]
        self._state.note(outcome)
        self._state.restore()
        return Finished(self._log.added_to(outcome), [*left, *self._state.left])

    def _between(self, seconds: float) -> bool:
        """Restore the process after a leaf of a batch that took these seconds.

        Returns:
            Whether it may run the next leaf.
        """
        if self._interrupt.asked:
            self._interrupt.die()
        if not self._state.is_due(seconds):
            return True
        left = [child.pid for child in children_left()]
        if left:
            end_tree(left)
        self._state.restore_soon(seconds)
        return not self._state.is_used_up


def _prepare(setup: Setup) -> LeafFailure | None:
    """Import the main script as multiprocessing does, under the name `__mp_main__`."""
    try:
        prepare(setup.preparation)
    except BaseException as error:  # noqa: BLE001 - sys.exit in a script too
        return LeafFailure(
            kind=FailureKind.ENVIRONMENT,
            type=type(error).__qualname__,
            message=(
                f"The worker's script cannot be imported in the process that runs its leaves "
                f"({error}). A script must start its worker below `if __name__ == '__main__':`."
            ),
            traceback=format_traceback(error),
        )
    return None


def _pass_over(*_: Any) -> None:
    pass


def _send(connection: socket.socket, message: Any) -> None:
    _sendall(connection, frame_of(message))
