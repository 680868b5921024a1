"""A bucket in memory, for what needs no more than single objects."""

from __future__ import annotations


class MemoryStore:
    """Objects by key."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def find_bytes(self, key: str) -> bytes | None:
        return self.objects.get(key)

    def put_bytes(self, key: str, data: bytes) -> None:
        self.objects[key] = data

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def with_patience(self, _: float) -> MemoryStore:
        return self
