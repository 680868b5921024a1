"""Processes are ended for good, with all that they started, and end with their parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from scythe.processes import ending as processes
from scythe.processes.ending import MARK, end_tree, oom_kills
from scythe.processes.guard import Guard

SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that the test starts; killed and reaped afterwards."""
    running: list[subprocess.Popen[bytes]] = []
    yield running
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture
def python(started: list[subprocess.Popen[bytes]], tmp_path: Path):
    """Starts a Python program and waits until it has written `ready.json`, which is returned."""

    def start(code: str, **options) -> tuple[subprocess.Popen[bytes], dict[str, int]]:
        ready = tmp_path / f"ready{len(started)}.json"
        prelude = (
            "import json, os, signal, subprocess, sys, time\n"
            "def say(**what):\n"
            f"    open({str(ready)!r} + '.part', 'w').write(json.dumps(what))\n"
            f"    os.rename({str(ready)!r} + '.part', {str(ready)!r})\n"
            f"def sleeper(**options):\n"
            f"    return subprocess.Popen([sys.executable, '-c', {SLEEP!r}], **options).pid\n"
        )
        process = subprocess.Popen([sys.executable, "-c", prelude + code], **options)
        started.append(process)
        wait_until(ready.exists, f"{code!r} to be ready")
        return process, json.loads(ready.read_text())

    return start


def wait_until(condition, what: str, seconds: float = 20.0) -> float:
    """Wait for a condition and return how long that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"waited {seconds} s for {what}"
        time.sleep(0.01)
    return time.monotonic() - began


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def alive(pids: dict[str, int]) -> list[str]:
    return [name for name, pid in pids.items() if is_alive(pid)]


# --- end_tree ------------------------------------------------------------------------------------


def test_a_process_is_ended_with_what_left_its_session(python) -> None:
    process, pids = python("say(a=sleeper(), b=sleeper(start_new_session=True)); time.sleep(600)")
    assert len(alive(pids)) == 2
    assert end_tree(process.pid, 5) == []
    assert alive(pids) == []
    assert process.wait(0) == -signal.SIGTERM, "the exit status is left for its parent"


def test_a_process_may_clean_up_within_the_grace(python, tmp_path: Path) -> None:
    process, _ = python(
        f"signal.signal(signal.SIGTERM, lambda *_: sys.exit(open({str(tmp_path / 'clean')!r}, 'w')"
        ".write('x') and 7))\nsay()\ntime.sleep(600)"
    )
    began = time.monotonic()
    assert end_tree(process.pid, 10) == []
    assert time.monotonic() - began < 5
    assert (tmp_path / "clean").exists()
    assert process.wait(0) == 7


def test_a_process_that_ignores_the_interrupt_is_killed_after_the_grace(python) -> None:
    process, pids = python(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsay(child=sleeper())\ntime.sleep(600)"
    )
    began = time.monotonic()
    assert end_tree(process.pid, 0.5) == []
    assert time.monotonic() - began >= 0.5
    assert alive(pids) == []
    assert process.wait(0) == -signal.SIGKILL


def test_without_grace_it_is_killed_at_once(python) -> None:
    process, _ = python("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsay()\ntime.sleep(600)")
    began = time.monotonic()
    assert end_tree(process.pid, 0) == []
    assert time.monotonic() - began < 3
    assert process.wait(0) == -signal.SIGKILL


def test_a_stopped_process_is_ended_too(python) -> None:
    process, _ = python("say()\nos.kill(os.getpid(), signal.SIGSTOP)\ntime.sleep(600)")
    wait_until(
        lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "it to be stopped"
    )
    assert end_tree(process.pid, 0.3) == []
    assert process.wait(0) == -signal.SIGKILL


def test_several_are_ended_together(python) -> None:
    code = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsay(child=sleeper())\ntime.sleep(600)"
    both = [python(code) for _ in range(2)]
    began = time.monotonic()
    assert end_tree([process.pid for process, _ in both], 2) == []
    assert time.monotonic() - began < 3.9, "one grace for all"
    assert [alive(pids) for _, pids in both] == [[], []]


def test_orphans_are_found_by_the_group_of_their_dead_parent(python) -> None:
    process, pids = python("say(orphan=sleeper()); os._exit(3)", process_group=0)
    wait_until(lambda: not is_alive(process.pid), "the parent's end")
    assert alive(pids) == ["orphan"]
    assert end_tree(process.pid, 1) == []
    assert alive(pids) == []
    assert process.wait(0) == 3


def test_orphans_are_found_by_their_mark(python) -> None:
    process, pids = python(
        "say(orphan=sleeper(start_new_session=True)); os._exit(3)",
        env={**os.environ, MARK: "unit-7.1."},
    )
    process.wait()
    assert end_tree(process.pid, 1, mark="unit-7.11.") == []
    assert alive(pids) == ["orphan"], "another mark"
    assert end_tree([], 1, mark="unit-7.") == []
    assert alive(pids) == []


def test_the_caller_is_spared(python) -> None:
    """Also when it belongs to what is ended: it ends its own tree, then goes on."""
    process, pids = python(
        "child = sleeper()\nfrom scythe.processes.ending import end_tree\n"
        "left = end_tree(os.getpid(), 1)\nsay(child=child, left=len(left))\ntime.sleep(600)",
        process_group=0,
    )
    assert pids.pop("left") == 0
    assert alive(pids) == []
    assert is_alive(process.pid)


def test_a_process_that_is_gone_is_no_matter(python) -> None:
    process, _ = python("say()")
    process.wait()
    began = time.monotonic()
    assert end_tree(process.pid, 5) == []
    assert time.monotonic() - began < 3


# --- watch_parent --------------------------------------------------------------------------------

_CHILD = (
    "import os, subprocess, sys, time\n{prelude}\n"
    "from scythe.processes.ending import watch_parent\n"
    "watch_parent(int(sys.argv[1]))\n"
    "pid = subprocess.Popen([sys.executable, '-c', {sleep!r}], start_new_session=True).pid\n"
    "print(pid, flush=True)\n"
    "time.sleep(600)"
)


@pytest.mark.parametrize("prelude", ["", "del os.pidfd_open"], ids=["pidfd", "polling"])
def test_a_process_ends_with_its_parent_and_takes_its_children_along(python, prelude: str) -> None:
    if prelude and not hasattr(os, "pidfd_open"):
        prelude = ""
    code = _CHILD.format(prelude=prelude, sleep=SLEEP)
    parent, pids = python(
        f"child = subprocess.Popen([sys.executable, '-c', {code!r}, str(os.getpid())],"
        " stdout=subprocess.PIPE)\n"
        "say(child=child.pid, grandchild=int(child.stdout.readline()))\n"
        "time.sleep(600)"
    )
    assert len(alive(pids)) == 2
    parent.kill()
    parent.wait()
    assert wait_until(lambda: not alive(pids), "both to end") < 4


def test_a_parent_that_is_gone_already_is_noticed(python) -> None:
    code = (
        "import sys\nfrom scythe.processes.ending import watch_parent\n"
        "watch_parent(int(sys.argv[1]))\n" + SLEEP
    )
    dead, _ = python("say()")
    dead.wait()
    late = subprocess.Popen([sys.executable, "-c", code, str(dead.pid)])
    try:
        assert late.wait(15) == 1
    finally:
        late.kill()
        late.wait()


# --- the guard -----------------------------------------------------------------------------------

_OWNER = (
    "from scythe.processes.guard import Guard\nfrom scythe.processes.ending import MARK\n"
    "guard = Guard({mark!r}, {folder!r})\n"
    "env = dict(os.environ, **{{MARK: {mark!r} + '1.'}})\n"
    "stuck = ('import ctypes; m = ctypes.create_string_buffer(256);'"
    " 'f = ctypes.PyDLL(None).pthread_mutex_lock; f(m); print(1, flush=True); f(m)')\n"
    "held = subprocess.Popen([sys.executable, '-c', stuck], env=env, stdout=subprocess.PIPE)\n"
    "held.stdout.readline()\n"
    "say(held=held.pid, child=sleeper(env=env, start_new_session=True))\n"
)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_guard_ends_what_a_killed_owner_leaves(python, tmp_path: Path, number: int) -> None:
    folder = tmp_path / "pool"
    folder.mkdir()
    (folder / "file").write_text("x")
    code = _OWNER.format(mark=f"guard-{os.getpid()}.", folder=str(folder))
    owner, pids = python(code + "time.sleep(600)")
    assert len(alive(pids)) == 2
    owner.send_signal(number)
    owner.wait()
    assert wait_until(lambda: not alive(pids), "all to end") < 4
    wait_until(lambda: not folder.exists(), "the folder to go", 5)


def test_the_guard_survives_the_end_of_the_owners_group(python, tmp_path: Path) -> None:
    code = _OWNER.format(mark=f"group-{os.getpid()}.", folder=str(tmp_path / "none"))
    owner, pids = python(code + "time.sleep(600)", process_group=0)
    os.killpg(owner.pid, signal.SIGKILL)
    owner.wait()
    wait_until(lambda: not alive(pids), "all to end", 5)


def test_a_closed_guard_ends_nothing(python, tmp_path: Path) -> None:
    mark = f"closed-{os.getpid()}."
    process, _ = python("say()\ntime.sleep(600)", env={**os.environ, MARK: mark})
    guard = Guard(mark, str(tmp_path))
    guard.close()
    assert is_alive(process.pid)
    assert tmp_path.exists()


def test_a_guard_that_died_is_started_again(tmp_path: Path) -> None:
    before = set(psutil.Process().children())
    mark = f"again-{os.getpid()}."
    guard = Guard(mark, str(tmp_path))
    try:
        wait_until(lambda: len(_guards(mark)) == 1, "the guard")
        first = _guards(mark)
        os.kill(first[0], signal.SIGKILL)
        wait_until(lambda: not is_alive(first[0]), "its end")
        guard.ensure()
        wait_until(lambda: len(_guards(mark)) == 1, "the second guard")
        guard.ensure()
        assert len(_guards(mark)) == 1
    finally:
        guard.close()
    assert _guards(mark) == []
    assert set(psutil.Process().children()) <= before


def _guards(mark: str) -> list[int]:
    """Return the guards of a mark that are on their own."""
    wanted = f"main({mark!r}, "
    return [
        one.pid
        for one in psutil.process_iter(["cmdline", "ppid"])
        if wanted in " ".join(one.info["cmdline"] or []) and one.info["ppid"] != os.getpid()
    ]


def test_the_guard_acts_after_its_owner_was_ended_with_all_it_started(
    python, tmp_path: Path
) -> None:
    """Who ends the owner's tree and mark does not end the guard, which removes the folder."""
    folder = tmp_path / "pool"
    folder.mkdir()
    outer = f"outer-{os.getpid()}."
    code = _OWNER.format(mark=f"{outer}inner.", folder=str(folder))
    owner, pids = python(code + "time.sleep(600)", env={**os.environ, MARK: outer})
    wait_until(lambda: len(_guards(f"{outer}inner.")) == 1, "the guard")
    assert end_tree(owner.pid, 0, mark=outer) == []
    assert alive(pids) == []
    wait_until(lambda: not folder.exists(), "the folder to go", 5)
    wait_until(lambda: not _guards(f"{outer}inner."), "the guard to end", 5)


# --- memory --------------------------------------------------------------------------------------


def test_the_kernels_count_of_oom_kills_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_cgroup_folder", lambda: tmp_path)
    monkeypatch.setattr(processes, "_OTHER_COUNTERS", ((tmp_path / "vmstat", "oom_kill"),))
    assert oom_kills() == 0
    (tmp_path / "vmstat").write_text("nr_free 1\noom_kill 4\n")
    assert oom_kills() == 4
    (tmp_path / "memory.events").write_text("oom 9\noom_kill 2\noom_group_kill 0\n")
    assert oom_kills() == 2
