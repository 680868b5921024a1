"""The main function of a worker process: build its Hatchet worker, serve, stop on SIGTERM.

The main thread runs the SDK's event loop. A second thread monitors the supervisor, the SDK's child
process and the running leaves, and reports to the supervisor.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

from scythe.engine.leaf_counts import CountingExecutor
from scythe.engine.lost_tasks import wait_for_lost
from scythe.engine.sdk_logs import RENEWED, SdkErrors
from scythe.errors import EngineError, PlaceAwayError, ScytheError
from scythe.executor import ExecutorRequest, load_executor_factory
from scythe.processes import logs as worker_logs
from scythe.processes.ending import GRACE, MARK, end_tree
from scythe.processes.hidden_main import HiddenMain
from scythe.worker_processes.callbacks import ProcessCallbacks, flush
from scythe.worker_processes.capacity_watch import CapacityWatch, offer_of
from scythe.worker_processes.process_spec import (
    WIND_DOWN,
    ProcessFailed,
    ProcessMessage,
    ProcessReady,
    ProcessSpec,
    ProcessStopping,
)
from scythe.worker_processes.shared_executor import SharedExecutor
from scythe.worker_processes.shared_state import SharedState

_POLL = 0.05
_REPORT = 0.2
_EVICT_AGAIN = 2.0
_EXIT = 3.0

logger = logging.getLogger("scythe.worker")


def run_worker_process(plan: ProcessSpec, mark: str, pipe: Connection, board: SharedState) -> None:
    """Serve until SIGTERM. The process ends with this call.

    Args:
        plan: The work of this process.
        mark: Identifies this process and its descendants, see `scythe.processes.ending.MARK`.
        pipe: Carries `ProcessMessage`s to the supervisor.
        board: Memory shared by all worker processes.
    """
    leave_terminal()
    os.environ.update({**plan.environment, MARK: mark})
    worker_logs.configure(plan.title)
    WorkerProcess(plan, mark, pipe, board).run()


def leave_terminal() -> None:
    """Detach from the terminal: Ctrl-C and the like go to the supervisor only."""
    with contextlib.suppress(OSError):
        os.setsid()
    # A handler, because programs that leaves start would inherit SIG_IGN.
    signal.signal(signal.SIGINT, _pass_over)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def _pass_over(*_: Any) -> None:
    pass


class WorkerProcess:
    """A worker process, seen from inside.

    Args:
        plan: Its work.
        mark: The mark in the environment of all its processes.
        pipe: Carries messages to the supervisor.
        board: Memory shared by all worker processes.
    """

    def __init__(self, plan: ProcessSpec, mark: str, pipe: Connection, board: SharedState) -> None:
        self._plan = plan
        self._mark = mark
        self._pipe = pipe
        self._board = board
        self._executor: CountingExecutor | None = None
        self._place: CapacityWatch | None = None
        self._worker: Any = None
        self._worker_id = ""
        self._registered = False
        self._stopping = False
        self._evict_at = 0.0
        self._renewed = 0
        self._engine = ""
        self._ready = ProcessReady(slots=0)
        self._main = HiddenMain()
        self._sdk_errors = SdkErrors()
        self._host = ProcessCallbacks(self._send)

    def run(self) -> None:
        """Serve until SIGTERM, then end the process."""
        threading.Thread(target=self._watch, name="scythe-part", daemon=True).start()
        try:
            worker = self._make_worker()
            self._set_signals()
            self._main.hide()
            self._sdk_errors.install()
            self._worker = worker
            worker.start()
        except SystemExit:
            pass  # the SDK returns this way
        except ScytheError as error:
            # A guest waits for the first leaf process, which finds the cluster again.
            is_away = isinstance(error, EngineError | PlaceAwayError)
            self._fail(str(error), away=is_away or bool(self._plan.shared))
        except BaseException as error:
            logger.exception("This worker process cannot continue.")
            self._fail(self._sdk_errors.last or f"{type(error).__name__}: {error}")
        if not self._registered:
            self._fail(self._sdk_errors.last or "Hatchet did not register the worker.")
        self._leave()

    def _make_worker(self) -> Any:
        from scythe.engine.client import check_engine, make_worker, shift_health_port
        from scythe.locate import find_experiment
        from scythe.worker_processes.served_tasks import fan_worker, leaf_worker
        from scythe.worker_processes.workflow_ref import find_workflow

        plan = self._plan
        self._engine = check_engine()
        shift_health_port(plan.number)
        experiments = [find_experiment(ref) for ref in plan.experiments]
        workflows = [find_workflow(ref) for ref in plan.workflows]
        if plan.role == "leaf":
            executor = self._open_executor()
            return leaf_worker(
                plan.name,
                executor,
                experiments,
                workflows,
                dict(self._ready.labels),
                slots=self._ready.slots,
                durable_slots=plan.durable_slots,
                codes={ref.experiment: ref for ref in plan.experiments},
                step_back=self._host.step_back,
            )
        slots = plan.slots or plan.default_slots
        self._ready = ProcessReady(slots, labels=dict(plan.labels))
        make = fan_worker if plan.role == "fan" else make_worker
        return make(
            plan.name,
            workflows,
            slots=slots,
            durable_slots=plan.durable_slots,
            labels=dict(plan.labels),
        )

    def _open_executor(self) -> CountingExecutor:
        plan = self._plan
        request = ExecutorRequest(
            plan.slots,
            dict(plan.labels),
            plan.shutdown_timeout,
            plan.classes,
            plan.leaf_class,
            dict(plan.shared),
            self._host,
        )
        executor = load_executor_factory(plan.executor)(request)
        self._executor = CountingExecutor(SharedExecutor(executor, plan, self._board))
        self._ready = offer_of(executor.capacity, plan)
        return self._executor

    def _set_signals(self) -> None:
        """Stop gracefully on the first SIGTERM, and ignore others: the SDK would stop at once."""
        graceful: Any = signal.getsignal(signal.SIGTERM)

        def stop(number: int, frame: Any) -> None:
            if not self._registered:
                os._exit(128 + number)
            if not self._stopping:
                self._stopping = True
                graceful(number, frame)

        def renew(*_: Any) -> None:
            self._renewed += 1

        signal.signal(RENEWED, renew)
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, _pass_over)

    def _watch(self) -> None:
        """Monitor the supervisor, the SDK process and the running leaves, in a thread."""
        try:
            self._watch_all()
        except BaseException as error:
            logger.exception("Cannot monitor this worker process.")
            self._fail(f"{type(error).__name__}: {error}")

    def _watch_all(self) -> NoReturn:
        parent = multiprocessing.parent_process()
        supervisor = parent.sentinel if parent is not None else -1
        listener = self._watch_start(supervisor)
        self._registered = True
        self._main.show()
        self._sdk_errors.remove()
        self._send(replace(self._ready, engine=self._engine))
        if self._executor is not None:
            self._place = CapacityWatch(self._plan, self._update_labels, self._ready)
        threading.Thread(target=self._end_when_lost, name="scythe-lost", daemon=True).start()
        told = -1
        while True:
            gone = wait([supervisor, listener] if listener >= 0 else [supervisor], _REPORT)
            if supervisor in gone:
                self._stop_alone()
            if listener in gone:
                if not self._stopping:
                    self._fail(
                        "The connection to Hatchet ended because the SDK's child process died."
                    )
                listener = -1  # expected while stopping
            if not self._stopping:
                self._host.tell_engine(self._worker)
            self._evict_again()
            self._look_at_place()
            if self._stopping and told != self._running:
                told = self._running
                self._send(ProcessStopping(told))

    def _end_when_lost(self) -> None:
        """Stop gracefully for a restart if events were lost with the connection."""
        from scythe.engine.running_worker import sight_of

        waits = self._plan.role == "fan"
        message = wait_for_lost(
            lambda: sight_of(self._worker, self._renewed), lambda: self._stopping, waits=waits
        )
        if message:
            self._send(ProcessFailed(message, away=True))
            os.kill(os.getpid(), signal.SIGTERM)

    def _evict_again(self) -> None:
        """Give back nodes that the engine sent here again while this process was stopping."""
        from scythe.engine.running_worker import evict_nodes

        now = time.monotonic()
        if not self._stopping or self._plan.role != "fan":
            self._evict_at = now + _EVICT_AGAIN
        elif now >= self._evict_at:
            self._evict_at = now + _EVICT_AGAIN
            evict_nodes(self._worker)

    def _update_labels(self, labels: dict[str, str]) -> None:
        from scythe.engine.client import update_labels

        update_labels(self._worker, self._worker_id, labels)

    def _look_at_place(self) -> None:
        """Report a changed capacity to Hatchet and the supervisor."""
        if self._executor is None or self._place is None or self._stopping:
            return
        changed = self._place.changed(self._executor.capacity)
        if changed is not None:
            self._send(changed)

    def _watch_start(self, supervisor: int) -> int:
        """Wait until the worker is registered; return a file descriptor for the listener's end."""
        from scythe.engine.running_worker import listener_of, registered_id

        while True:
            listener = listener_of(self._worker) if self._worker is not None else None
            watched = [supervisor] if listener is None else [supervisor, listener.sentinel]
            gone = wait(watched, _POLL)
            if supervisor in gone:
                self._die()
            if listener is None:
                continue
            if listener.sentinel in gone:
                self._fail("Hatchet did not register the worker. See the log above.")
            if worker_id := registered_id(self._worker):
                self._worker_id = worker_id
                return listener.sentinel

    @property
    def _running(self) -> int:
        return self._executor.running if self._executor is not None else 0

    def _stop_alone(self) -> NoReturn:
        """Stop as the supervisor would have stopped this process, now that it is gone."""
        logger.error("The worker's supervisor is gone; stopping this worker process.")
        os.kill(os.getpid(), signal.SIGTERM)
        now = time.monotonic()
        last = now + self._plan.shutdown_timeout
        end = now + self._plan.shutdown_timeout + WIND_DOWN
        while now < (last if self._running else end):  # the process usually ends during this loop
            time.sleep(_POLL)
            now = time.monotonic()
        self._die()

    def _die(self) -> NoReturn:
        """Kill this process and its descendants."""
        try:
            end_tree(os.getpid(), GRACE, mark=self._mark)
        finally:
            os._exit(1)

    def _fail(self, message: str, *, away: bool = False) -> NoReturn:
        self._send(ProcessFailed(message, away))
        flush()
        os._exit(1)

    def _leave(self) -> NoReturn:
        """Exit after a graceful stop, once the SDK's child process has sent everything."""
        from scythe.engine.running_worker import listener_of

        if (listener := listener_of(self._worker)) is not None:
            listener.join(WIND_DOWN)
        # A normal exit frees semaphores; threads of user code must not prevent it.
        threading.Thread(target=_exit_after, args=(_EXIT,), daemon=True).start()
        sys.exit(0)

    def _send(self, message: ProcessMessage) -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone
            self._pipe.send(message)


def _exit_after(seconds: float) -> None:
    time.sleep(seconds)
    flush()
    os._exit(0)
