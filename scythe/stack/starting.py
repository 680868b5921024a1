"""The order in which the parts of a stack start, and what happens when one does not."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from scythe.errors import StackError
from scythe.stack.connection import StackConnection, connect
from scythe.stack.engine import await_engine, prepare_engine, start_engine
from scythe.stack.engine_build import engine_program, engine_version
from scythe.stack.parts import PartFailed, StartAborted, Starter
from scythe.stack.paths import ENGINE, PARTS, POSTGRES, S3, Layout, private_folder
from scythe.stack.ports import choose, is_free
from scythe.stack.postgres import postgres_obstacle, start_postgres
from scythe.stack.s3 import await_s3, start_s3
from scythe.stack.state import PORTS_OF, State, new_secrets, read_state
from scythe.stack.stopping import stop_parts, stop_strays

_PORT_TRIES = 4

Report = Callable[[str], None]


@dataclass(frozen=True)
class Start:
    """What a start has done.

    Attributes:
        connection: How to use the stack.
        parts: The parts that were started; those that ran before are not among them.
    """

    connection: StackConnection
    parts: tuple[str, ...]


def start_stack(layout: Layout, report: Report) -> Start:
    """Start what does not run and wait until all answers. The caller holds the lock.

    Raises:
        StackError: A part did not start. All that this call had started is stopped again.
    """
    before = read_state(layout) or State()
    seemed_alive = [part for part in PARTS if before.alive(part)]
    try:
        return _start_missing(layout, before, report)
    except PartFailed:
        if all(before.alive(part) for part in seemed_alive):
            raise
        # One was dying: a kill takes a moment.
        return _start_missing(layout, read_state(layout) or State(), report)


def _start_missing(layout: Layout, state: State, report: Report) -> Start:
    _check_version(state, report)
    state = _forget_the_dead(layout, state, report)
    private_folder(layout.logs)
    starter = _start_on_free_ports(layout, state, report)
    starter.remember(ready=True)
    starter.release()
    connection = connect(layout, starter.state)
    if connection is None:
        raise StackError("The local stack has no token for its addresses. Run `scythe dev reset`.")
    ours = {one.name for one in starter.started}
    return Start(connection, tuple(part for part in PARTS if part in ours))


def _forget_the_dead(layout: Layout, state: State, report: Report) -> State:
    gone = [part for part in PARTS if part in state.parts and not state.alive(part)]
    for part in gone:
        report(f"{part} has ended; it is started again")
    if state.alive(POSTGRES) and not (layout.sockets / ".s.PGSQL.5432").exists():
        report("the socket of postgres was removed; it is started again")
        gone.append(POSTGRES)
    if state.keys is None:
        gone = list(state.parts)  # what runs has keys that nobody knows any more
    elif POSTGRES in gone or POSTGRES not in state.parts:
        # It would go on with connections, and with messages in flight, of the server that is gone.
        gone += [ENGINE] if state.alive(ENGINE) else []
    stop_parts(layout, state, gone, report)
    state = state.without(*gone)
    missing = [part for part in PARTS if part not in state.parts]
    if missing and stop_strays(layout, missing, grace=3):
        report("processes of an interrupted start were ended")
    return state


def _check_version(state: State, report: Report) -> None:
    wanted = engine_version()
    if state.old:
        raise StackError(
            "The objects of this stack are those of an earlier Scythe's S3 server, SeaweedFS, "
            "which is no longer there. Go on with that version of Scythe, or start anew with "
            "`scythe dev reset`."
        )
    if state.schema is not None and _order(state.schema) > _order(wanted):
        raise StackError(
            f"The database was prepared for Hatchet {state.schema}; this Scythe runs the older "
            f"{wanted}. Upgrade Scythe, or start anew with `scythe dev reset`."
        )
    record = state.parts.get(ENGINE)
    if record is not None and record.version != wanted:
        report(
            f"the engine that runs is Hatchet {record.version}: `scythe dev stop` and then "
            f"`scythe dev` change to {wanted}"
        )


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _start_on_free_ports(layout: Layout, state: State, report: Report) -> Starter:
    before = set(state.parts)
    for left in reversed(range(_PORT_TRIES)):
        starter = Starter(layout, state, state.keys or new_secrets(), report)
        try:
            starter.remember(ports=_ports(state, report))
            _start_parts(starter)
        except BaseException as err:
            ours = tuple(part for part in starter.state.parts if part not in before)
            stop_parts(layout, starter.state, ours, lambda _line: None)
            state = starter.state.without(*ours)
            starter.release()
            starter.state = state
            with suppress(OSError):  # a full disk; the processes are known to be dead
                starter.remember(ready=False)
            if not (left and isinstance(err, PartFailed) and err.port_taken):
                raise
            report(f"{err.part} found a port taken; other ports are tried")
            kept = {name: p for name, p in state.ports.items() if name not in PORTS_OF[err.part]}
            state = replace(state, ports=kept)
        else:
            return starter
    raise AssertionError("unreachable: the last try returns or raises")


def _ports(state: State, report: Report) -> dict[str, int]:
    ports = dict(state.ports)
    for part, names in PORTS_OF.items():
        if state.alive(part):
            continue
        missing = not all(name in ports for name in names)
        if missing or not all(is_free(ports[name]) for name in names):
            if not missing:
                report(f"a port of {part} is in use by another program; it gets new ones")
            others = [port for name, port in ports.items() if name not in names]
            ports |= choose(names, others)
    return ports


def _start_parts(starter: Starter) -> None:
    """Start PostgreSQL while the engine's program is built, and S3 beside the engine."""
    with ThreadPoolExecutor(2, "scythe-dev") as pool:
        others = [pool.submit(_or_abort, starter, lambda: _start_postgres(starter))]
        try:
            program = None
            if not {ENGINE, S3} <= starter.state.parts.keys():
                program = engine_program(starter.report, starter.check)
            others.append(pool.submit(_or_abort, starter, lambda: _start_s3(starter, program)))
            others[0].result()
            _start_engine(starter, program)
        except StartAborted:
            for other in others:
                other.result()  # raises what went wrong there
            raise
        except BaseException:
            starter.abort()
            raise
        others[1].result()


def _or_abort(starter: Starter, action: Callable[[], None]) -> None:
    try:
        action()
    except BaseException:
        starter.abort()
        raise


def _start_postgres(starter: Starter) -> None:
    record = starter.state.parts.get(POSTGRES)
    if record is None:
        starter.report("starting postgres")
        start_postgres(starter)
    else:
        layout = starter.layout
        starter.await_ready(POSTGRES, record, lambda: postgres_obstacle(layout), 180)


def _start_s3(starter: Starter, program: Path | None) -> None:
    record = starter.state.parts.get(S3)
    if record is not None:
        await_s3(starter, record)
    elif program is not None:
        starter.report("starting s3")
        start_s3(starter, program)


def _start_engine(starter: Starter, program: Path | None) -> None:
    record = starter.state.parts.get(ENGINE)
    if record is not None:
        await_engine(starter, record)
    elif program is not None:
        prepare_engine(starter, program)
        starter.report("starting the engine")
        start_engine(starter, program)
