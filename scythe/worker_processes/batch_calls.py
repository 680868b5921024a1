"""Runs a batch, resuming in a new process after a crash."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from scythe.errors import ExecutorError
from scythe.executor import Executor, LeafCancelled
from scythe.leaf.batch import leaf_run_id
from scythe.leaf.journal import count_leaves, read_lines, with_failure
from scythe.messages import encode_cut_batch
from scythe.outcomes import Batch, BatchResult, FailureKind, LeafCall, LeafFailure, LeafReply

_LEAST_CRASHES = 2  # a process that was killed from outside looks like a crash
_MOST_STORE_CRASHES = 3  # crashes of processes in which all leaves had ended
logger = logging.getLogger("scythe.leaf")


async def run_whole_batch(executor: Executor, call: LeafCall, batch: Batch) -> LeafReply:
    """Run a batch, resuming in a new process after a crash.

    The results of the leaves before the crash are kept. The leaf that ran is retried alone or has
    failed, and the leaves after it run in another process.

    Raises:
        ExecutorError: The executor failed, or no leaf of the batch can run.
        LeafCancelled: The awaiting task was cancelled. The error has the leaves that had ended.
    """
    crashes = 0
    while True:
        try:
            reply = await executor.run(replace(call, batch=batch))
            if not isinstance(reply, BatchResult) or reply.journal is None:
                return reply
            if reply.left:
                logger.warning(
                    "Leaves of %s have left %s in their process. The results before leaf %s are "
                    "kept; the batch continues in another process.",
                    call.leaf_id,
                    reply.left,
                    batch.rows[0] + reply.n_leaves,
                )
            batch = replace(batch, journal=reply.journal, attempt=1, closely=reply.closely)
        except asyncio.CancelledError as error:
            left = error.journal if isinstance(error, LeafCancelled) else None
            raise LeafCancelled(left or batch.journal) from None
        except ExecutorError as error:
            failure = error.failure
            journal = error.journal
            if journal is None or failure.kind.is_final:
                raise
            over = count_leaves(journal)
            if over < batch.n_leaves:
                batch = _go_on(call, batch, journal, failure)
                logger.warning(
                    "Leaf %s of %s: %s. The results before it are kept; the batch continues.",
                    batch.rows[0] + over,
                    call.leaf_id,
                    failure.summary,
                )
                continue
            crashes += 1
            if crashes >= _MOST_STORE_CRASHES:
                raise
            batch = replace(batch, journal=journal)


def _go_on(call: LeafCall, batch: Batch, journal: bytes, failure: LeafFailure) -> Batch:
    """Return the rest of a batch after its running leaf has ended the process."""
    over = count_leaves(journal)
    attempt = batch.attempt if over == count_leaves(batch.journal) else 1
    most = batch.tries
    if failure.kind is FailureKind.WORKER_CRASH:
        most = max(most, _LEAST_CRASHES)
    if attempt < most:
        return replace(batch, journal=journal, attempt=attempt + 1)
    run_id = leaf_run_id(call, batch.rows[0] + over)
    return replace(batch, journal=with_failure(journal, failure, attempt, run_id), attempt=1)


def cut_batch(journal: bytes) -> bytes:
    """Encode the known outcomes of a cancelled batch, for the process that finishes the run."""
    children, records = read_lines(journal)
    return encode_cut_batch([(child.key, child.n_leaves) for child in children], records)
