"""Starts, restarts and replaces the worker processes of a worker."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from scythe.errors import WorkerStartError
from scythe.worker_processes.child_process import ChildProcess, ProcessEntry
from scythe.worker_processes.process_spec import ProcessFailed, ProcessReady, ProcessSpec
from scythe.worker_processes.running_leaves import with_death
from scythe.worker_processes.shared_state import SharedState

logger = logging.getLogger("scythe.worker")


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """The restart policy for worker processes that died (times in seconds).

    Attributes:
        first: Delay after the first death; doubled with each further one.
        longest: The longest delay.
        healthy: Uptime after which earlier deaths no longer count.
        most: Number of deaths in short succession after which the worker gives up.
        start: Time within which a process must be ready.
    """

    first: float = 1.0
    longest: float = 30.0
    healthy: float = 60.0
    most: int = 5
    start: float = 300.0

    def delay(self, deaths: int) -> float:
        """Return the delay of a restart after this many deaths."""
        return min(self.longest, self.first * 2.0 ** (deaths - 1)) if deaths else 0.0


class ProcessGroup:
    """The worker processes of a worker.

    The first leaf process finds or starts the place where leaves run, such as a Ray cluster. The
    other leaf processes are its guests: they start after it, and only if that place has resources
    for them. When the slots of a process change, a replacement process starts; the old one serves
    until the new one is ready.

    Args:
        plans: The work of each process.
        on_ready: Called once, when all processes are ready for the first time.
        policy: The restart policy.
        entry: The main function of a process.

    Attributes:
        announced: Whether all processes have been ready at one time.
    """

    def __init__(
        self,
        plans: Sequence[ProcessSpec],
        on_ready: Callable[[Sequence[ChildProcess]], None],
        policy: RestartPolicy,
        entry: ProcessEntry,
    ) -> None:
        self.announced = False
        self._entry = entry
        self._policy = policy
        self._on_ready = on_ready
        self._board = SharedState(len(plans))
        self._children = [ChildProcess(plan, entry, self._board) for plan in plans]
        self._successors: dict[ChildProcess, ChildProcess] = {}
        self._leaving: list[ChildProcess] = []
        self._since: dict[ChildProcess, float] = {}  # time of the last start, readiness or death

    @property
    def everyone(self) -> list[ChildProcess]:
        """All processes, including replacements and those that are being replaced."""
        return [*self._children, *self._successors.values(), *self._leaving]

    @property
    def waitables(self) -> list[Connection | int]:
        """The objects to wait on (`multiprocessing.connection.wait`): events of all processes."""
        return [one for child in self.everyone for one in child.waitables]

    def next_event(self) -> float:
        """Return the time of the next start that is due."""
        down = [child for child in self._children if not child.is_up and self._is_wanted(child)]
        return min(map(self._due, down), default=float("inf"))

    def tend(self) -> None:
        """Handle all events since the last call: messages, deaths, due starts.

        Raises:
            WorkerStartError: A process cannot be started, or died too often.
        """
        for child in list(self._children):
            self._tend(child)
        for child in list(self._successors):
            self._tend_successor(child)
        for child in list(self._leaving):
            child.read()
            if child.has_ended():
                logger.info("%s has stopped (%s).", child, child.bury())
                self._leaving.remove(child)
        self._announce()

    @property
    def _host(self) -> ChildProcess | None:
        """The leaf process that finds or starts the place where leaves run."""
        hosts = (
            child for child in self._children if child.plan.role == "leaf" and not child.plan.guest
        )
        return next(hosts, None)

    def _is_wanted(self, child: ChildProcess) -> bool:
        if not child.plan.guest:
            return True
        place = self._host.ready if self._host is not None else None
        return place is not None and place.labels.items() >= child.plan.needs.items()

    def _due(self, child: ChildProcess) -> float:
        return self._since.get(child, float("-inf")) + self._policy.delay(child.tries)

    def _start(self, child: ChildProcess) -> None:
        host = self._host
        if child.plan.guest and host is not None and host.ready is not None:
            child.plan = replace(child.plan, shared=dict(host.ready.shared))
        self._since[child] = time.monotonic()
        child.start()
        logger.debug("%s starts.", child)

    def _tend(self, child: ChildProcess) -> None:
        now = time.monotonic()
        if child.is_up and self._is_elsewhere(child):
            logger.warning("%s: the executor moved; restarting.", child)
            child.bury()
        if not child.is_up:
            if self._is_wanted(child) and now >= self._due(child):
                self._start(child)
            return
        self._hear(child)
        if child.ready and child.tries and now > self._since[child] + self._policy.healthy:
            child.tries = 0
            child.deaths = 0
        if child.failure is not None and child.failure.for_good:
            raise WorkerStartError(child.failure.message)
        if self._is_late(child) or child.has_ended():
            self._deal_with_death(child)

    def _is_elsewhere(self, child: ChildProcess) -> bool:
        """Return whether a guest uses a place that the first leaf process has left."""
        place = self._host.ready if self._host is not None else None
        return child.plan.guest and place is not None and child.plan.shared != place.shared

    def _is_late(self, child: ChildProcess) -> bool:
        late = child.ready is None and time.monotonic() > self._since[child] + self._policy.start
        if late:
            child.failure = ProcessFailed(
                f"The {child.plan.title} worker process was not ready after "
                f"{self._policy.start:.0f} s. See in the log above what it is waiting for."
            )
        return late

    def _hear(self, child: ChildProcess) -> None:
        """Handle the messages of a process."""
        was_ready = child.ready is not None
        for message in child.read():
            if not isinstance(message, ProcessReady):
                continue
            if not was_ready:
                was_ready, self._since[child] = True, time.monotonic()
                if self.announced:
                    logger.info("%s is ready%s.", child, " again" if child.starts > 1 else "")
            elif message.slots != child.slots:
                self._start_successor(child, message)

    def _start_successor(self, child: ChildProcess, offer: ProcessReady) -> None:
        names = [one.plan.name for one in self._leaving]
        if child in self._successors or child.plan.name in names:
            return  # the process repeats the message
        plan = replace(child.plan, number=self._board.other(child.plan.number))
        successor = ChildProcess(plan, self._entry, self._board)
        self._successors[child] = successor
        logger.info(
            "%s: capacity changed from %d to %d slots (%s); starting a replacement process.",
            child,
            child.slots,
            offer.slots,
            offer.source,
        )
        self._start(successor)

    def _tend_successor(self, child: ChildProcess) -> None:
        successor = self._successors[child]
        self._hear(successor)
        if successor.ready is not None and child.is_up:
            self._replace(child)
            self._leaving.append(child)
            child.ask_to_stop()
        elif self._is_late(successor) or successor.has_ended():
            failure = successor.failure
            logger.warning(
                "Replacement: %s could not start (%s). %s stays.",
                successor,
                failure.message if failure else successor.bury(),
                child,
            )
            successor.bury()
            del self._successors[child]

    def _replace(self, child: ChildProcess) -> None:
        self._children[self._children.index(child)] = self._successors.pop(child)

    def _deal_with_death(self, child: ChildProcess) -> None:
        child.read()
        who = str(child)
        was_ready = child.ready is not None
        failure = child.failure
        is_fault = failure is None or not failure.away
        blamed = self._blame_leaves(child) if is_fault else 0
        how = child.bury()
        if not self.announced and not was_ready:
            raise WorkerStartError(
                failure.message
                if failure
                else f"{who} ended during its start ({how}). See the log above for the cause."
            )
        # Deaths with running leaves do not count as its own, until the guilty leaf is found.
        child.tries = max(child.tries, 1) if blamed else child.tries + 1
        child.deaths += is_fault and not blamed
        why = f"{how}: {failure.message}" if failure else how
        if child in self._successors:
            logger.error("%s died (%s).", who, why)
            self._replace(child)
            return
        if child.deaths >= self._policy.most:
            raise WorkerStartError(
                f"{who} died {child.deaths} times in short succession, the last time with {why}, "
                "and is not restarted. Find the cause in the log above, then start the worker."
            )
        self._since[child] = time.monotonic()
        delay = self._policy.delay(child.tries)
        logger.error("%s died (%s). Restarting it in %g s.", who, why, delay)

    def _blame_leaves(self, child: ChildProcess) -> int:
        """Record the leaves that ran in a process when it died; return their number."""
        running = self._board.leaves_of(child.plan.number).read()
        suspects = with_death(child.plan.suspects, running, time.monotonic())
        child.plan = replace(child.plan, suspects=suspects)
        if child in self._successors:
            successor = self._successors[child]
            successor.plan = replace(successor.plan, suspects=suspects)
        return len(running)

    def _announce(self) -> None:
        host = self._host
        if self.announced or (host is not None and host.ready is None):
            return
        if all(child.ready or not self._is_wanted(child) for child in self._children):
            self.announced = True
            self._on_ready(self._children)
