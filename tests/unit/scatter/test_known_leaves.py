"""Known outcomes of leaves after the root died, including leaves that were given back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from scythe.engine.run_tasks import TaskEnd
from scythe.messages import CANCELLED, LeafRecord, encode_failure, encode_result, hand_back
from scythe.outcomes import FailureKind, LeafFailure, LeafResult, LeafStats
from scythe.scatter.known_leaves import KnownLeaves
from scythe.scatter.leaf_outcomes import encode_ends
from scythe.scatter.tree import Rows
from scythe.storage.layout import RunLayout

MISMATCH = encode_failure(LeafFailure(FailureKind.CODE_MISMATCH, "CodeMismatchError", "no"), 1, "r")
FAILED = encode_failure(LeafFailure(FailureKind.APPLICATION, "ValueError", "no"), 1, "r")
DONE = encode_result(LeafResult("{}", {}, {}, LeafStats()), 1, "r")


class Recorded(KnownLeaves):
    """Keeps the outcomes instead of their tables."""

    def __init__(self, folder: Path, node_ends: bytes = b"") -> None:
        layout = RunLayout("p", "e")
        objects = {layout.node_end("0"): node_ends}
        store = SimpleNamespace(
            list_keys=lambda prefix: [key for key in objects if key.startswith(prefix)],
            find_bytes=objects.get,
        )
        run: Any = SimpleNamespace(count=lambda: 3, store=store, layout=layout)
        super().__init__(run, folder)
        self.outcomes: list[tuple[int, str]] = []

    def _add_records(
        self, rows: Sequence[int], records: Sequence[LeafRecord], queued: float
    ) -> None:
        del queued
        kinds = [getattr(one.outcome, "kind", "done") for one in records]
        self.outcomes += zip(rows, kinds, strict=True)
        self._note(rows)


def end(row: int, output: Any) -> TaskEnd:
    state = "FAILED" if isinstance(output, str) else "COMPLETED"
    return TaskEnd("w", (row, row + 1), state, output, 1.0, True, 2.0)


def test_a_leaf_that_was_given_back_and_started_again_ends_once(tmp_path: Path) -> None:
    for order in ([MISMATCH, DONE], [DONE, MISMATCH]):
        leaves = Recorded(tmp_path)
        leaves.add_ends([end(0, output) for output in order])
        leaves.add_ends([end(1, MISMATCH)])
        leaves.add_rest(LeafRecord(CANCELLED, 0, None))
        expected = [(0, "done"), (1, FailureKind.CODE_MISMATCH), (2, FailureKind.CANCELLED)]
        assert sorted(leaves.outcomes) == expected


def test_a_leaf_that_a_paused_run_handed_back_has_no_outcome(tmp_path: Path) -> None:
    leaves = Recorded(tmp_path)
    leaves.add_ends([end(0, hand_back()), end(1, hand_back()), end(1, DONE)])
    leaves.add_rest(LeafRecord(CANCELLED, 0, None))
    expected = [(0, FailureKind.CANCELLED), (1, "done"), (2, FailureKind.CANCELLED)]
    assert sorted(leaves.outcomes) == expected


def test_what_a_cut_node_knew_counts_where_the_engine_shows_it_as_cancelled(
    tmp_path: Path,
) -> None:
    ends: dict[Rows, Any] = {
        Rows(0, 1): DONE,
        Rows(1, 2): RuntimeError(FAILED),
        Rows(2, 3): {},  # cancelled with the node
    }
    leaves = Recorded(tmp_path, encode_ends(ends, queued=1.0))
    leaves.add_node_ends()
    leaves.add_node_ends()
    assert leaves.n_known == 2
    leaves.add_rest(LeafRecord(CANCELLED, 0, None))
    expected = [(0, "done"), (1, FailureKind.APPLICATION), (2, FailureKind.CANCELLED)]
    assert sorted(leaves.outcomes) == expected
