"""The type of a column whose leaves returned different types; `docs/tables.md` has the rules."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

_Rule = Callable[[Sequence[Any]], list[Any]]
_UNITS = ("s", "ms", "us", "ns")


def family(kind: Any) -> str:
    """Return the word by which `docs/tables.md` calls a type; an unknown one has its own."""
    import pyarrow as pa

    is_a = pa.types
    checks = {
        "null": is_a.is_null,
        "boolean": is_a.is_boolean,
        "integer": is_a.is_integer,
        "float": is_a.is_floating,
        "decimal": is_a.is_decimal,
        "date": is_a.is_date,
        "timestamp": lambda one: is_a.is_timestamp(one) and one.tz is None,
        "timestamp with zone": is_a.is_timestamp,
        "duration": is_a.is_duration,
        "time": is_a.is_time,
        "text": lambda one: is_a.is_string(one) or is_a.is_large_string(one),
        "bytes": lambda one: is_a.is_binary(one) or is_a.is_large_binary(one),
        "category": is_a.is_dictionary,
        "list": lambda one: is_a.is_list(one) or is_a.is_large_list(one),
        "struct": is_a.is_struct,
        "map": is_a.is_map,
    }
    for word, check in checks.items():
        if check(kind):
            return word
    return str(kind)


def stored_type(kind: Any) -> Any:
    """Return a type as the final tables have it: timestamps with a zone are in UTC."""
    import pyarrow as pa

    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return pa.timestamp(kind.unit, "UTC")
    return map_children(kind, stored_type)


def map_children(kind: Any, change: Any) -> Any:
    """Return a type with `change` applied to the types that it is made of."""
    import pyarrow as pa

    is_a = pa.types
    if is_a.is_list(kind):
        return pa.list_(kind.value_field.with_type(change(kind.value_type)))
    if is_a.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(change(kind.value_type)))
    if is_a.is_fixed_size_list(kind):
        field = kind.value_field.with_type(change(kind.value_type))
        return pa.list_(field, kind.list_size)
    if is_a.is_struct(kind):
        return pa.struct([field.with_type(change(field.type)) for field in kind])
    if is_a.is_map(kind):
        key = kind.key_field.with_type(change(kind.key_type))
        item = kind.item_field.with_type(change(kind.item_type))
        return pa.map_(key, item, keys_sorted=kind.keys_sorted)
    return kind


def common_types(kinds: Collection[Any]) -> list[Any]:
    """Return the types that may hold all values of these types, the best one first.

    Whether one does depends on the values: an integer above 2**53 has no exact float. Where none
    does, the column becomes text.
    """
    import pyarrow as pa

    some = {stored_type(kind) for kind in kinds if not pa.types.is_null(kind)}
    if len(some) < 2:
        return [_unordered(kind) for kind in some] or [pa.null()]
    categories = {kind for kind in some if pa.types.is_dictionary(kind)}
    if categories == some:
        values = common_types({kind.value_type for kind in some})
        return [pa.dictionary(pa.int32(), value) for value in values]
    if categories:
        return common_types({kind.value_type if kind in categories else kind for kind in some})
    families = set(map(family, some))
    if families == {"integer", "float"}:
        return [pa.float64()]
    if len(families) > 1:
        return _lists(some) if all(map(_is_list, some)) else []
    return _of_one_family(families, sorted(some, key=str))


def _unordered(kind: Any) -> Any:
    import pyarrow as pa

    return pa.dictionary(kind.index_type, kind.value_type) if pa.types.is_dictionary(kind) else kind


def text_type(kinds: Collection[Any]) -> Any:
    """Return the text type for columns of these types."""
    import pyarrow as pa

    return pa.large_string() if pa.large_string() in kinds else pa.string()


def _of_one_family(families: Collection[str], kinds: Sequence[Any]) -> list[Any]:
    (name,) = families
    return _RULES[name](kinds) if name in _RULES else []


def _integers(kinds: Sequence[Any]) -> list[Any]:
    import pyarrow as pa

    is_signed = pa.types.is_signed_integer
    signed = max((kind.bit_width for kind in kinds if is_signed(kind)), default=0)
    unsigned = max((kind.bit_width for kind in kinds if not is_signed(kind)), default=0)
    if not signed or not unsigned:
        return [max(kinds, key=lambda kind: kind.bit_width)]
    if unsigned == 64:
        return [pa.int64(), pa.uint64(), pa.decimal128(20, 0)]
    widest = max(signed, 2 * unsigned)
    return [{16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[widest]]


def _floats(kinds: Sequence[Any]) -> list[Any]:
    return [max(kinds, key=lambda kind: kind.bit_width)]


def _decimals(kinds: Sequence[Any]) -> list[Any]:
    import pyarrow as pa

    scale = max(kind.scale for kind in kinds)
    return [pa.decimal128(38, scale)]  # polars reads no more digits


def _times(kinds: Sequence[Any]) -> list[Any]:
    import pyarrow as pa

    unit = _finest(kinds)
    return [pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)]


def _one(name: str, *args: Any) -> _Rule:
    def rule(_: Sequence[Any]) -> list[Any]:
        import pyarrow as pa

        return [getattr(pa, name)(*args)]

    return rule


def _unit(name: str, *args: Any) -> _Rule:
    def rule(kinds: Sequence[Any]) -> list[Any]:
        import pyarrow as pa

        return [getattr(pa, name)(_finest(kinds), *args)]

    return rule


def _finest(kinds: Sequence[Any]) -> str:
    return max((kind.unit for kind in kinds), key=_UNITS.index)


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return family(kind) == "list" or pa.types.is_fixed_size_list(kind)


def _lists(kinds: Collection[Any]) -> list[Any]:
    import pyarrow as pa

    make = pa.large_list if any(map(pa.types.is_large_list, kinds)) else pa.list_
    return [make(value) for value in common_types({kind.value_type for kind in kinds})]


def _structs(kinds: Sequence[Any]) -> list[Any]:
    import pyarrow as pa

    held: dict[str, set[Any]] = {}
    for kind in kinds:
        names = [field.name for field in kind]
        if len(set(names)) < len(names):
            return []
        for field in kind:
            held.setdefault(field.name, set()).add(field.type)
    found = {name: common_types(types) for name, types in held.items()}
    if not all(found.values()):
        return []
    first = pa.struct([(name, types[0]) for name, types in found.items()])
    last = pa.struct([(name, types[-1]) for name, types in found.items()])
    return [first] if first == last else [first, last]


_RULES: dict[str, _Rule] = {
    "integer": _integers,
    "float": _floats,
    "decimal": _decimals,
    "date": _one("date32"),
    "timestamp": _unit("timestamp"),
    "timestamp with zone": _unit("timestamp", "UTC"),
    "duration": _unit("duration"),
    "time": _times,
    "text": _one("large_string"),
    "bytes": _one("large_binary"),
    "list": _lists,
    "struct": _structs,
}
