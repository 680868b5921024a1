"""Packs: several tables as one sequence of bytes, the result of a batch.

A pack is a sequence of Arrow IPC streams, each with the name of its table in its schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from scythe.tables.arrow import WINDOW, ipc_options, open_ipc, windows

if TYPE_CHECKING:
    import pyarrow as pa

_NAME = b"scythe.table"


def write_pack(tables: Mapping[str, pa.Table]) -> bytes:
    """Write tables as one pack."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    for name, table in tables.items():
        schema = table.schema.with_metadata({**(table.schema.metadata or {}), _NAME: name.encode()})
        with pa.ipc.new_stream(sink, schema, options=ipc_options(schema)) as writer:
            whole = table.combine_chunks()  # else each leaf's rows are a message of their own
            writer.write_table(whole.replace_schema_metadata(schema.metadata), WINDOW)
    return sink.getvalue().to_pybytes()


def pack_tables(data: bytes | Path) -> Iterator[tuple[str, pa.Table]]:
    """Yield the tables of a pack, in memory or in a file, some rows at a time, with their names."""
    import pyarrow as pa

    with pa.BufferReader(data) if isinstance(data, bytes) else pa.OSFile(str(data)) as source:
        while source.tell() < source.size():
            reader = open_ipc(source)
            metadata = dict(reader.schema.metadata or {})
            name = metadata.pop(_NAME).decode()
            for table in windows(reader):
                yield name, table.replace_schema_metadata(metadata or None)


def read_pack(data: bytes) -> Iterator[tuple[str, pa.Table]]:
    """Yield the tables of a pack, each with its name."""
    import pyarrow as pa

    tables: dict[str, list[pa.Table]] = {}
    for name, table in pack_tables(data):
        tables.setdefault(name, []).append(table)
    for name, parts in tables.items():
        yield name, pa.concat_tables(parts)
