"""The order in which the parts of a stack start, and what happens when one does not."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from scythe.errors import StackError
from scythe.stack.account import database_account, give_folder
from scythe.stack.connection import StackConnection, connect
from scythe.stack.engine import await_engine, prepare_engine, start_engine
from scythe.stack.engine_build import engine_program, engine_version
from scythe.stack.parts import PartFailed, StartAborted, Starter
from scythe.stack.paths import ENGINE, PARTS, POSTGRES, S3, Layout, private_folder
from scythe.stack.ports import choose, is_free
from scythe.stack.postgres import start_postgres
from scythe.stack.s3 import await_s3, start_s3
from scythe.stack.state import (
    ENGINE_PORTS,
    S3_PORTS,
    Secrets,
    State,
    new_secrets,
    read_secrets,
    read_state,
    write_secrets,
)
from scythe.stack.stopping import stop_parts, stop_strays

_PORT_TRIES = 4
_PORTS_OF = {ENGINE: ENGINE_PORTS, S3: S3_PORTS}


@dataclass(frozen=True)
class Start:
    """What a start has done.

    Attributes:
        connection: How to use the stack.
        parts: The parts that were started; those that ran before are not among them.
    """

    connection: StackConnection
    parts: tuple[str, ...]


def start_stack(layout: Layout, report: Callable[[str], None]) -> Start:
    """Start what does not run and wait until all answers. The caller holds the lock.

    Args:
        layout: The files of the stack.
        report: Called with lines that say what is being done.

    Raises:
        StackError: A part did not start. All that this call had started is stopped again.
    """
    before = read_state(layout) or State()
    seemed_alive = [part for part in PARTS if before.alive(part)]
    try:
        return _start_missing(layout, report)
    except PartFailed:
        if all(before.alive(part) for part in seemed_alive):
            raise
        # One was dying: a kill takes a moment.
        return _start_missing(layout, report)


def _start_missing(layout: Layout, report: Callable[[str], None]) -> Start:
    keys = read_secrets(layout)
    if keys is None:
        keys = new_secrets()
        write_secrets(layout, keys)
    state = _forget_the_dead(layout, read_state(layout) or State(), report)
    _check_version(state, report)
    # Built before anything is started: a build that fails leaves nothing half done.
    program = None if state.alive(ENGINE) else engine_program(report)
    for folder in (layout.logs, layout.engine):
        private_folder(folder)
    for folder in (layout.postgres, layout.sockets):
        give_folder(folder, database_account())
    starter = _start_on_free_ports(layout, state, keys, report, program)
    starter.remember(ready=True)
    starter.release()
    return Start(
        connection=connect(layout, starter.state, starter.keys),
        parts=tuple(part for part in PARTS if part in {one.name for one in starter.started}),
    )


def _forget_the_dead(layout: Layout, state: State, report: Callable[[str], None]) -> State:
    gone = [part for part in PARTS if part in state.parts and not state.alive(part)]
    for part in gone:
        report(f"{part} has ended; it is started again")
    if not state.alive(POSTGRES) and state.alive(ENGINE):
        # It would go on with connections, and with messages in flight, of the server that is gone.
        gone.append(ENGINE)
    stop_parts(layout, state, gone, report)
    for part in gone:
        state = state.without(part)
    missing = [part for part in PARTS if part not in state.parts]
    if missing and stop_strays(layout, missing, grace=3):
        report("processes of an interrupted start were ended")
    return state


def _check_version(state: State, report: Callable[[str], None]) -> None:
    wanted = engine_version()
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


def _start_on_free_ports(
    layout: Layout,
    state: State,
    keys: Secrets,
    report: Callable[[str], None],
    program: Path | None,
) -> Starter:
    started_before = set(state.parts)
    for left in reversed(range(_PORT_TRIES)):
        starter = Starter(layout, state, keys, report)
        try:
            starter.remember(ports=_ports(state, report))
            _start_parts(starter, program)
        except BaseException as err:
            ours = tuple(part for part in starter.state.parts if part not in started_before)
            stop_parts(layout, starter.state, ours, lambda _line: None)
            state = starter.state
            for part in ours:
                state = state.without(part)
            keys = starter.keys
            starter.release()
            Starter(layout, state, keys, report).remember(ready=False)
            if not (left and isinstance(err, PartFailed) and err.port_taken):
                raise
            report(f"{err.part} found a port taken; other ports are tried")
            state = _without_ports(state, err.part)
        else:
            return starter
    raise AssertionError("unreachable: the last try returns or raises")


def _ports(state: State, report: Callable[[str], None]) -> dict[str, int]:
    ports = dict(state.ports)
    for part, names in _PORTS_OF.items():
        if state.alive(part):
            continue
        missing = not all(name in ports for name in names)
        if missing or not all(is_free(ports[name]) for name in names):
            if not missing:
                report(f"a port of {part} is in use by another program; it gets new ones")
            others = [port for name, port in ports.items() if name not in names]
            ports |= choose(names, others)
    return ports


def _without_ports(state: State, part: str) -> State:
    from dataclasses import replace

    gone = _PORTS_OF.get(part, ())
    return replace(
        state, ports={name: port for name, port in state.ports.items() if name not in gone}
    )


def _start_parts(starter: Starter, program: Path | None) -> None:
    """Start S3 beside PostgreSQL and the engine, which need each other but not S3."""
    with ThreadPoolExecutor(1, "scythe-dev") as pool:
        side = pool.submit(_or_abort, starter, lambda: _start_s3(starter))
        try:
            _or_abort(starter, lambda: _start_engine(starter, program))
        except StartAborted:
            side.result()  # raises what went wrong there
            raise
        side.result()


def _or_abort(starter: Starter, action: Callable[[], None]) -> None:
    try:
        action()
    except BaseException:
        starter.abort()
        raise


def _start_s3(starter: Starter) -> None:
    record = starter.state.parts.get(S3)
    if record is None:
        starter.report("starting s3")
        start_s3(starter)
    else:
        await_s3(starter, record)


def _start_engine(starter: Starter, program: Path | None) -> None:
    if POSTGRES not in starter.state.parts:
        starter.report("starting postgres")
        start_postgres(starter)
    record = starter.state.parts.get(ENGINE)
    if record is not None:
        await_engine(starter, record)
    elif program is not None:
        prepare_engine(starter, program)
        starter.report("starting the engine")
        start_engine(starter, program)
