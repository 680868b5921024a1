"""The order in which the parts of a stack start, and what happens when one does not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from scythe.errors import StackError
from scythe.stack.engine import start_engine, start_s3
from scythe.stack.engine_build import engine_version
from scythe.stack.parts import PartFailed, Starter
from scythe.stack.paths import ENGINE, PARTS, POSTGRES, S3, Layout, private_folder
from scythe.stack.ports import choose, is_free
from scythe.stack.postgres import start_postgres
from scythe.stack.programs import order_of
from scythe.stack.state import OLD_FORMAT, PORTS_OF, State, read_state, write_state
from scythe.stack.stopping import stop_parts, stop_strays

_TRIES = 4


def start_stack(layout: Layout, report: Callable[[str], None]) -> tuple[str, ...]:
    """Start what does not run and wait until all answers. The caller holds the lock.

    Returns:
        The parts that were started; those that ran before are not among them.
    """
    state = read_state(layout) or State()
    _check_version(state, report)
    for left in reversed(range(_TRIES)):
        lived = [part for part in PARTS if state.alive(part)]
        starter = Starter(layout, state, report)
        try:
            _start_missing(starter)
            return tuple(part for part in PARTS if part in starter.started)
        except BaseException as err:
            stop_parts(layout, starter.state, starter.started, lambda _line: None)
            state = starter.state.without(*starter.started)
            with suppress(OSError):  # a full disk; the processes are known to be dead
                write_state(layout, state)
            # A kill takes a moment, and so does another program's grip on a port that was free.
            has_changed = _taken(state) or not all(state.alive(part) for part in lived)
            if not (left and isinstance(err, PartFailed) and has_changed):
                raise
        finally:
            starter.release()
    raise AssertionError("unreachable: the last try returns or raises")


def _start_missing(starter: Starter) -> None:
    _forget_the_dead(starter)
    private_folder(starter.layout.logs)
    starter.remember(ports=_ports(starter))
    missing = [part for part in PARTS if part not in starter.state.parts]
    if POSTGRES in missing:
        start_postgres(starter)
    if S3 in missing:
        start_s3(starter)  # which may build the engine's program while PostgreSQL starts
    starter.await_ready(POSTGRES)
    if ENGINE in missing:
        start_engine(starter)
    starter.await_ready(ENGINE)
    starter.await_ready(S3)
    starter.remember(ready=True)


def _check_version(state: State, report: Callable[[str], None]) -> None:
    wanted = engine_version()
    if state.format == OLD_FORMAT:
        raise StackError(
            "The objects of this stack are those of an earlier Scythe's S3 server, SeaweedFS, "
            "which is no longer there. Go on with that version of Scythe, or start anew with "
            "`scythe dev reset`."
        )
    if state.schema is not None and order_of(state.schema) > order_of(wanted):
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


def _forget_the_dead(starter: Starter) -> None:
    layout = starter.layout
    state = starter.state
    report = starter.report
    gone = [part for part in PARTS if part in state.parts and not state.alive(part)]
    for part in gone:
        report(f"{part} has ended; it is started again")
    if state.alive(POSTGRES) and not layout.socket.exists():
        report("the socket of postgres was removed; it is started again")
        gone.append(POSTGRES)
    if state.ready and not state.keys.token:
        gone = list(state.parts)  # what runs has keys that nobody knows any more
    elif state.alive(ENGINE) and (POSTGRES in gone or POSTGRES not in state.parts):
        # It would go on with connections, and with messages in flight, of the server that is gone.
        gone.append(ENGINE)
    if gone:
        stop_parts(layout, state, gone, report)
        starter.state = state.without(*gone)
    missing = [part for part in PARTS if part not in starter.state.parts]
    if missing and stop_strays(layout, missing, grace=3):
        report("processes of an interrupted start were ended")


def _taken(state: State) -> list[str]:
    """Return the parts that do not run and whose ports another program has."""
    return [
        part
        for part, names in PORTS_OF.items()
        if part not in state.parts
        and not all(is_free(state.ports[name]) for name in names if name in state.ports)
    ]


def _ports(starter: Starter) -> dict[str, int]:
    ports = dict(starter.state.ports)
    taken = _taken(starter.state)
    for part, names in PORTS_OF.items():
        if part in taken:
            starter.report(f"a port of {part} is in use by another program; it gets new ones")
        if part in taken or not ports.keys() >= set(names):
            ports |= choose(names, ports.values())
    return ports
