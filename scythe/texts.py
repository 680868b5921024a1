"""Text that anything can carry: the engine's database, Arrow, a terminal."""

from __future__ import annotations

import re

STEP = re.compile(r"(?!\.{1,2}\Z)[^/\x00-\x1f]+")  # of a path below a folder


def printable(text: str) -> str:
    """Return the text with what UTF-8 cannot hold (half a surrogate pair) written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def is_plain_path(path: str) -> bool:
    """Return whether a path stays below the folder that it is appended to, and is written plainly.

    It is not if it is empty or absolute, or has empty, `.` or `..` steps or control characters.
    """
    return all(STEP.fullmatch(step) for step in path.split("/"))
