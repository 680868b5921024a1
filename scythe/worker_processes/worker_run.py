"""One run of a worker: checks, start of its processes, and the lines that describe it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from multiprocessing import get_context

from scythe.errors import WorkerStartError
from scythe.labels import required_labels
from scythe.leaf_classes import limit_of
from scythe.outcomes import StoreConfig
from scythe.processes import logs as worker_logs
from scythe.processes.semaphores import start_tracker
from scythe.worker_processes.banner import ProcessFacts, WorkerFacts, banner
from scythe.worker_processes.child_process import ChildProcess
from scythe.worker_processes.process_spec import ProcessReady, ProcessSpec, Work, plan_processes
from scythe.worker_processes.supervisor import Supervisor

logger = logging.getLogger("scythe.worker")


class WorkerRun:
    """A worker from its start to its end.

    Args:
        base: The settings of all its processes.
        work: Its work.
        fan: Whether it handles scatter and gather.
        leaf: Whether it handles experiments.

    Raises:
        WorkerStartError: It has nothing to serve.
    """

    def __init__(self, base: ProcessSpec, work: Work, *, fan: bool, leaf: bool) -> None:
        self._plans = plan_processes(base, work, fan=fan, leaf=leaf)
        self._needs = {
            item.name: required_labels(item.options.desired_worker_labels)
            for item in work.experiments
        }
        self._weights = {item.name: limit_of(item.options).slots for item in work.experiments}
        self._store: StoreConfig | None = None
        self._supervisor = Supervisor(self._plans, self._announce)

    def run(self) -> int | None:
        """Serve until a stop is requested.

        Returns:
            The signal that killed it at once, or None after a graceful stop.

        Raises:
            ScytheError: It cannot start, or one of its processes keeps dying.
        """
        worker_logs.configure("worker")
        try:
            self._check()
            self._supervisor.run()
        finally:
            self._supervisor.close()
        logger.info("%s has stopped.", self._plans[0].name)
        return self._supervisor.forced_by

    def stop(self) -> None:
        """Request a graceful stop; a second call stops at once. Any thread may call it."""
        self._supervisor.stop()

    def _check(self) -> None:
        """Check executor, shared memory, engine and bucket before any process starts.

        The worker processes check the engine further; importing the Hatchet SDK here as well would
        delay them by seconds.
        """
        from scythe.environment import require_engine
        from scythe.executor import load_executor_factory
        from scythe.settings import store_config
        from scythe.storage.store import Store

        for plan in self._plans:
            if plan.role == "leaf":
                load_executor_factory(plan.executor)
        _check_shared_memory()
        require_engine()
        if any(plan.role != "tasks" for plan in self._plans):
            self._store = store_config()
            Store(self._store, patience=0).check()

    def _announce(self, children: Sequence[ChildProcess]) -> None:
        leaves = [child.ready for child in children if child.ready and child.plan.role == "leaf"]
        absent = ProcessReady(0, labels=leaves[0].labels if leaves else {})
        facts = [ProcessFacts(child.plan, child.ready or absent, child.pid) for child in children]
        engine = next((fact.ready.engine for fact in facts if fact.ready.engine), "")
        worker = WorkerFacts(facts, engine, self._store, self._needs, self._weights)
        logger.info("%s", banner(worker))


def _check_shared_memory() -> None:
    """Raise unless processes can share locks, which the SDK needs."""
    start_tracker()
    try:
        get_context("spawn").Lock()
    except OSError as error:
        raise WorkerStartError(
            f"The processes of a worker cannot share memory in /dev/shm ({error.strerror}). Free "
            "space there (`df /dev/shm`), or give the container more with --shm-size."
        ) from error
