"""Which process may run a leaf with GPUs, and what leaves without see of them."""

from __future__ import annotations

import os

import pytest

from scythe.outcomes import BatchResult, FailureKind, LeafFailure, LeafResult, LeafStats
from scythe_ray.on_node.gpus import ProcessGpus, gpus_hidden

GOOD = LeafResult(scalars="{}", files={}, tables={}, stats=LeafStats("node", 1))
FAILED = LeafFailure(FailureKind.APPLICATION, "ValueError", "no")


def batch(n_failed: int) -> BatchResult:
    return BatchResult(packs=(), n_leaves=3, n_failed=n_failed, seconds=1.0)


@pytest.fixture(autouse=True)
def shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.delenv("HIP_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("ROCR_VISIBLE_DEVICES", raising=False)


def test_the_same_gpus_again(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = ProcessGpus()
    assert gpus.suit()
    gpus.used_by(GOOD)
    gpus.used_by(batch(n_failed=0))
    assert gpus.suit()
    for variable in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "1")
            assert not gpus.suit()
    assert gpus.suit()


@pytest.mark.parametrize("outcome", [FAILED, batch(n_failed=1)], ids=["leaf", "batch"])
def test_a_failure_may_have_spoiled_them(outcome: LeafFailure | BatchResult) -> None:
    gpus = ProcessGpus()
    gpus.used_by(outcome)
    assert not gpus.suit()
    gpus.used_by(GOOD)
    assert not gpus.suit()


def test_a_leaf_that_asked_for_none_sees_none() -> None:
    with gpus_hidden():
        seen = {name: value for name, value in os.environ.items() if "VISIBLE_DEVICES" in name}
    assert seen == dict.fromkeys(
        ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"), ""
    )
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert "HIP_VISIBLE_DEVICES" not in os.environ
