"""Bytes over a stream."""

from __future__ import annotations

import io

import pytest

from scythe.processes.frames import framed, read_frame


@pytest.mark.parametrize("sent", [[b""], [b"one", b"", b"two" * 100_000]])
def test_what_is_sent_is_read(sent: list[bytes]) -> None:
    stream = io.BytesIO(b"".join(map(framed, sent)))
    assert [read_frame(stream) for _ in sent] == sent
    assert read_frame(stream) is None


@pytest.mark.parametrize("left", [1, 7, 8, 9, 10])
def test_a_stream_that_ends_too_early_gives_nothing(left: int) -> None:
    assert read_frame(io.BytesIO(framed(b"one")[:left])) is None
