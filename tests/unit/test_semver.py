"""Versions."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from scythe.semver import SemVer


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("v1.2.3", (1, 2, 3)),
        ("v1.2", (1, 2, 0)),
        ("v7", (7, 0, 0)),
        ("v1-2-3", (1, 2, 3)),
        ("v0.0.10", (0, 0, 10)),
    ],
)
def test_parsing(text: str, numbers: tuple[int, int, int]) -> None:
    assert SemVer.FromString(text).numbers == numbers


@pytest.mark.parametrize(
    "text", ["", "v", "1.2.3", "v1.2.3.4", "v1.x", "v1..2", "vv1", "v-1", "v1.2.3-rc1", "V1", "v1 "]
)
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a version: write it as 'v1.2.3'"):
        SemVer.FromString(text)


def test_order_is_by_number() -> None:
    texts = ["v10.0.0", "v1.10.0", "v1.2.10", "v1.2.9", "v2.0.0"]
    ordered = sorted(SemVer.FromString(text) for text in texts)
    assert [str(version) for version in ordered] == [
        "v1.2.9",
        "v1.2.10",
        "v1.10.0",
        "v2.0.0",
        "v10.0.0",
    ]
    assert SemVer(major=1) == SemVer.FromString("v1")
    assert SemVer(major=1) <= SemVer(major=1) < SemVer(major=1, patch=1)
    assert SemVer(major=2) > SemVer(major=1, minor=9) >= SemVer(major=1)
    assert len({SemVer(major=1), SemVer(major=1), SemVer(major=2)}) == 2


def test_next_versions() -> None:
    version = SemVer(major=1, minor=2, patch=3)
    assert str(version.next_major_version()) == "v2.0.0"
    assert str(version.next_minor_version()) == "v1.3.0"
    assert str(version.next_patch_version()) == "v1.2.4"
    bumped = [str(version.bumped(s)) for s in ("bumpmajor", "bumpminor", "bumppatch", "keep")]
    assert bumped == ["v2.0.0", "v1.3.0", "v1.2.4", "v1.2.3"]


def test_numbers_are_not_negative() -> None:
    with pytest.raises(ValidationError):
        SemVer(major=-1)
