"""The columns of tables that are combined, each with all its types.

Between leaf and final table, a column with several types is stored as one Arrow column per type,
its variants. Only the final table has one type for it, so the result does not depend on the order
in which leaves, batches and scatter nodes are combined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from scythe.tables.casts import cast, merge_variants
from scythe.tables.pandas_index import (
    Role,
    free_name,
    index_names,
    roles,
    shared_note,
    with_pandas_index,
)
from scythe.tables.rules import stored_type

if TYPE_CHECKING:
    import pyarrow as pa

CATEGORIES = b"scythe.categories"  # of an ordered category: a digest of them
_TAGS = (CATEGORIES, b"ARROW:extension:name", b"ARROW:extension:metadata")
_VARIANT_OF = b"scythe.variant_of"  # the name of the column that a variant belongs to


class Kind(NamedTuple):
    """Key that distinguishes the variants of a column.

    Attributes:
        type: The Arrow type.
        tags: What the field says of its values beside that: a digest of categories whose order
            matters, an extension type that Arrow does not know.
    """

    type: Any
    tags: tuple[tuple[bytes, bytes], ...] = ()


class Columns:
    """The columns of several tables by role, each with its types."""

    def __init__(self) -> None:
        self.schemas: list[pa.Schema] = []
        self.kinds: dict[Role, list[Kind]] = {}
        self._numbers: dict[bytes, int] = {}
        self._last = -1

    def add(self, schema: pa.Schema) -> int:
        """Add the columns of a table; return the number of its schema in `schemas`."""
        if self._last >= 0 and schema.equals(self.schemas[self._last], check_metadata=True):
            return self._last
        key = schema.serialize().to_pybytes()
        self._last = self._numbers.setdefault(key, len(self.schemas))
        if self._last == len(self.schemas):
            self.schemas.append(schema)
            for role, fields in variants(schema).items():
                known = self.kinds.setdefault(role, [])
                known += [kind for kind in map(kind_of, fields) if kind not in known]
        return self._last

    @property
    def mixed(self) -> dict[Role, list[Kind]]:
        """The columns that have several types."""
        several = {role: _without_null(kinds) for role, kinds in self.kinds.items() if kinds[1:]}
        return {role: kinds for role, kinds in several.items() if kinds[1:]}

    def schema(self, types: Mapping[Role, Kind], *, final: bool) -> pa.Schema:
        """Return a schema for all tables.

        Args:
            types: The columns that get one type of several.
            final: Whether the other columns get the type of the final table.
        """
        chosen = {role: [kind] for role, kind in types.items()}
        if final:
            single = {role: _without_null(kinds)[0] for role, kinds in self.kinds.items()}
            stored = {r: [kind._replace(type=stored_type(kind.type))] for r, kind in single.items()}
            chosen = {**stored, **chosen}
        if len(self.schemas) == 1 and all(self.kinds[role] == k for role, k in chosen.items()):
            return self.schemas[0]
        return self._made(
            {role: _without_null(kinds) for role, kinds in self.kinds.items()} | chosen
        )

    def _made(self, kinds: Mapping[Role, Sequence[Kind]]) -> pa.Schema:
        import pyarrow as pa

        data = [name for kind, name, _ in self.kinds if kind == "data"]
        taken = set(data)
        unnamed = {own for one in self.schemas for own, name in index_names(one) if name is None}
        index: list[tuple[str, str | None]] = []
        fields: list[pa.Field] = []
        for role in sorted(self.kinds, key=lambda role: role[0] == "data"):
            column = role[1]
            if role[0] == "level":
                column = free_name(role[1], taken)
                taken.add(column)
                index.append((column, None if role[1] in unnamed else role[1]))
            main, *others = kinds[role]
            fields.append(variant_field(column, main))
            for number, kind in enumerate(others, 1):
                variant = free_name(f"{column}#{number}", taken)
                taken.add(variant)
                fields.append(variant_field(variant, kind, of=column))
        made = pa.schema(fields)
        made = made.with_metadata(shared_note(self.schemas, made))
        return with_pandas_index(made.empty_table(), index).schema if index else made


class Conform:
    """Converts tables of one schema to another one, made by `Columns`.

    Args:
        schema: The schema of the tables.
        wanted: The schema that they get.
    """

    def __init__(self, schema: pa.Schema, wanted: pa.Schema) -> None:
        self._wanted = wanted
        self._is_same = schema.equals(wanted, check_metadata=True)
        self._columns: list[tuple[Any, list[int]]] = []
        if self._is_same:
            return
        own = variants(schema)
        places = {name: number for number, name in enumerate(schema.names)}
        targets = variants(wanted)
        role_of = {one.name: role for role, fields in targets.items() for one in fields}
        for target in wanted:
            role = role_of[target.name]
            sources = own.get(role, [])
            if len(targets[role]) > 1:
                sources = [one for one in sources if kind_of(one) == kind_of(target)]
            self._columns.append((target.type, [places[one.name] for one in sources]))

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the table with the other schema."""
        import pyarrow as pa

        if self._is_same:
            return table
        arrays: list[Any] = []
        for kind, sources in self._columns:
            found = [cast(table.column(number), kind) for number in sources]
            if not found:
                arrays.append(pa.nulls(table.num_rows, kind))
            else:
                arrays.append(found[0] if len(found) == 1 else merge_variants(found))
        return pa.table(arrays, schema=self._wanted)


def variants(schema: pa.Schema) -> dict[Role, list[pa.Field]]:
    """Return the columns of a table by role, each with its variants."""
    names = roles(schema)
    main = {name: role for role, name in names.items()}
    found: dict[Role, list[pa.Field]] = {}
    for one in schema:
        of = (one.metadata or {}).get(_VARIANT_OF)
        role = main[one.name if of is None else of.decode()]
        found.setdefault(role, []).append(one)
    return {role: found[role] for role in names if role in found}


def _without_null(kinds: list[Kind]) -> list[Kind]:
    """Drop the type of columns without a value, where there is another."""
    import pyarrow as pa

    return [kind for kind in kinds if not pa.types.is_null(kind.type)] or kinds


def kind_of(one: pa.Field) -> Kind:
    """Return the key that distinguishes a variant from others."""
    metadata = one.metadata
    if not metadata:
        return Kind(one.type)
    return Kind(one.type, tuple((tag, metadata[tag]) for tag in _TAGS if tag in metadata))


def variant_field(name: str, kind: Kind, of: str | None = None) -> pa.Field:
    """Return the field of a column, or of a further type of the column `of`."""
    import pyarrow as pa

    metadata = dict(kind.tags)
    if of is not None:
        metadata[_VARIANT_OF] = of.encode()
    return pa.field(name, kind.type, metadata=metadata or None)
