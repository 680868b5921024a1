"""Several tables in one piece: what a batch of leaves gives back.

A pack is a sequence of Arrow IPC streams, each with the name of its table in its schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from scythe.tables.arrow import ipc_options, open_ipc

if TYPE_CHECKING:
    import pyarrow as pa

_NAME = b"scythe.table"
_ROWS = 65_536  # that are read at one time


def write_pack(tables: Mapping[str, pa.Table]) -> bytes:
    """Write tables as one pack."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    for name, table in tables.items():
        schema = table.schema.with_metadata({**(table.schema.metadata or {}), _NAME: name.encode()})
        with pa.ipc.new_stream(sink, schema, options=ipc_options(schema)) as writer:
            writer.write_table(table.replace_schema_metadata(schema.metadata), _ROWS)
    return sink.getvalue().to_pybytes()


def pack_tables(data: bytes | pa.Buffer) -> Iterator[tuple[str, pa.Table]]:
    """Yield the tables of a pack, some rows at a time, each with its name."""
    import pyarrow as pa

    source = pa.BufferReader(data)
    while source.tell() < source.size():
        with open_ipc(source) as reader:
            metadata = dict(reader.schema.metadata or {})
            name = metadata.pop(_NAME).decode()
            has_rows = False
            for batch in reader:
                has_rows = True
                yield name, pa.Table.from_batches([batch]).replace_schema_metadata(metadata or None)
            if not has_rows:
                empty = reader.schema.empty_table()
                yield name, empty.replace_schema_metadata(metadata or None)


def read_pack(data: bytes | pa.Buffer) -> Iterator[tuple[str, pa.Table]]:
    """Yield the tables of a pack, each with its name."""
    import pyarrow as pa

    tables: dict[str, list[pa.Table]] = {}
    for name, table in pack_tables(data):
        tables.setdefault(name, []).append(table)
    for name, parts in tables.items():
        yield name, pa.concat_tables(parts)
