"""Makes this process a Ray driver: `ray.init` and `ray.shutdown` with deadlines and less log."""

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
_has_left = threading.Event()  # cleared while Ray disconnects, which may outlast our timeout
_has_left.set()
logger = logging.getLogger("scythe.ray")


def import_ray() -> None:
    """Import Ray without its check for a parent that is process 1.

    Ray takes a child of process 1 for a leftover of a dead node and ends it with its node. In a
    container, it is the worker's own process. The variable is read at the first import of Ray.
    """
    environment = RayEnvironment()
    environment.set({"RAY_RAYLET_PID": str(os.getpid())})
    try:
        import ray  # noqa: F401 # pyright: ignore[reportUnusedImport]
    finally:
        environment.restore()


def connect(timeout: float, **options: Any) -> dict[str, Any]:
    """Call `ray.init` and return its description of the cluster.

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
        raise TimeoutError(f"Ray has not left the last cluster within {timeout:g} s")
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
    """Disconnect, which also ends a cluster that `ray.init` started. Blocks, with a deadline.

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
    except Exception as error:  # noqa: BLE001 - the processes are ended next in any case
        logger.warning("Ray did not disconnect cleanly: %s", error)
    return _has_left.is_set() and not ray.is_initialized()


def reason(error: BaseException) -> str:
    """Return an exception of Ray in one line, with its first cause."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    texts = [str(one).strip().splitlines()[0] for one in (error, cause) if str(one).strip()]
    return ": ".join(dict.fromkeys(texts)) or type(error).__name__


def _apply_loopback() -> None:
    """Update a setting that Ray reads only at its import."""
    from ray._private import ray_constants

    constants: Any = ray_constants
    if os.environ.get(LOOPBACK_ONLY) in ("0", "1") and hasattr(constants, "ENABLE_RAY_CLUSTER"):
        constants.ENABLE_RAY_CLUSTER = os.environ[LOOPBACK_ONLY] == "1"


def _leave_signals_alone() -> None:
    """Keep Ray's C++ code from replacing the SIGTERM handler on connect and on disconnect.

    Either would make SIGTERM kill this process at once. Only the main thread could restore the
    handler, and attaching to a lost cluster happens in another thread.
    """
    from ray._private import ray_constants

    constants: Any = ray_constants
    if hasattr(constants, "RAY_DISABLE_FAILURE_SIGNAL_HANDLER"):
        constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True


def _never_connect_unasked() -> None:
    """Keep Ray from starting or finding a cluster by itself after the head was lost."""
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
        """Do nothing; the references end with the connection."""

    remove_actor_handle_reference = remove_object_ref_reference

    def shutdown_driver(self) -> None:
        """Shut down the core worker, which is unreachable afterwards."""
        core = self._core
        self._core = None
        core.shutdown_driver()

    def __getattr__(self, name: str) -> Any:
        if name in _NEW_WORK:
            raise AttributeError(f"{name}: this process is leaving its Ray cluster")
        return getattr(self._core, name)


def _forget_references() -> None:
    """Ignore references that are dropped while Ray disconnects.

    The garbage collector may drop one in any thread at any time. Ray's C++ code ends a process that
    calls it at that moment, with exit code 1 and no exception.
    """
    from ray._private import worker

    state: Any = worker.global_worker
    core = getattr(state, "core_worker", None)
    if core is not None and not isinstance(core, _Departing):
        state.core_worker = _Departing(core)


def _silence() -> None:
    """Log Ray's reports of dead processes at debug level; failures of leaves have more detail."""
    from ray._private import worker

    module: Any = worker
    if hasattr(module, "print_to_stdstream"):
        module.print_to_stdstream = _log_lines


def _log_lines(data: dict[str, Any], *_: Any, **__: Any) -> None:
    for line in data.get("lines", ()):
        logger.debug("Ray: %s", str(line).strip())


@contextmanager
def _own_signal_handlers() -> Generator[None]:
    """Restore the SIGTERM handler, which `ray.init` replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with contextlib.suppress(TypeError):  # the handler was not installed by Python
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _deadline(timeout: float) -> Generator[None]:
    """Raise `TimeoutError` in the main thread after the timeout, even in a blocking call."""

    def ring(*_: Any) -> None:
        raise TimeoutError(f"no answer within {timeout:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
