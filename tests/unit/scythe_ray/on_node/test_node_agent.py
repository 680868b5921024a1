"""Which leaf a process runs, and that ending one never hits another. Needs no Ray."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from scythe.processes.ending import end_tree
from scythe_ray.on_node.leaf_process import EXIT_NOTE
from scythe_ray.on_node.node_agent import NodeAgent
from scythe_ray.on_node.records import (
    RECORD,
    Entry,
    RecordError,
    private_folder,
    read_entry,
    write_entry,
)
from scythe_ray.on_node.scratch import Scratch

SCRIPT = Path(__file__).with_name("ray_leaves.py")
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    processes: list[subprocess.Popen[bytes]] = []

    def begin(how: str, folder: Path = tmp_path) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(SCRIPT), str(folder), how]
        processes.append(subprocess.Popen(command, start_new_session=True))
        return processes[-1]

    yield begin
    for process in processes:
        end_tree(process.pid, 0)
        process.wait(10)


def wait_for(condition: Callable[[], object], within: float = 20.0) -> object:
    deadline = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.005)
    return found


def text_of(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_leaf_is_found_and_ended(start: Start, tmp_path: Path) -> None:
    process, control = start("sleep"), NodeAgent(tmp_path / "records")
    wait_for(lambda: text_of(tmp_path / "log"))
    seen = control.find("sleep-1")
    assert seen is not None
    assert (seen.state, seen.pid) == ("running", process.pid)
    assert 0 <= seen.elapsed < 20
    assert control.find("sleep-2") is None
    ended = control.end("sleep-1", 2.0, stack=True)
    assert ended is not None
    assert (ended.state, ended.left) == ("ended", ())
    assert "ray_leaves.py" in ended.trace  # where it was
    assert process.wait(5) is not None
    assert control.find("sleep-1") is None
    assert not list((tmp_path / "records").glob(f"*{RECORD}"))
    assert not Path(text_of(tmp_path / "scratch")).exists()


def test_what_a_leaf_started_ends_with_it(start: Start, tmp_path: Path) -> None:
    start("child")
    control = NodeAgent(tmp_path / "records")
    wait_for(lambda: control.find("child-2") and text_of(tmp_path / "log.done"))
    first = int(text_of(tmp_path / "log").split()[1]) if control.find("child-1") else None
    wait_for(lambda: control.find("child-2") and len(text_of(tmp_path / "log").split()) == 2)
    pids = [int(word) for word in text_of(tmp_path / "log").split()]
    assert first is None
    assert control.end("child-2", 0.5) is not None
    assert not [pid for pid in pids if is_alive(pid)]


def test_a_leaf_that_ended_by_itself_leaves_no_process(start: Start, tmp_path: Path) -> None:
    start("child")
    wait_for(lambda: text_of(tmp_path / "log.done"))
    left = [
        one.pid
        for one in psutil.process_iter(["cmdline", "environ"])
        if one.info["cmdline"] == ["sleep", "600"]
        and (one.info["environ"] or {}).get("SCYTHE_PROCESS") == "ray/child-1."
    ]
    assert left == []


def test_a_leaf_that_was_cancelled_before_it_began_does_not_run(
    start: Start, tmp_path: Path
) -> None:
    control = NodeAgent(tmp_path / "records")
    assert control.end("sleep-1", 0) is None
    process = start("sleep")
    wait_for(lambda: control.find("sleep-1"))
    time.sleep(0.2)
    assert text_of(tmp_path / "log") == ""
    assert control.end("sleep-1", 0) is not None
    process.wait(5)
    assert text_of(tmp_path / "log") == ""
    control.forget("sleep-1")
    assert list((tmp_path / "records").iterdir()) == []


def test_ending_a_leaf_never_hits_the_next_one(start: Start, tmp_path: Path) -> None:
    """A process that runs hundreds of leaves a second, and one of them is ended somewhere."""
    outcomes: list[str] = []
    for number_of_round in range(10):
        folder = tmp_path / str(number_of_round)
        folder.mkdir()
        log, control = folder / "log", NodeAgent(folder / "records")
        process = start("quick", folder)
        wait_for(lambda log=log: text_of(log).count("\n") > 3)
        number = text_of(log).count("\n") + number_of_round % 3
        token = f"quick-{number}"
        seen = control.end(token, 0.5)
        if seen is not None and seen.state == "ended":
            process.wait(5)
            # It was ended at any moment of its life, but no other was.
            assert text_of(log).split()[-1] in (token, f"quick-{number - 1}")
        else:
            # It was over, or it begins only now and waits to be ended; all others go on.
            before = text_of(log).count("\n")
            wait_for(
                lambda log=log, before=before, control=control, token=token: (
                    text_of(log).count("\n") > before or control.find(token)
                )
            )
            assert process.poll() is None
        outcomes.append(seen.state if seen else "not here")
        process.kill()
        process.wait(5)
    print(outcomes)


def test_a_crash_is_explained_and_its_children_are_ended(start: Start, tmp_path: Path) -> None:
    process, control = start("crash"), NodeAgent(tmp_path / "records")
    process.wait(20)
    child = int(text_of(tmp_path / "log"))
    assert is_alive(child)
    seen = control.report("crash-1")
    assert seen is not None
    assert seen.pid == process.pid
    assert "Fatal Python error: Aborted" in seen.trace
    assert "ray_leaves.py" in seen.trace
    assert not is_alive(child)
    assert control.report("crash-1") is None


def test_memory_that_the_kernel_lacked_is_said(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = iter([3, 4])
    monkeypatch.setattr("scythe_ray.on_node.node_agent.oom_kills", lambda: next(kills))
    process, control = start("sleep"), NodeAgent(tmp_path / "records")
    wait_for(lambda: text_of(tmp_path / "log"))
    process.kill()
    process.wait(20)
    seen = control.report("sleep-1")
    assert seen is not None
    assert re.fullmatch(r"\d+\.\d\d GB of \d+\.\d\d GB", seen.memory)


def test_a_control_that_follows_another_knows_what_the_kernel_did_before(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scythe_ray.on_node.node_agent.oom_kills", lambda: 3)
    first = NodeAgent(tmp_path / "records")
    process = start("sleep")
    wait_for(lambda: text_of(tmp_path / "log"))
    process.kill()
    process.wait(20)
    monkeypatch.setattr("scythe_ray.on_node.node_agent.oom_kills", lambda: 4)
    second = NodeAgent(tmp_path / "records", first.kills)
    seen = second.report("sleep-1")
    assert seen is not None
    assert seen.memory
    process = start("crash")
    process.wait(20)
    other = NodeAgent(tmp_path / "records", second.kills).report("crash-1")
    assert other is not None
    assert other.memory == ""


def test_an_exit_code_is_kept(start: Start, tmp_path: Path) -> None:
    process, control = start("exit"), NodeAgent(tmp_path / "records")
    assert process.wait(20) == 3
    seen = control.report("exit-1")
    assert seen is not None
    assert seen.trace.startswith(f"{EXIT_NOTE}(3)\n")


def test_a_record_of_a_process_that_is_gone_ends_nobody(tmp_path: Path) -> None:
    """The process id was given to another process in the meantime."""
    folder = private_folder(tmp_path / "records")
    innocent = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        with (folder / f"{innocent.pid}{RECORD}").open("w+b") as file:
            entry = Entry(
                "t-1", innocent.pid, 1.0, time.monotonic(), "ray/t-1.", str(tmp_path / "x")
            )
            write_entry(file.fileno(), entry)
            assert read_entry(file.fileno()) == entry
        control = NodeAgent(folder)
        assert control.find("t-1") is None
        seen = control.end("t-1", 0)
        assert seen is not None
        assert seen.state == "ended"
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait(10)


def test_the_folder_of_records_is_private(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "records")
    assert folder.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match="cannot be created"):
        private_folder(tmp_path / "file" / "records")


def test_scratch_folders_of_dead_processes_are_swept(start: Start, tmp_path: Path) -> None:
    process = start("sleep")
    wait_for(lambda: text_of(tmp_path / "log"))
    other = Path(text_of(tmp_path / "scratch"))
    first = Path(Scratch(str(tmp_path)).path)
    assert other.exists()
    process.kill()
    process.wait(10)
    second = Path(Scratch(str(tmp_path)).path)
    assert not other.exists()
    assert first.exists()
    assert second.exists()


def test_a_folder_whose_process_was_killed_before_it_locked_it_is_swept(tmp_path: Path) -> None:
    (tmp_path / "scythe-leaf-early").mkdir()
    (tmp_path / "scythe-leaf-other").mkdir()
    (tmp_path / "scythe-leaf-other" / "file").touch()  # none of ours: not without its lock
    mine = Path(Scratch(str(tmp_path)).path)
    assert {path.name for path in tmp_path.iterdir()} == {mine.name, "scythe-leaf-other"}


def test_a_folder_that_another_agent_removes_meanwhile_has_no_leaves(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    agent = NodeAgent(folder)
    folder.mkdir(mode=0o700)
    removed = threading.Event()

    def remove_again_and_again() -> None:
        while not removed.is_set():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)

    with ThreadPoolExecutor(1) as threads:
        removing = threads.submit(remove_again_and_again)
        for _ in range(2_000):
            assert agent.find("a") is None
        removed.set()
        removing.result()
