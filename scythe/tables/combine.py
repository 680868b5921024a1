"""Combines tables with different columns without loss, and chooses the final types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scythe.tables.casts import fits
from scythe.tables.columns import Columns, Conform, Kind, kind_of, variants
from scythe.tables.names import ORDER, SORT_INDEX
from scythe.tables.pandas_index import Role
from scythe.tables.rules import common_types, family, stored_type, text_type

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_VARIANTS = 16  # a column with more types gets one before the end
_MAX_WARNINGS = 20  # of one table

# Yields the tables, each with the number of its schema; it is given the columns that are looked at,
# for each schema.
Scan = Callable[[Sequence[Sequence[str]]], "Iterable[tuple[int, pa.Table]]"]


@dataclass(frozen=True, slots=True)
class TextColumn:
    """A column that became text.

    Attributes:
        name: The column.
        leaves: For two of its types, a leaf that has it.
    """

    name: str
    leaves: Sequence[tuple[Any, int | None]]


@dataclass(slots=True)
class Resolution:
    """The schema of a final table, and the columns that became text in it."""

    schema: pa.Schema
    texts: list[TextColumn] = field(default_factory=list[TextColumn])

    def warnings(self, table: str) -> list[str]:
        """Return a sentence for each column that became text."""
        found = [_warning(table, one) for one in self.texts[:_MAX_WARNINGS]]
        more = len(self.texts) - len(found)
        if more:
            found.append(f"Table {table!r}: {more} more columns became text.")
        return found


def resolve(
    columns: Columns,
    scan: Scan,
    *,
    final: bool,
) -> Resolution:
    """Choose one type for each column with several types.

    Args:
        columns: The columns.
        scan: Yields the tables.
        final: Whether all columns get one type, or only those with too many.
    """
    least = 1 if final else _MAX_VARIANTS
    choices = {
        role: _Choice(role, kinds) for role, kinds in columns.mixed.items() if len(kinds) > least
    }
    if choices:
        _each(columns, scan, choices, _Choice.find_kinds)
        _each(columns, scan, choices, _Choice.check_values)
    texts = [choice.text for choice in choices.values() if choice.is_fallback]
    chosen = {role: choice.kind for role, choice in choices.items()}
    return Resolution(columns.schema(chosen, final=final), texts)


class _Choice:
    """The choice of a type for one column."""

    def __init__(self, role: Role, kinds: Sequence[Kind]) -> None:
        self._role = role
        self._all = kinds
        self._leaves: dict[Kind, int | None] = {}  # of those that have a value
        self._fitting: list[Kind] | None = None

    def find_kinds(self, one: pa.Field, table: pa.Table) -> None:
        """Record the types that have values."""
        array = table.column(one.name)
        kind = kind_of(one)
        if kind not in self._leaves and array.null_count < len(array):
            self._leaves[kind] = _leaf(table, array)

    def check_values(self, one: pa.Field, table: pa.Table) -> None:
        """Drop the types that cannot hold the values of a table."""
        array = table.column(one.name)
        self._fitting = [kind for kind in self._types if fits(array, kind.type)]

    @property
    def kind(self) -> Kind:
        """The type that holds all values."""
        return self._types[0] if self._types else Kind(text_type(self._given))

    @property
    def is_fallback(self) -> bool:
        """Whether values of other types became text."""
        return not self._types and any(family(kind.type) != "text" for kind in self._leaves)

    @property
    def text(self) -> TextColumn:
        """The column, with two of its types."""
        found = [(kind.type, leaf) for kind, leaf in self._leaves.items()]
        return TextColumn(self._role[1], found[:2])

    @property
    def _given(self) -> list[Any]:
        return [kind.type for kind in self._leaves or self._all]

    @property
    def _types(self) -> list[Kind]:
        if self._fitting is not None:
            return self._fitting
        if len(self._leaves) == 1:
            return [kind._replace(type=stored_type(kind.type)) for kind in self._leaves]
        return [Kind(kind) for kind in common_types(self._given)]


def _each(
    columns: Columns,
    scan: Scan,
    choices: Mapping[Role, _Choice],
    look: Callable[[_Choice, pa.Field, pa.Table], None],
) -> None:
    """Pass to each choice the columns that it is about."""
    wanted: list[Sequence[str]] = []
    found: list[list[tuple[_Choice, pa.Field]]] = []
    for schema in columns.schemas:
        own = variants(schema)
        pairs = [(choice, one) for role, choice in choices.items() for one in own.get(role, [])]
        found.append(pairs)
        labels = [name for name in (SORT_INDEX, ORDER) if name in schema.names]
        wanted.append(list(dict.fromkeys([*(one.name for _, one in pairs), *labels])))
    for number, table in scan(wanted):
        for choice, one in found[number]:
            look(choice, one, table)


def concat(tables: Iterable[pa.Table], *, final: bool = False) -> pa.Table:
    """Concatenate tables in memory.

    Args:
        tables: The tables.
        final: Whether each column gets one type; else it may have variants.
    """
    import pyarrow as pa

    given = list(tables)
    columns = Columns()
    numbers = [columns.add(table.schema) for table in given]

    def scan(wanted: Sequence[Sequence[str]]) -> Iterator[tuple[int, pa.Table]]:
        for number, table in zip(numbers, given, strict=True):
            yield number, table.select(wanted[number])

    resolution = resolve(columns, scan, final=final)
    conforms = [Conform(schema, resolution.schema) for schema in columns.schemas]
    parts = [conforms[number](table) for number, table in zip(numbers, given, strict=True)]
    return pa.concat_tables(parts)


def _leaf(table: pa.Table, array: Any) -> int | None:
    """Return the leaf of the first value of an array."""
    names = [name for name in (SORT_INDEX, ORDER) if name in table.column_names]
    if not names:
        return None
    row = array.is_valid().index(True).as_py()
    return table.column(names[0])[row].as_py()


def _warning(table: str, column: TextColumn) -> str:
    said = " and ".join(f"{_word(kind)} in leaf {leaf}" for kind, leaf in column.leaves)
    return f"Column {column.name!r} of table {table!r} became text: it is {said}."


def _word(kind: Any) -> str:
    import pyarrow as pa

    return str(kind.to_pandas_dtype() if isinstance(kind, pa.BaseExtensionType) else kind)
