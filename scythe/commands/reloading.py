"""Runs a worker, and runs it anew when a Python file of its project changes."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import os
import signal
import subprocess
import tempfile
import threading
import types
import uuid
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from scythe.processes import logs as worker_logs
from scythe.processes.ending import MARK
from scythe.processes.guard import Guard
from scythe.provenance.project import Module, project_sources

_PAUSE = 1.0  # seconds between two looks at the files
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_MOST_NAMES = 3

logger = logging.getLogger("scythe.worker")


class ProjectFiles:
    """The Python files of a project, and what has changed in them.

    Args:
        root: The script or module with which the project starts.
    """

    def __init__(self, root: Module) -> None:
        self._root = root
        self._digests = self._read()
        self._stamps = self._last = self._look()

    def changed(self, *, all_files: bool = False) -> list[str]:
        """Return the files whose content has changed since they were last returned.

        A file is returned only if it has not changed since the last call: it may be half written.

        Args:
            all_files: Whether to search for files that were not there before, as after a failed
                import; otherwise this is done only when a known file has changed.
        """
        before, seen = self._last, self._look()
        self._last = seen
        if seen != before or (seen == self._stamps and not all_files):
            return []
        digests = self._read()
        names = {*digests, *self._digests}
        found = sorted(name for name in names if digests.get(name) != self._digests.get(name))
        self._digests = digests
        # Stamps from before the files were read, so that a change meanwhile is seen next time.
        self._stamps = self._last = {**self._look(), **{n: seen[n] for n in seen if n in digests}}
        return found

    def _read(self) -> dict[str, str]:
        importlib.invalidate_caches()
        sources = project_sources(self._root)
        return {str(one.file): hashlib.sha256(source.data).hexdigest() for one, source in sources}

    def _look(self) -> dict[str, tuple[int, int]]:
        stamps: dict[str, tuple[int, int]] = {}
        for name in self._digests:
            with contextlib.suppress(OSError):
                found = Path(name).stat()
                stamps[name] = (found.st_mtime_ns, found.st_size)
        return stamps


class Reloader:
    """Runs a worker until a signal, and runs it anew when its project changes.

    Args:
        command: Starts the worker.
        root: The script or module with which its project starts.
        pause: Seconds between two looks at the files.
    """

    def __init__(self, command: Sequence[str], root: Module, pause: float = _PAUSE) -> None:
        self._command = [*command]
        self._files = ProjectFiles(root)
        self._pause = pause
        self._mark = f"reload-{uuid.uuid4().hex}."
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()

    def run(self) -> int:
        """Run the worker until SIGTERM or Ctrl-C; return its last exit code."""
        worker_logs.configure("reload")
        with tempfile.TemporaryDirectory(prefix="scythe-reload-") as folder, self._signals_taken():
            guard = Guard(self._mark, folder)  # ends the worker if this process is killed
            try:
                while True:
                    code = self._run_once()
                    if self._stopping.is_set():
                        return code
            finally:
                guard.close()

    def _run_once(self) -> int:
        """Run the worker until it has ended and, unless this is to stop, a file has changed."""
        child = subprocess.Popen(
            self._command,
            env={**os.environ, MARK: self._mark},
            start_new_session=True,  # Ctrl-C arrives here, and is passed on
        )
        self._child = child
        is_asked = self._stopping.is_set()  # a signal has arrived during the start
        if is_asked:
            child.send_signal(signal.SIGTERM)
        while (code := self._wait(child)) is None:
            changed = [] if is_asked or self._stopping.is_set() else self._files.changed()
            if changed:
                is_asked = True
                logger.info(
                    "%s changed; restarting the worker. Its running leaves may finish.",
                    _names(changed),
                )
                child.send_signal(signal.SIGTERM)
        self._child = None
        if not is_asked and not self._stopping.is_set():
            logger.error(
                "The worker has ended with exit code %d. It starts again when a file changes.", code
            )
            self._wait_for_change()
        return code

    def _wait(self, child: subprocess.Popen[bytes]) -> int | None:
        """Return the exit code of the worker, or None if it still runs after a pause."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = child.wait(self._pause)
            return code if code >= 0 else 128 - code
        return None

    def _wait_for_change(self) -> None:
        while not self._stopping.wait(self._pause):
            if changed := self._files.changed(all_files=True):
                logger.info("%s changed; starting the worker again.", _names(changed))
                return

    @contextmanager
    def _signals_taken(self) -> Generator[None]:
        """Pass signals on to the worker, which stops gracefully, the second time at once."""
        wanted = [one for one in _SIGNALS if signal.getsignal(one) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._pass_on) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _pass_on(self, number: int, _frame: types.FrameType | None) -> None:
        self._stopping.set()
        if self._child is not None:
            self._child.send_signal(number)


def _names(files: Sequence[str]) -> str:
    names = [Path(name).name for name in files[:_MOST_NAMES]]
    more = [f"{len(files) - len(names)} more files"] if len(files) > len(names) else []
    return ", ".join([*names, *more])
