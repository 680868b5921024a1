"""Sends the output of leaves to the logs of their Hatchet runs, within the engine's limits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_MESSAGE_CHARS = 8_000  # the engine's limit is 10,000
_SINGLE_LINES = 20  # up to this many lines are sent as one message each
_PER_SECOND = 100.0  # messages; each one is a request to the engine and a row in its database
_BURST = 500.0  # messages; the SDK queues at most 1,000
_SAY_AGAIN = 60.0
logger = logging.getLogger("scythe.worker")


class RunLog:
    """Sends logs in order, and drops whole logs above the engine's limits.

    Args:
        per_second: Messages per second in the long run.
        burst: Messages at once.
    """

    def __init__(self, per_second: float = _PER_SECOND, burst: float = _BURST) -> None:
        self._per_second = per_second
        self._burst = burst
        self._room = burst
        self._at = time.monotonic()
        self._said = float("-inf")

    def send(self, text: str, write: Callable[[str], object]) -> None:
        """Send the log of one attempt of a leaf, or drop it as a whole.

        Args:
            text: The output of the leaf; usually empty.
            write: Sends one message; does not block.
        """
        if not text:
            return
        messages = messages_of(text)
        now = time.monotonic()
        self._room = min(self._burst, self._room + (now - self._at) * self._per_second)
        self._at = now
        if self._room < len(messages):
            self._say(now)
            return
        self._room -= len(messages)
        for message in messages:
            write(message)

    def _say(self, now: float) -> None:
        if now >= self._said + _SAY_AGAIN:
            self._said = now
            logger.warning(
                "Leaves print more than %g messages per second; not sending the logs of some to "
                "Hatchet.",
                self._per_second,
            )


def messages_of(text: str) -> list[str]:
    """Cut a log into messages within the engine's limit, at the ends of lines if possible."""
    lines = [line for line in text.splitlines() if line.strip()]
    together = len(lines) > _SINGLE_LINES
    messages: list[str] = []
    for line in lines:
        for start in range(0, len(line), _MESSAGE_CHARS):
            piece = line[start : start + _MESSAGE_CHARS]
            if together and messages and len(messages[-1]) + len(piece) < _MESSAGE_CHARS:
                messages[-1] += f"\n{piece}"
            else:
                messages.append(piece)
    return messages
