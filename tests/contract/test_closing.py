"""An executor that is closed leaves nothing, in a module of its own: no test can follow."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from scythe.errors import ExecutorUnavailable
from tests.contract import experiments
from tests.contract.conftest import Harness, announced, is_alive, own_children


def test_nothing_is_left_when_it_is_closed_with_a_leaf_running(
    harness: Harness, tmp_path: Path
) -> None:
    call = harness.call(experiments.hangs, how="sleep", folder=str(tmp_path))

    async def close() -> dict[str, int]:
        task = asyncio.ensure_future(harness.executor.run(call))
        processes = await announced(tmp_path)
        await harness.executor.aclose()
        with pytest.raises(ExecutorUnavailable):
            await task
        return processes

    harness.result(experiments.noop)
    processes = harness.do(close())
    assert not [name for name, pid in processes.items() if is_alive(pid)]
    assert not own_children(harness.others)
    assert list(harness.temporary.iterdir()) == []
    harness.close()
    with pytest.raises(ExecutorUnavailable):
        harness.do(harness.executor.run(harness.call(experiments.noop)))
