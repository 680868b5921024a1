"""Several tables in one piece: what a batch of leaves gives back.

A pack is a sequence of Arrow IPC streams, each with the name of its table in its schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

_NAME = b"scythe.table"


def write_pack(tables: Mapping[str, pa.Table]) -> bytes:
    """Write tables as one pack."""
    import pyarrow as pa

    options = pa.ipc.IpcWriteOptions(compression="lz4")
    sink = pa.BufferOutputStream()
    for name, table in tables.items():
        schema = table.schema.with_metadata({**(table.schema.metadata or {}), _NAME: name.encode()})
        with pa.ipc.new_stream(sink, schema, options=options) as writer:
            writer.write_table(table.replace_schema_metadata(schema.metadata))
    return sink.getvalue().to_pybytes()


def read_pack(data: bytes | pa.Buffer) -> Iterator[tuple[str, pa.Table]]:
    """Yield the tables of a pack, each with its name."""
    import pyarrow as pa

    source = pa.BufferReader(data)
    while source.tell() < source.size():
        with pa.ipc.open_stream(source) as reader:
            table = reader.read_all()
        metadata = dict(table.schema.metadata or {})
        name = metadata.pop(_NAME).decode()
        yield name, table.replace_schema_metadata(metadata or None)
