"""Tables of results: put together, stored, and written as plain dicts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scythe.storage.files import S3Url, join_s3_uri

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "make_onerow_multiindex_from_dict",
    "save_and_upload_parquets",
    "serialize_df_dict",
    "transpose_dataframe_dict",
]


def serialize_df_dict(dfs: Mapping[str, pd.DataFrame]) -> dict[str, dict[Any, Any]]:
    """Return each table as a dict, in the form that pandas calls `tight`."""
    return {name: frame.to_dict(orient="tight") for name, frame in dfs.items()}


def transpose_dataframe_dict(
    dataframe_results: Sequence[Mapping[str, Any]],
) -> dict[str, pd.DataFrame]:
    """Put the tables of several results together, by name; rows stay in the order given."""
    import pandas as pd

    names = dict.fromkeys(name for tables in dataframe_results for name in tables)
    return {
        name: pd.concat([tables[name] for tables in dataframe_results if name in tables], axis=0)
        for name in names
    }


def make_onerow_multiindex_from_dict(d: Mapping[str, Any], n_rows: int = 1) -> pd.MultiIndex:
    """Make an index with one level for each key, the same in all rows.

    Args:
        d: The value of each level.
        n_rows: The number of rows.
    """
    import pandas as pd

    return pd.MultiIndex.from_tuples([tuple(d.values())] * n_rows, names=list(d))


def save_and_upload_parquets(
    collected_dfs: Mapping[str, pd.DataFrame],
    s3: Any,
    bucket: str,
    output_key_constructor: Callable[[str], str],
    save_errors: bool = False,
) -> dict[str, S3Url]:
    """Upload tables as Parquet files, and return their URIs by name.

    Args:
        collected_dfs: The tables by name.
        s3: A boto3 client.
        bucket: The bucket.
        output_key_constructor: Makes the key of a table from its name.
        save_errors: Whether tables are uploaded that have `error` in their name.
    """
    uris: dict[str, S3Url] = {}
    with tempfile.TemporaryDirectory(prefix="scythe-tables-") as folder:
        for name, frame in collected_dfs.items():
            if "error" in name.lower() and not save_errors:
                continue
            file, key = Path(folder) / f"{len(uris)}.parquet", output_key_constructor(name)
            frame.to_parquet(file)
            s3.upload_file(Bucket=bucket, Key=key, Filename=str(file))
            uris[name] = S3Url(join_s3_uri(bucket, key))
    return uris
