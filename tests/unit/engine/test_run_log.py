"""From what a leaf printed to messages that the engine takes."""

from __future__ import annotations

import pytest

from scythe.engine.run_log import RunLog, messages_of


def test_a_few_lines_are_messages_of_their_own() -> None:
    assert messages_of("one\n\n  two\nthree") == ["one", "  two", "three"]


def test_many_lines_travel_together_in_order() -> None:
    lines = [f"line {number}" for number in range(5000)]
    messages = messages_of("\n".join(lines))
    assert "\n".join(messages).splitlines() == lines
    assert len(messages) < 10
    assert max(map(len, messages)) <= 8000


def test_a_very_long_line_is_cut() -> None:
    messages = messages_of("x" * 20_000)
    assert [len(message) for message in messages] == [8000, 8000, 4000]


def test_what_is_too_much_for_the_engine_is_left_out_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log, sent = RunLog(per_second=0.001, burst=3), list[str]()
    log.send("", sent.append)
    log.send("a\nb", sent.append)
    log.send("c\nd", sent.append)
    log.send("e\nf", sent.append)
    log.send("g", sent.append)
    assert sent == ["a", "b", "g"]
    assert caplog.text.count("Leaves print more than 0.001 messages per second") == 1
