"""Text that anything can carry: the engine's database, Arrow, a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return the text with what UTF-8 cannot hold (half a surrogate pair) written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode()
