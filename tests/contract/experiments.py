"""The experiments of the contract suite: one for each thing that a leaf may do."""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import logging
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta
from datetime import time as time_of_day
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.storage.files import FileReference, OptionalFileReference

LONG = 600  # seconds; no test waits for it


class Task(ExperimentInputSpec):
    """The spec of most leaves.

    Attributes:
        folder: Where the leaf writes what the test looks for.
        how: What it does, for experiments that can do several things.
    """

    folder: str = ""
    how: str = ""


class Number(ExperimentOutputSpec):
    value: float = 0.0


class Text(ExperimentOutputSpec):
    text: str = ""


class Values(ExperimentInputSpec):
    number: float = 0.0
    maybe: float | None = None
    whole: int = 0
    yes: bool = False
    text: str = ""
    mapping: dict[int, list[float]] = Field(default_factory=dict)


class Scalars(ExperimentOutputSpec):
    number: float
    maybe: float | None
    whole: int
    yes: bool
    text: str
    seen: str


@ExperimentRegistry.Register()
def scalars(spec: Values) -> Scalars:
    seen = json.dumps(
        {
            "number": repr(spec.number),
            "maybe": repr(spec.maybe),
            "text": spec.text,
            "mapping": repr(spec.mapping),
        }
    )
    return Scalars(
        number=spec.number,
        maybe=spec.maybe,
        whole=spec.whole,
        yes=spec.yes,
        text=spec.text,
        seen=seen,
    )


@ExperimentRegistry.Register()
def noop(spec: Task) -> Number:
    return Number(value=spec.sort_index)


@ExperimentRegistry.Register()
def prints(spec: Task) -> Number:
    """Print in every way there is, then end as it is told."""
    number = spec.sort_index
    print("printed", number)
    print("error", number, file=sys.stderr)
    logging.getLogger("model.a").warning("careful %d", number)
    logging.getLogger("model.b").info("by the way %d", number)
    spec.log("of the spec")
    ctypes.CDLL(None).printf(b"from C\n")
    subprocess.run(["echo", "by a child"], check=True)
    sys.stdout.write("no line end")
    if spec.how == "raise":
        raise ValueError("after printing")
    if spec.how == "exit":
        os._exit(3)
    if spec.how == "segfault":
        ctypes.string_at(0)
    if spec.how == "hang":
        time.sleep(LONG)
    return Number()


@ExperimentRegistry.Register()
def prints_late(spec: Task) -> Number:
    """Prints after a while, in the middle of which another process looks at the streams."""
    time.sleep(0.06)
    print("printed", spec.sort_index)
    os.write(2, b"by its number\n")
    subprocess.run(["echo", "by a child"], check=True)
    if spec.how == "closes":
        os.close(1)
        os.close(2)
    if spec.how == "redirects":
        with Path(spec.folder, "elsewhere").open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    if spec.how == "replaces":
        sys.stdout = sys.stderr = io.StringIO()
    return Number(value=spec.sort_index)


@ExperimentRegistry.Register()
def prints_much(spec: Task) -> Number:
    for number in range(int(spec.how) // 10):
        print("line", number)
    print("the end")
    return Number()


@ExperimentRegistry.Register()
def once(spec: Task) -> Number:
    """Leaves a file behind, and fails if it has been here before."""
    with Path(spec.folder, f"{spec.sort_index}").open("x") as file:
        file.write(str(os.getpid()))
    return Number(value=spec.sort_index)


@ExperimentRegistry.Register()
def tables(spec: Task) -> Number:
    rows = int(spec.how or 3)
    data = {"a": list(range(rows)), "b": [f"row {number}" for number in range(rows)]}
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    return Number(
        value=rows,
        dataframes={
            "pandas": pd.DataFrame(data),
            "polars": pl.DataFrame(data),
            "arrow": pa.table(data),
        },
    )


class WithFile(ExperimentOutputSpec):
    report: FileReference


@ExperimentRegistry.Register()
def writes_file(spec: Task, tempdir: Path) -> WithFile:
    path = tempdir / "report.txt"
    if spec.how != "missing":
        path.write_bytes(b"report \x00 of leaf " + str(spec.sort_index).encode())
    return WithFile(report=path)


class FromFile(ExperimentInputSpec):
    weather: FileReference


@ExperimentRegistry.Register()
def reads_cached(spec: FromFile) -> Text:
    path = Path(str(spec.weather))
    return Text(text=f"{path.read_text()}|{path}")


@ExperimentRegistry.Register(local_file_location="copied-to-tempdir")
def reads_copy(spec: FromFile, tempdir: Path) -> Text:
    path = Path(str(spec.weather))
    content = path.read_text()
    path.write_text("changed by the leaf")
    assert path.parent == tempdir
    return Text(text=f"{content}|{path}")


@ExperimentRegistry.Register()
def keeps_tempdir(spec: Task, tempdir: Path) -> Text:
    """Says where its folder is, by file as well, and fails if asked to."""
    (tempdir / "scratch").write_text("x")
    Path(spec.folder, "tempdir").write_text(str(tempdir))
    if spec.how == "fail":
        raise ValueError("after writing")
    return Text(text=str(tempdir))


@ExperimentRegistry.Register()
def changes_process(spec: Task, tempdir: Path) -> Text:
    """Changes what belongs to the process."""
    os.chdir(tempdir)
    os.environ["SCYTHE_CONTRACT_NEW"] = "leaked"
    os.environ.pop("PATH")
    return Text(text=str(os.getpid()))


@ExperimentRegistry.Register()
def shows_process(spec: Task) -> Text:
    return Text(
        text=json.dumps(
            {
                "pid": os.getpid(),
                "cwd": str(Path.cwd()),
                "new": os.environ.get("SCYTHE_CONTRACT_NEW"),
                "path": os.environ.get("PATH"),
            }
        )
    )


class OddError(Exception):
    """Cannot be pickled, and cannot be made from its own `args`."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} at {where}")
        self.handle = open(os.devnull)  # noqa: PTH123, SIM115

    def __reduce__(self) -> Any:
        raise TypeError("no pickle of me")


@ExperimentRegistry.Register()
def fails(spec: Task) -> Number:
    if spec.how == "value":
        raise ValueError("no such façade: 12")  # the line that tests look for
    if spec.how == "odd":
        raise OddError("pump", "node 7")
    if spec.how == "sys.exit":
        sys.exit(4)
    if spec.how == "os._exit":
        os._exit(3)
    if spec.how == "memory":
        bytearray(1 << 62)
    if spec.how == "segfault":
        _follow_null_pointer()
    if spec.how == "type":
        return {"value": 1}  # type: ignore[return-value]
    if spec.how == "table":
        return Number(dataframes={"hourly": {"a": 1}})
    if spec.how == "reserved":
        import pyarrow as pa

        return Number(dataframes={"scalars": pa.table({"a": [1]})})
    return Number()


def _follow_null_pointer() -> None:
    ctypes.string_at(0)


@ExperimentRegistry.Register()
def hangs(spec: Task) -> Number:
    """Starts a program in a session of its own and never comes back."""
    child = subprocess.Popen(["sleep", str(LONG)], start_new_session=True)
    announce(spec, {"leaf": os.getpid(), "child": child.pid})
    if spec.how == "sleep":
        time.sleep(LONG)
    elif spec.how == "wait":
        child.wait()
    elif spec.how == "busy":
        while True:
            sum(range(1000))
    elif spec.how == "gil":
        # A lock that is taken twice: no signal ends the wait, and no other thread runs.
        mutex = ctypes.create_string_buffer(256)
        take = ctypes.PyDLL(None).pthread_mutex_lock
        take(mutex)
        take(mutex)
    elif spec.how == "swallow":
        while True:
            with contextlib.suppress(BaseException):
                time.sleep(LONG)
    return Number()


@ExperimentRegistry.Register()
def survives_one_kill(spec: Task) -> Number:
    """Hangs the first time, comes back the second."""
    first = not Path(spec.folder, f"{spec.sort_index}.json").exists()
    announce(spec, {"leaf": os.getpid()})
    if first:
        time.sleep(LONG)
    return Number(value=42)


@ExperimentRegistry.Register()
def misbehaves(spec: Task) -> Text:
    """Does to its process what user code does."""
    MISDEEDS[spec.how](spec)
    return Text(text=str(os.getpid()))


def _handlers(spec: Task) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR2))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0.05)  # would end the process during the next leaf


def _streams(spec: Task) -> None:
    os.close(1)
    sys.stderr.close()


def _replaced_streams(spec: Task) -> None:
    sys.stdout = Path(spec.folder, "stdout").open("w")  # noqa: SIM115
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)


def _fork(spec: Task) -> None:
    """Forks, and lets the child come back as if it were the leaf."""
    if os.fork() == 0:
        return
    os.wait()


def _fork_fails(spec: Task) -> None:
    child = os.fork()
    if child == 0:
        raise ValueError("in the fork")
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1


def _thread(spec: Task) -> None:
    threading.Thread(target=time.sleep, args=(LONG,)).start()


def _zombie(spec: Task) -> None:
    """Leaves a process that has ended and was not asked how."""
    child = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 0"], {})
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)


MISDEEDS = {
    "handlers": _handlers,
    "streams": _streams,
    "replaced streams": _replaced_streams,
    "fork": _fork,
    "fork that fails": _fork_fails,
    "thread": _thread,
    "zombie": _zombie,
}


@ExperimentRegistry.Register()
def behaves(spec: Task) -> Text:
    """Prints, waits a moment and looks around."""
    print(f"printed by {spec.how}", flush=True)
    print(f"complained by {spec.how}", file=sys.stderr, flush=True)
    time.sleep(0.2)
    return Text(
        text=json.dumps({"pid": os.getpid(), "term": str(signal.getsignal(signal.SIGTERM))})
    )


@ExperimentRegistry.Register()
def is_interrupted(spec: Task) -> Number:
    """Is interrupted, and says so in its `finally`."""
    try:
        time.sleep(LONG)
    finally:
        Path(spec.folder, "interrupted").write_text("x")
    return Number()


@ExperimentRegistry.Register()
def leaves_files_open(spec: Task) -> Number:
    """Leaves two fifths of what its process may open; fails where that cannot be had."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    for _ in range(2 * most // 5):
        os.dup(1)
    return Number(value=spec.sort_index)


def square(number: int) -> int:
    return number * number


@ExperimentRegistry.Register()
def uses_processes(spec: Task) -> Text:
    """Uses multiprocessing as users do."""
    if spec.how == "futures":
        with ProcessPoolExecutor(2) as pool:
            return Text(text=str(list(pool.map(square, range(5)))))
    with multiprocessing.get_context(spec.how).Pool(2) as pool:
        return Text(text=str(pool.map(square, range(5))))


@ExperimentRegistry.Register()
def ends_its_forks(spec: Task) -> Text:
    """Forks, and ends the new process at once, as pools do that are not needed any more."""
    endings: set[int] = set()
    for _ in range(500):
        child = os.fork()
        if child == 0:
            time.sleep(LONG)
        os.kill(child, signal.SIGTERM)
        endings.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return Text(text=str(endings))


def announce(spec: Task, what: dict[str, int]) -> None:
    """Write down, whole or not at all, which processes the leaf has."""
    part = Path(spec.folder, f"{spec.sort_index}.part")
    part.write_text(json.dumps(what))
    part.rename(part.with_suffix(".json"))


@ExperimentRegistry.Register()
def announces(spec: Task) -> Number:
    """Says that it has begun, and ends half a second later."""
    announce(spec, {"leaf": os.getpid()})
    time.sleep(0.5)
    return Number(value=spec.sort_index)


@ExperimentRegistry.Register()
def hides_a_process(spec: Task) -> Number:
    """Starts a process that nothing of its own leads to, and ends itself without a word."""
    first = os.fork()
    if first == 0:
        os.setsid()
        second = os.fork()
        if second == 0:
            os.execve(
                sys.executable, [sys.executable, "-c", f"import time; time.sleep({LONG})"], {}
            )
        announce(spec, {"hidden": second})
        os._exit(0)
    os.waitpid(first, 0)
    os.kill(os.getpid(), signal.SIGKILL)
    return Number()


@ExperimentRegistry.Register()
def many(spec: Task, tempdir: Path) -> Number:
    """A leaf of a batch: does what its spec says, and leaves a trace of each try."""
    number = spec.sort_index
    with Path(spec.folder, "tries").open("a") as file:
        file.write(f"{number} {os.getpid()}\n")
    (tempdir / "own").touch(exist_ok=False)
    if spec.how == "value":
        raise ValueError("no such façade: 12")
    if spec.how == "segfault":
        _follow_null_pointer()
    if spec.how == "sys.exit":
        sys.exit(4)
    if spec.how == "hang":
        child = subprocess.Popen(["sleep", str(LONG)], start_new_session=True)
        announce(spec, {"leaf": os.getpid(), "child": child.pid})
        time.sleep(LONG)
    if spec.how == "leaves a child":
        child = subprocess.Popen(["sleep", str(LONG)], start_new_session=True)
        announce(spec, {"child": child.pid})
    if spec.how == "leaves a stubborn child":
        subprocess.Popen(["sh", "-c", f"trap '' TERM; exec sleep {LONG}"], start_new_session=True)
        time.sleep(0.7)
    if spec.how == "table":
        import numpy as np
        import pyarrow as pa

        rows = pa.array(np.arange(3_000_000))
        return Number(value=number, dataframes={"large": pa.table({"a": rows, "b": rows})})
    return Number(value=number)


@ExperimentRegistry.Register()
def half_a_second(spec: Task) -> Number:
    time.sleep(0.5)
    return Number(value=spec.sort_index)


# --- values and files as they were ---------------------------------------------------------------


class Note(BaseModel):
    file: FileReference
    words: int = 0


class Moments(ExperimentInputSpec):
    when: datetime
    opens: time_of_day
    anything: Any = None
    _noted: Any = None


@ExperimentRegistry.Register()
def tells_moments(spec: Moments) -> Text:
    """Return what the leaf got, and the hour half a year later."""
    later = spec.when + timedelta(days=182)
    return Text(
        text="|".join(map(repr, (spec.when, spec.opens, spec.anything, spec._noted, later)))
    )


class FilesIn(ExperimentInputSpec):
    listed: list[FileReference] = []
    named: dict[str, FileReference] = {}
    note: Note | None = None


class FilesOut(ExperimentOutputSpec):
    text: str
    listed: list[FileReference]
    named: dict[str, FileReference]
    note: Note
    maybe: OptionalFileReference = None
    plain: Path


@ExperimentRegistry.Register(local_file_location="copied-to-tempdir")
def passes_files(spec: FilesIn, tempdir: Path) -> FilesOut:
    """Return each input file, changed, in the same shape."""
    assert spec.note is not None
    given = [*spec.listed, *spec.named.values(), spec.note.file]

    def write(name: str, text: str) -> Path:
        path = tempdir / name
        path.write_text(text)
        return path

    return FilesOut(
        text=" ".join(f"{Path(str(one)).name}={Path(str(one)).read_text()}" for one in given),
        listed=[write(f"l{n}.tar.gz", f"l{n}") for n in range(len(spec.listed))],
        named={name: write(f"n{n}.txt", name) for n, name in enumerate(spec.named)},
        note=Note(file=write("note.md", "noted"), words=1),
        plain=write("plain.csv", "p"),
    )


class LeftPath(ExperimentOutputSpec):
    text: str = ""
    anything: Any = None
    listed: list[Path] = []


@ExperimentRegistry.Register()
def leaves_path(spec: Task, tempdir: Path) -> LeftPath:
    """Return a path of the folder that is removed, in a way that uploads nothing."""
    file = tempdir / "left.txt"
    file.write_text("x")
    if spec.how == "text":
        return LeftPath(text=str(file))
    if spec.how == "deep":
        return LeftPath(anything=[{"a": str(file)}])
    if spec.how == "gone":
        return LeftPath(listed=[tempdir / "not there"])
    if spec.how == "table":
        import pandas as pd

        return LeftPath(dataframes={"t": pd.DataFrame({"n": [1, 2], "f": ["x", str(file)]})})
    if spec.how == "folder":
        return LeftPath(anything=tempdir)
    return LeftPath(text=f"{file} was written", anything="/somewhere/else")
