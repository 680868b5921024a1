"""This process as a Ray driver: `ray.init` and `ray.shutdown` with deadlines, without chatter."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from scythe_ray.cluster.discovery import within
from scythe_ray.cluster.environment import LOOPBACK_ONLY, RayEnvironment

_LEAVE_TIMEOUT = 20.0
_NEW_WORK = ("submit_task", "submit_actor_task", "create_actor")  # of Ray's core worker
_has_left = threading.Event()  # not set while Ray disconnects, which may take longer than we wait
_has_left.set()
logger = logging.getLogger("scythe.ray")


def import_ray() -> None:
    """Import Ray so that it does not end this process with its node where the parent is process 1.

    Ray takes such a process for one of a node that died; in a container it is the worker's. The
    variable counts when Ray is imported for the first time.
    """
    environment = RayEnvironment()
    environment.set({"RAY_RAYLET_PID": str(os.getpid())})
    try:
        import ray  # noqa: F401 # pyright: ignore[reportUnusedImport]
    finally:
        environment.restore()


def connect(timeout: float, **options: Any) -> dict[str, Any]:
    """Call `ray.init` and return what it tells of the cluster.

    Args:
        timeout: Seconds.
        options: Arguments of `ray.init`.

    Raises:
        TimeoutError: It took too long.
        Exception: Whatever Ray raises.
    """
    import ray

    def init() -> Any:
        return ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)

    if not _has_left.wait(timeout):
        raise TimeoutError(f"Ray has not let go of the last cluster within {timeout:g} s")
    _apply_loopback()
    _leave_signals_alone()
    _never_connect_unasked()
    if threading.current_thread() is threading.main_thread():
        with _deadline(timeout), _own_signal_handlers():
            context = init()
    else:
        context = within(timeout, init, "ray.init()")
    _silence()
    return dict(context.address_info)


def leave() -> bool:
    """Disconnect; a cluster that `ray.init` started ends with it. Blocks, with a deadline.

    Returns:
        Whether this process may connect again.
    """
    import ray

    if not ray.is_initialized():
        return _has_left.is_set()

    def disconnect() -> None:
        try:
            ray.shutdown()
        finally:
            _has_left.set()

    _forget_references()
    _has_left.clear()
    try:
        within(_LEAVE_TIMEOUT, disconnect, "ray.shutdown()")
    except Exception as error:  # noqa: BLE001 - whatever it is, the processes are looked after next
        logger.warning("Ray did not disconnect in an orderly way: %s", error)
    return _has_left.is_set() and not ray.is_initialized()


def reason(error: BaseException) -> str:
    """Say in one line what Ray raised, with the first cause."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    texts = [str(one).strip().splitlines()[0] for one in (error, cause) if str(one).strip()]
    return ": ".join(dict.fromkeys(texts)) or type(error).__name__


def _apply_loopback() -> None:
    """Make Ray see a variable that it only reads when it is imported."""
    from ray._private import ray_constants

    constants: Any = ray_constants
    if os.environ.get(LOOPBACK_ONLY) in ("0", "1") and hasattr(constants, "ENABLE_RAY_CLUSTER"):
        constants.ENABLE_RAY_CLUSTER = os.environ[LOOPBACK_ONLY] == "1"


def _leave_signals_alone() -> None:
    """Keep Ray's C++ part from taking SIGTERM, and from resetting it when it disconnects.

    Either would end this process at once, whatever handler it has: only the main thread can set
    that again, and a lost cluster is attached to again in another one.
    """
    from ray._private import ray_constants

    constants: Any = ray_constants
    if hasattr(constants, "RAY_DISABLE_FAILURE_SIGNAL_HANDLER"):
        constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True


def _never_connect_unasked() -> None:
    """Keep Ray from starting a cluster, or taking any, when it is used after the head was lost."""
    from ray._private import auto_init_hook

    hook: Any = auto_init_hook
    if hasattr(hook, "enable_auto_connect"):
        hook.enable_auto_connect = False


class _Departing:
    """Stand-in for Ray's core worker while that shuts down. It accepts no work.

    Args:
        core: The core worker.
    """

    def __init__(self, core: Any) -> None:
        self._core: Any = core

    def remove_object_ref_reference(self, *_: Any) -> None:
        """Nothing: what this process refers to is forgotten with the process's connection."""

    remove_actor_handle_reference = remove_object_ref_reference

    def shutdown_driver(self) -> None:
        """End the core worker, which nothing reaches from here on."""
        core = self._core
        self._core = None
        core.shutdown_driver()

    def __getattr__(self, name: str) -> Any:
        if name in _NEW_WORK:
            raise AttributeError(f"{name}: this process leaves its Ray cluster")
        return getattr(self._core, name)


def _forget_references() -> None:
    """Keep references that are dropped while Ray disconnects from ending this process.

    Any thread may drop one, at any time: the garbage collector does. Ray's C++ part ends a process
    that still calls it then, with exit code 1 and no exception.
    """
    from ray._private import worker

    state: Any = worker.global_worker
    core = getattr(state, "core_worker", None)
    if core is not None and not isinstance(core, _Departing):
        state.core_worker = _Departing(core)


def _silence() -> None:
    """Send what the nodes report of dead processes to our log: each leaf tells it better."""
    from ray._private import worker

    module: Any = worker
    if hasattr(module, "print_to_stdstream"):
        module.print_to_stdstream = _log_lines


def _log_lines(data: dict[str, Any], *_: Any, **__: Any) -> None:
    for line in data.get("lines", ()):
        logger.debug("Ray: %s", str(line).strip())


@contextmanager
def _own_signal_handlers() -> Generator[None]:
    """Keep the handler of SIGTERM, which `ray.init` replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with contextlib.suppress(TypeError):  # a handler that Python did not install
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _deadline(timeout: float) -> Generator[None]:
    """Raise `TimeoutError` in the main thread when the time is over, whatever it waits for."""

    def ring(*_: Any) -> None:
        raise TimeoutError(f"no answer within {timeout:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
