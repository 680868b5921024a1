"""The code that Ray runs on its nodes: the function that runs leaves, and the control actor.

Spec and result travel as bytes that Scythe makes and reads, so that no exception class, module or
array of the user passes through Ray's own serialization. This module needs no Ray.
"""

from __future__ import annotations

import io
import os
import pickle
import platform
import sys
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from multiprocessing import process as mp_process
from pathlib import Path
from pickle import dumps, loads  # as they are before user code runs
from typing import Any

from scythe.outcomes import CodeRef, FailureKind, LeafCall, LeafFailure, LeafOutcome, LeafStats
from scythe_ray.on_node.gpus import gpus_hidden
from scythe_ray.on_node.leaf_process import LeafProcess
from scythe_ray.on_node.node_agent import NodeAgent, Probe
from scythe_ray.on_node.records import RecordError, leaf_folder
from scythe_ray.on_node.reused_task import ReusedTaskLoop

_ANSWERED = 0.2  # seconds in which Ray gives the driver what a task has returned
_GPU_IDLE = 10.0  # seconds in which the next leaf with a GPU may find the process as it was left
_prepared: tuple[bytes, Driver, LeafProcess] | None = None
_started_in: Path | None = None  # where Ray unpacks what was shipped


@dataclass(frozen=True, slots=True)
class Driver:
    """The driver, as the processes that run its leaves know it.

    Attributes:
        driver_id: A name that nobody can guess.
        version: Its version of Scythe.
        session_dir: Ray's session folder on its node.
        first: Folders that it imports from before all others: the script's, and `PYTHONPATH`.
        last: Folders of its installed packages.
        folder: Its working directory.
        temporary: Where leaves have their temporary folders; None for each node's usual place.
        argv: Its command line, for scripts that look at it when they are imported.
        shipped: The folder of its machine that Ray has brought here as the working directory.
    """

    driver_id: str
    version: str
    session_dir: str
    first: tuple[str, ...]
    last: tuple[str, ...]
    folder: str
    temporary: str | None
    argv: tuple[str, ...]
    shipped: str | None = None

    def here(self, path: str) -> str:
        """Return where a path of the driver's machine is on this one."""
        if self.shipped is None or not Path(path).is_relative_to(self.shipped):
            return path
        copy = (_started_in or Path.cwd()) / Path(path).relative_to(self.shipped)
        return str(copy) if copy.exists() else path


@dataclass(frozen=True, slots=True)
class Job:
    """One submission of a leaf.

    Attributes:
        token: Unique for each submission.
        call: The try of the leaf.
        uses_gpu: Whether Ray gave it GPUs.
        may_stay: Whether other leaves may follow it in its task.
    """

    token: str
    call: LeafCall
    uses_gpu: bool
    may_stay: bool = False


@dataclass(frozen=True, slots=True)
class UsedProcess:
    """In place of an outcome: the leaf needs another process, as this one was used before.

    It asked for one of its own; other GPUs were used here, or a leaf failed with these; or leaves
    have left so much open that it might open nothing more.
    """


def this_driver(
    driver_id: str, session_dir: str, temporary: str | None, shipped: str | None = None
) -> Driver:
    """Describe this process as a driver; for the arguments, see `Driver`."""
    first: list[str] = []
    last: list[str] = []
    prefixes = tuple({sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix})
    for entry in sys.path:
        path = os.path.abspath(entry or os.curdir)  # noqa: PTH100 - as the import system does
        (last if path.startswith(prefixes) else first).append(path)
    return Driver(
        driver_id=driver_id,
        version=scythe_version(),
        session_dir=session_dir,
        first=tuple(dict.fromkeys(first)),
        last=tuple(dict.fromkeys(last)),
        folder=str(Path.cwd()),
        temporary=temporary,
        argv=tuple(sys.argv),
        shipped=shipped,
    )


def scythe_version() -> str:
    """Return the version of Scythe in this process."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("scythe-ray")
    except PackageNotFoundError:
        return "?"


def run_envelope(driver: bytes, job: bytes) -> bytes:
    """Run a leaf in this Ray worker process, and those that follow it in a reused task.

    Never raises: what goes wrong is the outcome.

    Args:
        driver: A pickled `Driver`.
        job: A pickled `Job`.

    Returns:
        A pickled `LeafOutcome` or `UsedProcess`; nothing where the driver has all outcomes.
    """
    try:
        known, process = _prepare(driver)
        first: Job = loads(job)  # noqa: S301 - made by our own driver
    except Exception as error:  # noqa: BLE001 - the driver must learn what is wrong on this node
        return dumps(_setup_failure(error))
    try:
        return _run_all(known, process, first)
    except Exception as error:  # noqa: BLE001 - nothing that it says can be relied on
        process.give_up(error)


def _run_all(known: Driver, process: LeafProcess, first: Job) -> bytes:
    folder = leaf_folder(known.session_dir, known.driver_id)
    with ReusedTaskLoop(folder, first.token if first.may_stay else None) as lessee:
        outcome = _run(known, process, first)
        while not isinstance(outcome, UsedProcess) and lessee.hand_over(dumps(outcome)):
            if process.is_used_up:
                process.leave()
            following = lessee.next_job()
            if following is None:
                return b""
            outcome = _run(known, process, loads(following))  # noqa: S301 - made by our own driver
    if process.is_used_up:
        process.end_when_idle(_ANSWERED)  # no leaf begins any more
    return dumps(outcome)


def _run(known: Driver, process: LeafProcess, job: Job) -> LeafOutcome | UsedProcess:
    if job.call.resources.fresh_process and process.leaves:
        return UsedProcess()
    if job.uses_gpu and not process.gpus.suit():
        return UsedProcess()
    if process.is_used_up:
        return UsedProcess()
    from scythe.leaf.batch import BatchPlace, run_batch
    from scythe.leaf.run import run_leaf
    from scythe.locate import is_found

    call = job.call
    if known.shipped is not None and call.code.main_path is not None:
        code = replace(call.code, main_path=known.here(call.code.main_path))
        call = replace(call, code=code)
    hidden = nullcontext() if job.uses_gpu else gpus_hidden()
    importing = not is_found(call.code)
    with process.running(job.token, importing=importing):
        with hidden, process.log:
            if importing:
                _import(call.code)
                process.imported()
            if call.batch is None:
                outcome = run_leaf(call, process.folder)
            else:
                between = process.between_leaves
                place = BatchPlace(
                    process.journal, process.folder, process.log, between, process.state
                )
                outcome = run_batch(call, call.batch, place)
        process.state.note(outcome)
        outcome = process.with_log(_with_hint(outcome))
    if job.uses_gpu:  # Ray runs no other leaves in such a process
        process.gpus.used_by(outcome)
        process.end_when_idle(_GPU_IDLE)
    return outcome


def _with_hint(outcome: LeafOutcome) -> LeafOutcome:
    """Say how code gets to a node that lacks it."""
    if not isinstance(outcome, LeafFailure) or outcome.kind is not FailureKind.ENVIRONMENT:
        return outcome
    message = (
        f"{outcome.message} Code of the worker's folder is sent to all nodes with "
        'SCYTHE_RAY_RUNTIME_ENV=\'{"working_dir": "."}\'.'
    )
    return replace(outcome, message=message)


def _import(code: CodeRef) -> None:
    """Import the experiment, so that the leaf's time does not run while its modules load."""
    from scythe.locate import CodeNotFoundError, find_experiment

    current: Any = mp_process.current_process()
    current._inheriting = True  # noqa: SLF001 - a script that starts its worker again is refused
    try:
        with suppress(CodeNotFoundError):  # run_leaf reports it
            _ = find_experiment(code).code  # read here, it is not the leaf's time
    finally:
        del current._inheriting  # noqa: SLF001
    if sys.modules.get("__mp_main__") is not None:
        # What multiprocessing, used by the leaf, takes for the main script.
        sys.modules["__main__"] = sys.modules["__mp_main__"]


def _prepare(driver: bytes) -> tuple[Driver, LeafProcess]:
    """Make this process like the driver's: its import path, its working directory, its records."""
    global _prepared, _started_in
    if _prepared is not None and driver == _prepared[0]:
        return _prepared[1:]
    known: Driver = loads(driver)  # noqa: S301 - made by our own driver
    _started_in = _started_in or Path.cwd()
    if known.version != scythe_version():
        raise RecordError(
            f"This node has version {scythe_version()} of scythe-ray, the worker {known.version}: "
            "install the same version on all nodes."
        )
    first = [known.here(entry) for entry in known.first]
    sys.path[:0] = [entry for entry in first if entry not in sys.path and Path(entry).exists()]
    sys.path += [entry for entry in known.last if entry not in sys.path and Path(entry).exists()]
    sys.argv[:] = known.argv
    if Path(known.here(known.folder)).is_dir():
        os.chdir(known.here(known.folder))
    process = LeafProcess(leaf_folder(known.session_dir, known.driver_id), known.temporary)
    _prepared = (driver, known, process)
    return known, process


def _setup_failure(error: Exception) -> LeafFailure:
    from scythe.leaf.failure import format_traceback

    return LeafFailure(
        kind=FailureKind.ENVIRONMENT,
        type=type(error).__qualname__,
        message=str(error),
        traceback=format_traceback(error),
        stats=LeafStats(node=platform.node(), pid=os.getpid()),
    )


class NodeAgentActor:
    """`NodeAgent` on another node than the driver's, as a Ray actor.

    Args:
        driver: A pickled `Driver`.
        kills: As `NodeAgent`.
    """

    def __init__(self, driver: bytes, kills: int | None) -> None:
        known: Driver = loads(driver)  # noqa: S301 - made by our own driver
        self._control = NodeAgent(leaf_folder(known.session_dir, known.driver_id), kills)

    def kills(self) -> int:
        """See `NodeAgent.kills`."""
        return self._control.kills

    def find(self, token: str) -> Probe | None:
        """See `NodeAgent.find`."""
        return self._control.find(token)

    def end(self, token: str, grace: float, stack: bool) -> Probe | None:
        """See `NodeAgent.end`."""
        return self._control.end(token, grace, stack)

    def report(self, token: str) -> Probe | None:
        """See `NodeAgent.report`."""
        return self._control.report(token)

    def retire(self, token: str) -> None:
        """See `NodeAgent.retire`."""
        self._control.retire(token)

    def forget(self, token: str) -> None:
        """See `NodeAgent.forget`."""
        self._control.forget(token)

    def close(self) -> None:
        """See `NodeAgent.close`."""
        self._control.close()


class _OutcomeReader(pickle.Unpickler):
    """Reads what a leaf's process sends; user code in it cannot make the driver import anything."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        if global_name in _READABLE.get(module_name, ()):
            return super().find_class(module_name, global_name)
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is no part of an outcome")


_READABLE = {
    "scythe.outcomes": ("BatchResult", "FailureKind", "LeafFailure", "LeafResult", "LeafStats"),
    "scythe_ray.on_node.task": ("UsedProcess",),
}


def load_outcome(data: bytes) -> LeafOutcome | UsedProcess:
    """Return what `run_envelope` returned."""
    return _OutcomeReader(io.BytesIO(data)).load()
