"""Starts, restarts and replaces the worker processes of a worker."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from scythe.errors import WorkerStartError
from scythe.parts.board import Board
from scythe.parts.handle import PartEntry, PartHandle
from scythe.parts.plan import PartFailed, PartPlan, PartReady
from scythe.parts.suspects import with_death

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


class PartSet:
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
        plans: Sequence[PartPlan],
        on_ready: Callable[[Sequence[PartHandle]], None],
        policy: RestartPolicy,
        entry: PartEntry,
    ) -> None:
        self.announced = False
        self._entry = entry
        self._policy = policy
        self._on_ready = on_ready
        self._board = Board(len(plans))
        self._parts = [PartHandle(plan, entry, self._board) for plan in plans]
        self._successors: dict[PartHandle, PartHandle] = {}
        self._leaving: list[PartHandle] = []
        self._since: dict[PartHandle, float] = {}  # time of the last start, readiness or death

    @property
    def everyone(self) -> list[PartHandle]:
        """All processes, including replacements and those that are being replaced."""
        return [*self._parts, *self._successors.values(), *self._leaving]

    @property
    def waitables(self) -> list[Connection | int]:
        """The objects to wait on (`multiprocessing.connection.wait`): events of all processes."""
        return [one for part in self.everyone for one in part.waitables]

    def next_event(self) -> float:
        """Return the time of the next start that is due."""
        down = [part for part in self._parts if not part.is_up and self._is_wanted(part)]
        return min(map(self._due, down), default=float("inf"))

    def tend(self) -> None:
        """Handle all events since the last call: messages, deaths, due starts.

        Raises:
            WorkerStartError: A process cannot be started, or died too often.
        """
        for part in list(self._parts):
            self._tend(part)
        for part in list(self._successors):
            self._tend_successor(part)
        for part in list(self._leaving):
            part.read()
            if part.has_ended():
                logger.info("%s has stopped (%s).", part, part.bury())
                self._leaving.remove(part)
        self._announce()

    @property
    def _host(self) -> PartHandle | None:
        """The leaf process that finds or starts the place where leaves run."""
        hosts = (part for part in self._parts if part.plan.role == "leaf" and not part.plan.guest)
        return next(hosts, None)

    def _is_wanted(self, part: PartHandle) -> bool:
        if not part.plan.guest:
            return True
        place = self._host.ready if self._host is not None else None
        return place is not None and place.labels.items() >= part.plan.needs.items()

    def _due(self, part: PartHandle) -> float:
        return self._since.get(part, float("-inf")) + self._policy.delay(part.tries)

    def _start(self, part: PartHandle) -> None:
        host = self._host
        if part.plan.guest and host is not None and host.ready is not None:
            part.plan = replace(part.plan, shared=dict(host.ready.shared))
        self._since[part] = time.monotonic()
        part.start()
        logger.debug("%s starts.", part)

    def _tend(self, part: PartHandle) -> None:
        now = time.monotonic()
        if part.is_up and self._is_elsewhere(part):
            logger.warning("%s: the executor moved; restarting.", part)
            part.bury()
        if not part.is_up:
            if self._is_wanted(part) and now >= self._due(part):
                self._start(part)
            return
        self._hear(part)
        if part.failure is not None and part.failure.for_good:
            raise WorkerStartError(part.failure.message)
        if self._is_late(part) or part.has_ended():
            self._deal_with_death(part)
        elif part.ready and part.tries and now > self._since[part] + self._policy.healthy:
            part.tries = part.deaths = 0

    def _is_elsewhere(self, part: PartHandle) -> bool:
        """Return whether a guest uses a place that the first leaf process has left."""
        place = self._host.ready if self._host is not None else None
        return part.plan.guest and place is not None and part.plan.shared != place.shared

    def _is_late(self, part: PartHandle) -> bool:
        late = part.ready is None and time.monotonic() > self._since[part] + self._policy.start
        if late:
            part.failure = PartFailed(
                f"The {part.plan.title} worker process was not ready after "
                f"{self._policy.start:.0f} s. See in the log above what it is waiting for."
            )
        return late

    def _hear(self, part: PartHandle) -> None:
        """Handle the messages of a process."""
        was_ready = part.ready is not None
        for message in part.read():
            if not isinstance(message, PartReady):
                continue
            if not was_ready:
                was_ready, self._since[part] = True, time.monotonic()
                if self.announced:
                    logger.info("%s is ready%s.", part, " again" if part.starts > 1 else "")
            elif message.slots != part.slots:
                self._start_successor(part, message)

    def _start_successor(self, part: PartHandle, offer: PartReady) -> None:
        names = [one.plan.name for one in self._leaving]
        if part in self._successors or part.plan.name in names:
            return  # the process repeats the message
        plan = replace(part.plan, number=self._board.other(part.plan.number))
        successor = PartHandle(plan, self._entry, self._board)
        self._successors[part] = successor
        logger.info(
            "%s: capacity changed from %d to %d slots (%s); starting a replacement process.",
            part,
            part.slots,
            offer.slots,
            offer.source,
        )
        self._start(successor)

    def _tend_successor(self, part: PartHandle) -> None:
        successor = self._successors[part]
        self._hear(successor)
        if successor.ready is not None and part.is_up:
            self._replace(part)
            self._leaving.append(part)
            part.ask_to_stop()
        elif self._is_late(successor) or successor.has_ended():
            failure = successor.failure
            logger.warning(
                "Replacement: %s could not start (%s). %s stays.",
                successor,
                failure.message if failure else successor.bury(),
                part,
            )
            successor.bury()
            del self._successors[part]

    def _replace(self, part: PartHandle) -> None:
        self._parts[self._parts.index(part)] = self._successors.pop(part)

    def _deal_with_death(self, part: PartHandle) -> None:
        part.read()
        who = str(part)
        was_ready = part.ready is not None
        failure = part.failure
        is_fault = failure is None or not failure.away
        blamed = self._blame_leaves(part) if is_fault else 0
        how = part.bury()
        if not self.announced and not was_ready:
            raise WorkerStartError(
                failure.message
                if failure
                else f"{who} ended during its start ({how}). See the log above for the cause."
            )
        # Deaths with running leaves do not count as its own, until the guilty leaf is found.
        part.tries = max(part.tries, 1) if blamed else part.tries + 1
        part.deaths += is_fault and not blamed
        why = f"{how}: {failure.message}" if failure else how
        if part in self._successors:
            logger.error("%s died (%s).", who, why)
            self._replace(part)
            return
        if part.deaths >= self._policy.most:
            raise WorkerStartError(
                f"{who} died {part.deaths} times in short succession, the last time with {why}, "
                "and is not restarted. Find the cause in the log above, then start the worker."
            )
        self._since[part] = time.monotonic()
        delay = self._policy.delay(part.tries)
        logger.error("%s died (%s). Restarting it in %g s.", who, why, delay)

    def _blame_leaves(self, part: PartHandle) -> int:
        """Record the leaves that ran in a process when it died; return their number."""
        running = self._board.leaves_of(part.plan.number).read()
        suspects = with_death(part.plan.suspects, running, time.monotonic())
        part.plan = replace(part.plan, suspects=suspects)
        if part in self._successors:
            successor = self._successors[part]
            successor.plan = replace(successor.plan, suspects=suspects)
        return len(running)

    def _announce(self) -> None:
        host = self._host
        if self.announced or (host is not None and host.ready is None):
            return
        if all(part.ready or not self._is_wanted(part) for part in self._parts):
            self.announced = True
            self._on_ready(self._parts)
