"""One leaf never harms another: those after it do not notice what it does to its process.

The damages by which leaves were lost that had nothing to do with them are done one by one: by a
single leaf, and by one of a batch, followed by healthy leaves, and by as many as another run has.
All others are done side by side, among healthy leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scythe.errors import ExecutorError
from scythe.outcomes import FailureKind, StoreConfig
from scythe.worker_processes.batch_calls import run_whole_batch
from tests.contract.conftest import Harness, tables_of
from tests.contract.damages import DAMAGES, damages

HEALTHY = 40
LONG = 600.0  # seconds in which all of it is done on a machine that has much else to do
WORST = list(DAMAGES)[:5]
OTHERS = list(DAMAGES)[5:]
OWN = {FailureKind.APPLICATION, FailureKind.WORKER_CRASH, FailureKind.OUT_OF_MEMORY}


async def singles(harness: Harness, hows: Sequence[str]) -> dict[str, str]:
    """Run leaves at one time, and return the failures, by what the leaf did to its process."""
    calls = [harness.call(damages, number, how=how) for number, how in enumerate(hows)]
    found = await asyncio.gather(*map(harness.executor.run, calls), return_exceptions=True)
    failures: dict[str, str] = {}
    for how, one in zip(hows, found, strict=True):
        if isinstance(one, BaseException):
            failures[how] = one.failure.summary if isinstance(one, ExecutorError) else repr(one)
    return failures


async def batches(
    harness: Harness, store: StoreConfig, folder: Path, parts: Sequence[Sequence[str]]
) -> dict[str, str]:
    """Run batches at one time, as `singles`; see that each leaf has ended once."""
    calls = [harness.batch(store, folder, hows, experiment=damages) for hows in parts]
    replies = await asyncio.gather(
        *(run_whole_batch(harness.executor, call, call.batch) for call in calls if call.batch)
    )
    failures: dict[str, str] = {}
    for hows, reply in zip(parts, replies, strict=True):
        tables = tables_of(reply, store)
        ended = tables["leaves"].column("sort_index").to_pylist()
        assert ended == list(range(len(hows)))
        errors: list[dict[str, Any]] = tables["errors"].to_pylist() if "errors" in tables else []
        for one in errors:
            text = f"{one['kind']}: {one['message']} {one['traceback'][-400:]}"
            failures[hows[one["sort_index"]]] = text
    return failures


def check(failures: dict[str, str]) -> None:
    """Check that no healthy leaf has failed, and that the others failed by their own fault."""
    assert "" not in failures, failures[""]
    wrong = {how: text for how, text in failures.items() if text.partition(":")[0] not in OWN}
    assert wrong == {}


@pytest.mark.parametrize("how", WORST)
def test_a_leaf_that_damages_its_process_costs_no_other(
    harness: Harness, store: StoreConfig, tmp_path: Path, how: str
) -> None:
    run = [how, *[""] * (HEALTHY - 1)]
    check(harness.do(singles(harness, run), LONG))
    check(harness.do(singles(harness, [""] * HEALTHY), LONG))
    check(harness.do(batches(harness, store, tmp_path, [run]), LONG))
    check(harness.do(batches(harness, store, tmp_path, [[""] * HEALTHY]), LONG))


@pytest.mark.timeout(900)  # forty damages cost a process each, of which Ray takes 1 to 2 s
def test_no_damage_there_is_costs_another_leaf(
    harness: Harness, store: StoreConfig, tmp_path: Path
) -> None:
    mixed = [how for damage in OTHERS for how in (damage, "", "")]
    check(harness.do(singles(harness, mixed), LONG))
    check(harness.do(singles(harness, [""] * HEALTHY), LONG))
    half = len(OTHERS) // 2 * 3
    check(harness.do(batches(harness, store, tmp_path, [mixed[:half], mixed[half:]]), LONG))
    check(harness.do(batches(harness, store, tmp_path, [[""] * HEALTHY]), LONG))
