"""The promises of every executor: one suite, run against each of them."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from scythe.durations import NO_LIMIT
from scythe.errors import ExecutorUnavailable, LeafFailed
from scythe.leaf.journal import count_leaves
from scythe.leaf.log import CAP, LEFT_OUT
from scythe.local.executor import LocalExecutor
from scythe.locate import code_ref
from scythe.outcomes import (
    BatchResult,
    CodeRef,
    FailureKind,
    LeafCall,
    LeafResources,
    StoreConfig,
)
from scythe.storage.store import open_store
from scythe.tables.arrow import from_ipc
from scythe.worker_processes.batch_calls import run_whole_batch
from tests.contract import experiments
from tests.contract.conftest import (
    RUN,
    SLOTS,
    Harness,
    announced,
    is_alive,
    scalars_of,
    tables_of,
    tries_of,
)

LATE = 10.0  # seconds after which something that should have been stopped at once was not
HANGS = ["sleep", "wait", "busy", "gil", "swallow"]


# --- results -------------------------------------------------------------------------------------


def test_a_leaf_runs_in_another_process_and_says_where_and_how_long(harness: Harness) -> None:
    before = time.time()
    stats = harness.result(experiments.noop, index=5).stats
    assert stats.pid not in (0, os.getpid())
    assert stats.node
    assert before - 1 <= stats.started <= stats.finished <= time.time() + 1
    assert stats.peak_rss > 1_000_000


@pytest.mark.parametrize(
    ("number", "maybe"),
    [(math.nan, None), (math.inf, math.nan), (-math.inf, -0.0), (5e-324, 1.7976931348623157e308)],
    ids=str,
)
def test_scalars_arrive_and_come_back_as_they_are(
    harness: Harness, number: float, maybe: float | None
) -> None:
    text = 'a\x00b "quoted" \\ ☃ \U0001f600 \u2028'
    given = {"number": number, "maybe": maybe, "whole": -(2**70), "yes": True, "text": text}
    values = scalars_of(harness.result(experiments.scalars, **given, mapping={3: [1.5], -1: []}))
    seen = json.loads(values.pop("seen"))
    assert repr(values) == repr(given)
    assert seen == {
        "number": repr(number),
        "maybe": repr(maybe),
        "text": text,
        "mapping": "{3: [1.5], -1: []}",
    }


def test_small_tables_travel_with_the_result(harness: Harness) -> None:
    result = harness.result(experiments.tables, how="3")
    assert set(result.tables) == {"pandas", "polars", "arrow"}
    for table in result.tables.values():
        assert isinstance(table, bytes)
        assert from_ipc(table).select(["a", "b"]).to_pydict() == {
            "a": [0, 1, 2],
            "b": ["row 0", "row 1", "row 2"],
        }


def test_a_large_table_goes_to_the_bucket(harness: Harness, store: StoreConfig) -> None:
    result = harness.result(experiments.tables, how="20000", store=store)
    for key in result.tables.values():
        assert isinstance(key, str)
        assert key.startswith(f"{store.prefix}/{RUN}/")
        columns = from_ipc(open_store(store).get_bytes(key)).select(["a", "b"])
        assert columns.num_rows == 20000
        assert columns.slice(19999).to_pydict() == {"a": [19999], "b": ["row 19999"]}


def test_an_output_file_is_uploaded(harness: Harness, store: StoreConfig) -> None:
    uri = harness.result(experiments.writes_file, index=7, store=store).files["report"]
    key = uri.removeprefix(f"s3://{store.bucket}/")
    assert key == f"{store.prefix}/{RUN}/results/report/00000007.txt"
    assert open_store(store).get_bytes(key) == b"report \x00 of leaf 7"


@pytest.mark.parametrize("name", ["reads_cached", "reads_copy"])
def test_an_input_file_is_fetched(harness: Harness, store: StoreConfig, name: str) -> None:
    key = f"{store.prefix}/{RUN}/artifacts/weather/{name}.epw"
    uri = open_store(store).put_bytes(key, f"weather of {name}".encode())
    for _ in range(2):  # a leaf that changes its copy changes nobody else's
        result = harness.result(getattr(experiments, name), weather=uri, store=store)
        content, path = scalars_of(result)["text"].split("|")
        assert content == f"weather of {name}"
        assert Path(path).exists() == (name == "reads_cached")


def test_many_leaves_at_once_run_exactly_once_each(harness: Harness, tmp_path: Path) -> None:
    calls = [harness.call(experiments.once, number, folder=str(tmp_path)) for number in range(200)]

    async def together() -> list[float]:
        results = await asyncio.gather(*(harness.executor.run(call) for call in calls))
        return [scalars_of(result)["value"] for result in results]

    assert harness.do(together()) == list(range(200))
    pids = {file.read_text() for file in tmp_path.iterdir()}
    assert len(list(tmp_path.iterdir())) == 200
    assert len(pids) <= SLOTS


# --- what a leaf leaves behind -------------------------------------------------------------------


@pytest.mark.parametrize("how", ["", "fail"])
def test_the_tempdir_is_gone_afterwards(harness: Harness, tmp_path: Path, how: str) -> None:
    call = harness.call(experiments.keeps_tempdir, how=how, folder=str(tmp_path))
    if how:
        assert harness.failure_of(call).message == "after writing"
    else:
        harness.do(harness.executor.run(call))
    assert not Path((tmp_path / "tempdir").read_text()).exists()


def test_working_directory_and_environment_do_not_leak(harness: Harness) -> None:
    before = {
        shown["pid"]: shown
        for shown in (json.loads(scalars_of(r)["text"]) for r in _on_all(harness))
    }
    changed = int(scalars_of(harness.result(experiments.changes_process))["text"])
    after = {
        shown["pid"]: shown
        for shown in (json.loads(scalars_of(r)["text"]) for r in _on_all(harness))
    }
    assert changed in after, "the process was not used again: nothing is tested"
    assert after[changed]["new"] is None
    assert after[changed]["path"] == os.environ["PATH"]
    assert {shown["cwd"] for shown in after.values()} == {shown["cwd"] for shown in before.values()}


@pytest.mark.parametrize("how", experiments.MISDEEDS)
def test_what_a_leaf_does_to_its_process_the_next_does_not_notice(
    harness: Harness, tmp_path: Path, how: str
) -> None:
    for _ in range(10):  # until all three have had one process
        before = harness.result(experiments.behaves, how="before")
        between = harness.result(experiments.misbehaves, how=how, folder=str(tmp_path))
        after = harness.result(experiments.behaves, how="after")
        if len({one.stats.pid for one in (before, between, after)}) == 1:
            break
    assert before.stats.pid == between.stats.pid == after.stats.pid
    assert scalars_of(after) == scalars_of(before)
    for name, result in {"before": before, "after": after}.items():
        assert result.log == f"printed by {name}\ncomplained by {name}\n"
    call = harness.call(experiments.is_interrupted, 0, folder=str(tmp_path), timeout=0.5)
    assert harness.failure_of(call).kind is FailureKind.TIMEOUT
    assert (tmp_path / "interrupted").exists(), "it can still be interrupted"


def test_a_process_in_which_leaves_left_much_open_runs_no_more(harness: Harness) -> None:
    results = [harness.result(experiments.leaves_files_open, index=i) for i in range(6)]
    assert [scalars_of(result)["value"] for result in results] == list(range(6))


@pytest.mark.parametrize("how", ["fork", "spawn", "futures"])
def test_a_leaf_may_use_processes_itself(harness: Harness, how: str) -> None:
    for _ in range(2):
        result = harness.result(experiments.uses_processes, how=how)
        assert scalars_of(result)["text"] == "[0, 1, 4, 9, 16]"
        assert result.log == ""


def test_what_a_leaf_forks_ends_by_a_signal_as_usual(harness: Harness) -> None:
    ended = scalars_of(harness.result(experiments.ends_its_forks))["text"]
    assert ended == str({-signal.SIGTERM.value})


def test_a_fresh_process_ran_no_other_leaf_and_runs_no_further_one(harness: Harness) -> None:
    used = {json.loads(scalars_of(result)["text"])["pid"] for result in _on_all(harness)}
    fresh = LeafResources(fresh_process=True)
    for _ in range(2):
        call = harness.call(experiments.shows_process, resources=fresh)
        pid = json.loads(scalars_of(harness.do(harness.executor.run(call)))["text"])["pid"]
        assert pid not in used
        assert not is_alive(pid)
        used.add(pid)


def _on_all(harness: Harness) -> list:
    async def together() -> list:
        calls = [harness.call(experiments.shows_process) for _ in range(30)]
        return await asyncio.gather(*(harness.executor.run(call) for call in calls))

    return harness.do(together())


# --- what a leaf prints --------------------------------------------------------------------------

PRINTED = [
    "printed 3",
    "error 3",
    "WARNING model.a: careful 3",
    "INFO model.b: by the way 3",
    "INFO scythe.leaf: [{run}] of the spec",
    "from C",
    "by a child",
    "no line end",
]


def test_what_a_leaf_prints_comes_back_in_order(harness: Harness) -> None:
    result = harness.result(experiments.prints, index=3)
    assert result.log.splitlines() == [line.format(run=RUN) for line in PRINTED]
    assert harness.result(experiments.noop).log == ""


@pytest.mark.parametrize("how", ["raise", "exit", "segfault"])
def test_what_a_leaf_printed_before_it_failed_comes_back(harness: Harness, how: str) -> None:
    failure = harness.failure(experiments.prints, index=4, how=how)
    assert failure.log.splitlines()[:2] == ["printed 4", "error 4"]
    assert "by a child" in failure.log


def test_what_a_leaf_printed_before_its_time_was_over_comes_back(harness: Harness) -> None:
    call = harness.call(experiments.prints, 5, how="hang", timeout=1.0)
    assert "error 5" in harness.failure_of(call).log


def test_a_leaf_that_prints_very_much_keeps_start_and_end(harness: Harness) -> None:
    log = harness.result(experiments.prints_much, how="500000").log
    assert len(log.encode()) < CAP + 200
    assert log.startswith("line 0\nline 1\n")
    assert log.endswith("the end\n")
    assert LEFT_OUT in log


# --- failures ------------------------------------------------------------------------------------


def test_an_error_arrives_with_type_message_and_line(harness: Harness) -> None:
    failure = harness.failure(experiments.fails, how="value")
    assert failure.kind is FailureKind.APPLICATION
    assert failure.type == "ValueError"
    assert failure.message == "no such façade: 12"
    lines = Path(experiments.__file__).read_text().splitlines()
    line = next(n for n, text in enumerate(lines, 1) if "the line that tests look for" in text)
    assert f'experiments.py", line {line}, in fails' in failure.traceback
    assert failure.stats.pid > 0


def test_an_exception_that_cannot_be_pickled_arrives(harness: Harness) -> None:
    failure = harness.failure(experiments.fails, how="odd")
    assert (failure.kind, failure.type) == (FailureKind.APPLICATION, "OddError")
    assert failure.message == "pump at node 7"
    assert "in fails" in failure.traceback


def test_sys_exit_is_an_error_of_the_leaf(harness: Harness) -> None:
    failure = harness.failure(experiments.fails, how="sys.exit")
    assert (failure.kind, failure.type) == (FailureKind.APPLICATION, "SystemExit")
    assert "4" in failure.message


def test_a_leaf_that_ends_its_process_costs_only_itself(harness: Harness) -> None:
    failure = harness.failure(experiments.fails, how="os._exit")
    assert failure.kind is FailureKind.WORKER_CRASH
    assert "exit code 3" in failure.message
    assert scalars_of(harness.result(experiments.noop, index=1)) == {"value": 1.0}


def test_a_segmentation_fault_says_where(harness: Harness) -> None:
    failure = harness.failure(experiments.fails, how="segfault")
    assert failure.kind is FailureKind.WORKER_CRASH
    assert failure.type == "Segmentation fault"
    assert "SIGSEGV" in failure.message
    assert "in _follow_null_pointer" in failure.traceback
    assert failure.stats.pid > 0
    assert scalars_of(harness.result(experiments.noop, index=1)) == {"value": 1.0}


def test_memory_that_is_not_there(harness: Harness) -> None:
    failure = harness.failure(experiments.fails, how="memory")
    assert (failure.kind, failure.type) == (FailureKind.OUT_OF_MEMORY, "MemoryError")
    assert "in fails" in failure.traceback


@pytest.mark.parametrize(
    ("how", "hint"),
    [("type", "returned dict, not Number"), ("table", "give a table"), ("reserved", "scalars")],
)
def test_an_output_that_cannot_be_stored_says_why(harness: Harness, how: str, hint: str) -> None:
    failure = harness.failure(experiments.fails, how=how)
    assert failure.kind is FailureKind.APPLICATION
    assert hint in failure.message


def test_an_output_file_that_is_missing_is_named(harness: Harness) -> None:
    failure = harness.failure(experiments.writes_file, how="missing")
    assert (failure.kind, failure.type) == (FailureKind.APPLICATION, "OutputError")
    assert "report=" in failure.message
    assert "is not there" in failure.message


def test_an_input_file_that_cannot_be_fetched_is_an_error(
    harness: Harness, store: StoreConfig
) -> None:
    uri = f"s3://{store.bucket}/{store.prefix}/{RUN}/artifacts/weather/nowhere.epw"
    failure = harness.failure(experiments.reads_cached, weather=uri, store=store)
    assert (failure.kind, failure.type) == (FailureKind.APPLICATION, "FetchError")
    assert uri in failure.message


def test_code_that_cannot_be_imported_is_a_matter_of_the_environment(harness: Harness) -> None:
    code = CodeRef("noop", "tests.contract.no_such_module", "noop")
    failure = harness.failure_of(replace(harness.call(experiments.noop), code=code))
    assert failure.kind is FailureKind.ENVIRONMENT
    assert "tests.contract.no_such_module" in failure.message
    assert failure.kind.is_final


def test_a_leaf_that_needs_more_than_there_is_is_refused_at_once(harness: Harness) -> None:
    greedy = harness.call(experiments.noop, resources=LeafResources(cpus=100_000))
    began = time.monotonic()
    with pytest.raises(ExecutorUnavailable) as caught:
        harness.do(harness.executor.run(greedy))
    assert time.monotonic() - began < LATE
    assert caught.value.failure.kind is FailureKind.INFEASIBLE
    assert "100000" in caught.value.failure.message


# --- timeout and cancel --------------------------------------------------------------------------


def test_the_longest_limits_are_none(harness: Harness, store: StoreConfig, tmp_path: Path) -> None:
    seconds = NO_LIMIT.total_seconds()
    single = harness.call(experiments.half_a_second, timeout=seconds)
    batch = harness.batch(store, tmp_path, ["", ""], timeout=seconds)
    for call in (single, batch):
        unlimited = replace(call, schedule_timeout=seconds)
        assert harness.do(harness.executor.run(unlimited))


@pytest.mark.parametrize("how", HANGS)
def test_a_leaf_that_takes_too_long_is_ended_with_all_it_started(
    harness: Harness, tmp_path: Path, how: str
) -> None:
    call = harness.call(experiments.hangs, how=how, folder=str(tmp_path), timeout=0.7)
    began = time.monotonic()
    with pytest.raises(LeafFailed) as caught:
        harness.do(harness.executor.run(call))
    seconds = time.monotonic() - began
    processes = json.loads((tmp_path / "0.json").read_text())
    assert not [name for name, pid in processes.items() if is_alive(pid)]
    assert 0.7 <= seconds < LATE
    assert caught.value.failure.kind is FailureKind.TIMEOUT
    assert "0.7 s" in caught.value.failure.message
    assert "in hangs" in caught.value.failure.traceback


@pytest.mark.parametrize("how", HANGS)
def test_a_cancelled_leaf_is_ended_with_all_it_started(
    harness: Harness, tmp_path: Path, how: str
) -> None:
    call = harness.call(experiments.hangs, how=how, folder=str(tmp_path))

    async def cancel() -> tuple[list[str], float]:
        task = asyncio.ensure_future(harness.executor.run(call))
        processes = await announced(tmp_path)
        assert all(is_alive(pid) for pid in processes.values())
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        alive = [name for name, pid in processes.items() if is_alive(pid)]
        return alive, time.monotonic() - began

    alive, seconds = harness.do(cancel())
    assert alive == []
    assert seconds < LATE


def test_no_slot_is_lost_by_a_timeout_a_cancel_or_a_crash(harness: Harness, tmp_path: Path) -> None:
    def hanging(number: int, timeout: float = 60.0) -> LeafCall:
        return harness.call(
            experiments.hangs, number, how="sleep", folder=str(tmp_path), timeout=timeout
        )

    async def cancelled(numbers: range) -> list[bool]:
        """Run leaves at one time until all have begun, and return whether each was cancelled."""
        tasks = [asyncio.ensure_future(harness.executor.run(hanging(n))) for n in numbers]
        for number in numbers:
            await announced(tmp_path, number)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return [task.cancelled() for task in tasks]

    harness.do(cancelled(range(1)))
    assert harness.failure_of(hanging(1, timeout=0.7)).kind is FailureKind.TIMEOUT
    assert harness.failure(experiments.fails, how="os._exit").kind is FailureKind.WORKER_CRASH
    assert harness.do(cancelled(range(2, 2 + SLOTS))) == [True] * SLOTS


def test_a_leaf_cancelled_while_it_waits_never_runs(harness: Harness, tmp_path: Path) -> None:
    blockers = [
        harness.call(experiments.hangs, number, how="sleep", folder=str(tmp_path))
        for number in range(SLOTS)
    ]
    waiting = harness.call(experiments.once, 99, folder=str(tmp_path))

    async def cancel() -> None:
        running = [asyncio.ensure_future(harness.executor.run(call)) for call in blockers]
        for number in range(SLOTS):
            await announced(tmp_path, number)
        task = asyncio.ensure_future(harness.executor.run(waiting))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await harness.executor.run(harness.call(experiments.noop))

    harness.do(cancel())
    assert not (tmp_path / "99").exists()


def test_a_leaf_whose_process_is_killed_once_is_still_done(
    harness: Harness, tmp_path: Path
) -> None:
    call = harness.call(experiments.survives_one_kill, folder=str(tmp_path))

    async def kill() -> float:
        task = asyncio.ensure_future(harness.executor.run(call))
        os.kill((await announced(tmp_path))["leaf"], signal.SIGKILL)
        return scalars_of(await task)["value"]

    assert harness.do(kill()) == 42.0


def test_what_a_leaf_has_hidden_ends_with_it(harness: Harness, tmp_path: Path) -> None:
    call = harness.call(experiments.hides_a_process, folder=str(tmp_path))
    assert harness.failure_of(call).kind is FailureKind.WORKER_CRASH
    hidden = json.loads((tmp_path / "0.json").read_text())["hidden"]
    if isinstance(harness.executor, LocalExecutor):
        assert not is_alive(hidden)
    elif is_alive(
        hidden
    ):  # on Ray no process of ours is above that of a leaf, to adopt its orphans
        os.kill(hidden, signal.SIGKILL)


# --- batches -------------------------------------------------------------------------------------


def test_a_batch_runs_in_one_process_and_gives_back_tables(
    harness: Harness, store: StoreConfig, tmp_path: Path
) -> None:
    hows = ["", "value", "", "sys.exit", "table", "", ""]
    call = harness.batch(store, tmp_path, hows, tries=2)
    result = harness.do(harness.executor.run(call))
    assert isinstance(result, BatchResult)
    assert (result.n_leaves, result.n_failed) == (7, 2)
    tables = tables_of(result, store)
    assert tables["scalars"].column("value").to_pylist() == [0, 2, 4, 5, 6]
    assert tables["scalars"].column("sort_index").to_pylist() == [0, 2, 4, 5, 6]
    assert tables["errors"].column("type").to_pylist() == ["ValueError", "SystemExit"]
    assert tables["errors"].column("attempts").to_pylist() == [2, 2]
    assert tables["leaves"].column("attempts").to_pylist() == [1, 2, 1, 2, 1, 1, 1]
    assert tables["large"].num_rows == 3_000_000
    ids = tables["leaves"].column("workflow_run_id").to_pylist()
    assert ids == [f"run-{number}" for number in range(7)]
    numbers, pids = zip(*tries_of(tmp_path), strict=True)
    assert numbers == (0, 1, 1, 2, 3, 3, 4, 5, 6)
    assert set(pids) == set(tables["leaves"].column("pid").to_pylist())
    assert len(set(pids)) == 1


@pytest.mark.parametrize(
    ("how", "kind"), [("segfault", FailureKind.WORKER_CRASH), ("hang", FailureKind.TIMEOUT)]
)
def test_a_leaf_of_a_batch_that_ends_its_process_leaves_the_others(
    harness: Harness, store: StoreConfig, tmp_path: Path, how: str, kind: FailureKind
) -> None:
    call = harness.batch(store, tmp_path, ["", "", how, "", ""], timeout=2.0)
    with pytest.raises(LeafFailed) as caught:
        harness.do(harness.executor.run(call))
    assert caught.value.failure.kind is kind
    assert caught.value.journal is not None
    assert count_leaves(caught.value.journal) == 2
    # Who runs the whole batch goes on behind it.
    assert call.batch is not None
    result = harness.do(run_whole_batch(harness.executor, call, call.batch))
    tables = tables_of(result, store)
    assert tables["scalars"].column("value").to_pylist() == [0, 1, 3, 4]
    assert tables["errors"].column("kind").to_pylist() == [kind.value]
    assert tables["leaves"].column("state").to_pylist() == ["done"] * 2 + ["failed"] + ["done"] * 2
    tries = [number for number, _ in tries_of(tmp_path)]
    crashes = 2 if kind is FailureKind.WORKER_CRASH else 1  # it may have been killed from outside
    assert tries == [0, 1, 2, 0, 1, *[2] * crashes, 3, 4]


def test_each_leaf_of_a_batch_has_its_own_time(
    harness: Harness, store: StoreConfig, tmp_path: Path
) -> None:
    call = harness.batch(store, tmp_path, [""] * 5, timeout=60.0)
    slow = replace(call, code=code_ref(experiments.half_a_second), timeout=1.5)
    result = harness.do(harness.executor.run(slow))
    assert isinstance(result, BatchResult)
    assert (result.n_leaves, result.n_failed) == (5, 0)
    assert result.seconds > 2.4


@pytest.mark.parametrize("how", ["", "closes", "redirects", "replaces"])
def test_what_each_leaf_of_a_batch_prints_comes_back(
    harness: Harness, store: StoreConfig, tmp_path: Path, how: str
) -> None:
    call = harness.batch(store, tmp_path, ["", how, "", "", ""])
    printing = replace(call, code=code_ref(experiments.prints_late))
    result = harness.do(harness.executor.run(printing))
    assert isinstance(result, BatchResult)
    assert (result.n_leaves, result.n_failed) == (5, 0)
    each = "Leaf {number}:\nprinted {number}\nby its number\nby a child\n"
    expected = "\n".join(each.format(number=number) for number in range(5))
    assert result.log == expected


def test_a_batch_whose_leaves_leave_much_open_goes_on_in_another_process(
    harness: Harness, store: StoreConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    call = harness.batch(store, tmp_path, [""] * 8)
    call = replace(call, code=code_ref(experiments.leaves_files_open))
    assert call.batch is not None
    tables = tables_of(harness.do(run_whole_batch(harness.executor, call, call.batch)), store)
    assert tables["scalars"].column("value").to_pylist() == list(range(8))
    assert tables["leaves"].column("attempts").to_pylist() == [1] * 8
    assert len(set(tables["leaves"].column("pid").to_pylist())) >= 4
    assert "have left many files open in their process" in caplog.text


def test_a_cancelled_batch_ends_with_all_that_its_leaf_started(
    harness: Harness, store: StoreConfig, tmp_path: Path
) -> None:
    call = harness.batch(store, tmp_path, ["", "hang", ""])

    async def cancel() -> dict[str, int]:
        task = asyncio.ensure_future(harness.executor.run(call))
        processes = await announced(tmp_path, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return processes

    processes = harness.do(cancel(), LATE)
    assert not [name for name, pid in processes.items() if is_alive(pid)]
    assert [number for number, _ in tries_of(tmp_path)] == [0, 1]


def test_what_a_leaf_of_a_batch_leaves_running_ends_before_the_next(
    harness: Harness, store: StoreConfig, tmp_path: Path
) -> None:
    call = harness.batch(store, tmp_path, ["leaves a child", "hang"], timeout=3.0)

    async def look() -> bool:
        task = asyncio.ensure_future(harness.executor.run(call))
        await announced(tmp_path, 1)
        child = (await announced(tmp_path))["child"]
        alive = is_alive(child)
        with pytest.raises(LeafFailed):
            await task
        return alive

    assert not harness.do(look())


def test_a_leaf_that_hangs_after_a_long_step_between_leaves_is_ended(
    harness: Harness, store: StoreConfig, tmp_path: Path
) -> None:
    call = harness.batch(store, tmp_path, ["leaves a stubborn child", "hang"], timeout=1.5)
    with pytest.raises(LeafFailed) as caught:
        harness.do(harness.executor.run(call))
    assert caught.value.failure.kind is FailureKind.TIMEOUT
    assert count_leaves(caught.value.journal or b"") == 1
