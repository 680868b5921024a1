"""Compares the input fields of a run with those of a worker's model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

# Fields of every input, which may differ between versions of Scythe.
_OF_SCYTHE = frozenset(
    {"experiment_id", "sort_index", "workflow_run_id", "root_workflow_run_id", "storage_settings"}
)
_CHOICES = ("anyOf", "oneOf", "allOf")


def input_fields(schema: Mapping[str, Any]) -> dict[str, str]:
    """Return the type of each field of an input model, including nested models.

    Titles, descriptions, defaults and limits of values are left out; a spec that violates a limit
    fails by itself.

    Args:
        schema: The result of `scythe.storage.manifest.io_schema`.
    """
    found: dict[str, set[str]] = {}
    properties = schema.get("properties")
    given = properties.get("input", {}) if isinstance(properties, Mapping) else {}
    for path, kind in _fields(given, "", schema, ()):
        if path and re.split(r"[.[{]", path)[0] not in _OF_SCYTHE:
            found.setdefault(path, set()).add(kind)
    return {path: " or ".join(sorted(kinds)) for path, kinds in sorted(found.items())}


def fields_digest(fields: Mapping[str, str]) -> str:
    """Return 16 hexadecimal digits that identify the fields."""
    return hashlib.sha256(repr(sorted(fields.items())).encode()).hexdigest()[:16]


def describe_differences(of_run: Mapping[str, str], of_worker: Mapping[str, str]) -> str:
    """Return the differences between a run's and a worker's input fields as text, or nothing."""
    said: list[str] = []
    if missing := sorted(of_run.keys() - of_worker.keys()):
        said.append(f"only the run has {', '.join(missing)}")
    if added := sorted(of_worker.keys() - of_run.keys()):
        said.append(f"only the worker has {', '.join(added)}")
    said += [
        f"{name} is {of_run[name]} in the run and {of_worker[name]} in the worker"
        for name in sorted(of_run.keys() & of_worker.keys())
        if of_run[name] != of_worker[name]
    ]
    return "; ".join(said)


def _fields(
    node: Any, path: str, schema: Mapping[str, Any], inside: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    if not isinstance(node, Mapping):
        return
    reference = node.get("$ref")
    if isinstance(reference, str):
        if reference in inside:
            yield path, "itself"
            return
        defined = schema.get("$defs", {}).get(reference.rpartition("/")[2], {})
        yield from _fields(defined, path, schema, (*inside, reference))
        return
    choices = [one for name in _CHOICES for one in node.get(name, ())]
    for choice in choices:
        yield from _fields(choice, path, schema, inside)
    if not choices:
        yield path, _kind(node)
    for name, field in node.get("properties", {}).items():
        yield from _fields(field, f"{path}.{name}" if path else name, schema, inside)
    for item in (node.get("items"), *node.get("prefixItems", ())):
        yield from _fields(item, f"{path}[]", schema, inside)
    yield from _fields(node.get("additionalProperties"), f"{path}{{}}", schema, inside)


def _kind(node: Mapping[str, Any]) -> str:
    kind = str(
        node.get("type") or ("a choice" if "enum" in node or "const" in node else "anything")
    )
    return f"{kind} ({node['format']})" if "format" in node else kind
