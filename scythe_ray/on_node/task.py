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
from pickle import dumps, loads  # references from before user code runs
from typing import Any

from scythe.outcomes import CodeRef, FailureKind, LeafCall, LeafFailure, LeafOutcome, LeafStats
from scythe_ray.on_node.gpus import gpus_hidden
from scythe_ray.on_node.leaf_process import LeafProcess
from scythe_ray.on_node.node_agent import NodeAgent, Probe
from scythe_ray.on_node.records import RecordError, leaf_folder
from scythe_ray.on_node.reused_task import ReusedTaskLoop

_ANSWERED = 0.2  # seconds for a task's result to reach the driver
_GPU_IDLE = 10.0  # seconds for which a process with a GPU waits for the next leaf
_prepared: tuple[bytes, Driver, LeafProcess] | None = None
_started_in: Path | None = None  # the folder into which Ray has unpacked the shipped code


@dataclass(frozen=True, slots=True)
class Driver:
    """The driver, as the processes that run its leaves know it.

    Attributes:
        driver_id: An unguessable id.
        version: Its version of Scythe.
        session_dir: Ray's session folder on its node.
        first: The first folders of its import path: the script's, and `PYTHONPATH`.
        last: Folders of its installed packages.
        folder: Its working directory.
        temporary: Parent of the leaves' temporary folders; None for the usual place of each host.
        argv: Its command line, for scripts that read it at import.
        shipped: The driver's folder that Ray has copied here as the working directory.
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
        """Return the path on this host that corresponds to one of the driver's host."""
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
        may_stay: Whether other leaves may follow in its task.
    """

    token: str
    call: LeafCall
    uses_gpu: bool
    may_stay: bool = False


@dataclass(frozen=True, slots=True)
class UsedProcess:
    """The leaf needs another process, because this one was used before. Takes an outcome's place.

    The leaf asked for a fresh process; or other GPUs were used here, or a leaf failed with these;
    or leaves have left too many files open.
    """


def this_driver(
    driver_id: str, session_dir: str, temporary: str | None, shipped: str | None = None
) -> Driver:
    """Return the description of this process as a driver; for the arguments, see `Driver`."""
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
        A pickled `LeafOutcome` or `UsedProcess`; empty if the driver has all outcomes.
    """
    try:
        known, process = _prepare(driver)
        first: Job = loads(job)  # noqa: S301 - made by our own driver
    except Exception as error:  # noqa: BLE001 - the driver must get the failure of this Ray node
        return dumps(_setup_failure(error))
    try:
        return _run_all(known, process, first)
    except Exception as error:  # noqa: BLE001 - the process cannot be trusted
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
        process.remove_folder()  # Ray may end the process at any moment now
        process.end_when_idle(_ANSWERED)  # no further leaf begins
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
    if job.uses_gpu:  # Ray runs only leaves with GPUs in such a process
        process.gpus.used_by(outcome)
        process.end_when_idle(_GPU_IDLE)
    return outcome


def _with_hint(outcome: LeafOutcome) -> LeafOutcome:
    """Add how to send code to a Ray node that lacks it."""
    if not isinstance(outcome, LeafFailure) or outcome.kind is not FailureKind.ENVIRONMENT:
        return outcome
    message = (
        f"{outcome.message} Code of the worker's folder is sent to all nodes with "
        'SCYTHE_RAY_RUNTIME_ENV=\'{"working_dir": "."}\'.'
    )
    return replace(outcome, message=message)


def _import(code: CodeRef) -> None:
    """Import the experiment outside of the leaf's time limit."""
    from scythe.locate import CodeNotFoundError, find_experiment

    current: Any = mp_process.current_process()
    current._inheriting = True  # noqa: SLF001 - refuse a script that starts its worker again
    try:
        with suppress(CodeNotFoundError):  # run_leaf reports it
            _ = find_experiment(code).code  # computed here, outside of the leaf's time limit
    finally:
        del current._inheriting  # noqa: SLF001
    if sys.modules.get("__mp_main__") is not None:
        # The leaf's own use of multiprocessing looks for the main script here.
        sys.modules["__main__"] = sys.modules["__mp_main__"]


def _prepare(driver: bytes) -> tuple[Driver, LeafProcess]:
    """Set up this process like the driver: import path, working directory, records."""
    global _prepared, _started_in
    if _prepared is not None and driver == _prepared[0]:
        return _prepared[1:]
    known: Driver = loads(driver)  # noqa: S301 - made by our own driver
    _started_in = _started_in or Path.cwd()
    if known.version != scythe_version():
        raise RecordError(
            f"This node has version {scythe_version()} of scythe-ray, the worker {known.version}. "
            "Install the same version on all nodes."
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
    """A Ray actor with the `NodeAgent` of another Ray node than the driver's.

    Args:
        driver: A pickled `Driver`.
        kills: As `NodeAgent`.
    """

    def __init__(self, driver: bytes, kills: int | None) -> None:
        known: Driver = loads(driver)  # noqa: S301 - made by our own driver
        self._control = NodeAgent(leaf_folder(known.session_dir, known.driver_id), kills)

    def kills(self) -> int:
        """Return the number of processes that the kernel had killed for lack of memory."""
        return self._control.kills

    def find(self, token: str) -> Probe | None:
        """Probe a leaf; None if it does not run here."""
        return self._control.find(token)

    def end(self, token: str, grace: float, stack: bool) -> Probe | None:
        """End a leaf with its descendants."""
        return self._control.end(token, grace, stack)

    def report(self, token: str) -> Probe | None:
        """Probe a leaf whose process died, and end its descendants."""
        return self._control.report(token)

    def retire(self, token: str) -> None:
        """Wait for the end of a process that exits after a leaf, and remove its files."""
        self._control.retire(token)

    def sweep(self) -> None:
        """Remove the files of processes that died after their last leaf."""
        self._control.sweep()

    def forget(self, token: str) -> None:
        """Remove the mark that `end` left for a leaf that might have begun later."""
        self._control.forget(token)

    def close(self) -> None:
        """Remove all files of the processes."""
        self._control.close()


class _OutcomeReader(pickle.Unpickler):
    """Unpickles only plain outcomes, so that user code cannot make the driver import anything."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        if global_name in _READABLE.get(module_name, ()):
            return super().find_class(module_name, global_name)
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is no part of an outcome")


_READABLE = {
    "scythe.outcomes": ("BatchResult", "FailureKind", "LeafFailure", "LeafResult", "LeafStats"),
    "scythe_ray.on_node.task": ("UsedProcess",),
}


def load_outcome(data: bytes) -> LeafOutcome | UsedProcess:
    """Decode the return value of `run_envelope`."""
    return _OutcomeReader(io.BytesIO(data)).load()
