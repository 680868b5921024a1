"""Semantic versions of experiments."""

from __future__ import annotations

from functools import total_ordering
from typing import Any, Literal

from pydantic import BaseModel, Field

VersioningStrategy = Literal["bumpmajor", "bumpminor", "bumppatch", "keep"]


@total_ordering
class SemVer(BaseModel):
    """A version, written as `v1.2.3`."""

    major: int = Field(..., ge=0)
    minor: int = Field(default=0, ge=0)
    patch: int = Field(default=0, ge=0)

    @classmethod
    def FromString(cls, version: str) -> SemVer:
        """Parse `v1.2.3`, `v1.2`, `v1` or `v1-2-3`.

        Raises:
            ValueError: It is not a version.
        """
        text = version.removeprefix("v")
        parts = text.split("." if "." in text else "-")
        if not version.startswith("v") or len(parts) > 3 or not all(p.isdecimal() for p in parts):
            msg = f"{version!r} is not a version: write it as 'v1.2.3' (it must start with 'v')"
            raise ValueError(msg)
        numbers = [int(part) for part in parts] + [0, 0]
        return cls(major=numbers[0], minor=numbers[1], patch=numbers[2])

    @property
    def numbers(self) -> tuple[int, int, int]:
        """The three numbers, by which versions are ordered."""
        return self.major, self.minor, self.patch

    def __lt__(self, other: SemVer) -> bool:
        return self.numbers < other.numbers

    def __hash__(self) -> int:
        return hash(self.numbers)

    def __str__(self) -> str:
        return f"v{self.major}.{self.minor}.{self.patch}"

    def bumped(self, strategy: VersioningStrategy) -> SemVer:
        """Return the version that a strategy leads to from this one."""
        bumps = {
            "bumpmajor": self.next_major_version,
            "bumpminor": self.next_minor_version,
            "bumppatch": self.next_patch_version,
        }
        return bumps[strategy]() if strategy in bumps else self

    def next_major_version(self) -> SemVer:
        """Return the next major version."""
        return SemVer(major=self.major + 1)

    def next_minor_version(self) -> SemVer:
        """Return the next minor version."""
        return SemVer(major=self.major, minor=self.minor + 1)

    def next_patch_version(self) -> SemVer:
        """Return the next patch version."""
        return SemVer(major=self.major, minor=self.minor, patch=self.patch + 1)


def as_version(given: Any) -> SemVer:
    """Return a version that may be given as text, with or without the `v`.

    Raises:
        ValueError: It is no version.
    """
    if isinstance(given, SemVer):
        return given
    try:
        return SemVer.FromString(f"v{given.removeprefix('v')}")
    except (ValueError, AttributeError):
        msg = (
            f"version={given!r} is unknown: use 'bumpmajor', 'bumpminor', 'bumppatch', 'keep', or "
            "a version such as '1.2.0'"
        )
        raise ValueError(msg) from None
