"""Tables of results: put together, stored, and written as plain dicts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from scythe.storage.files import S3Url, join_s3_uri

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "make_onerow_multiindex_from_dict",
    "save_and_upload_parquets",
    "serialize_df_dict",
    "sift_results",
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
            file = Path(folder) / f"{len(uris)}.parquet"
            key = output_key_constructor(name)
            frame.to_parquet(file)
            s3.upload_file(Bucket=bucket, Key=key, Filename=str(file))
            uris[name] = S3Url(join_s3_uri(bucket, key))
    return uris


def sift_results(
    spec_data: Sequence[BaseModel],
    results: Sequence[Any],
    make_error_specs: bool = False,
) -> tuple[list[Any], pd.DataFrame | None]:
    """Divide the results of `run_many(..., return_exceptions=True)` by whether they are errors.

    Args:
        spec_data: The specs, in the order of the results.
        results: The results; exceptions where a run failed.
        make_error_specs: Whether to make a table of the errors.

    Returns:
        The results that are none, and the table of errors: None where there are none.
    """
    good = [result for result in results if not isinstance(result, BaseException)]
    pairs = zip(spec_data, results, strict=True)
    bad = [(spec, error) for spec, error in pairs if isinstance(error, BaseException)]
    if not (bad and make_error_specs):
        return good, None
    import pandas as pd

    rows = [spec.model_dump(mode="json", exclude={"storage_settings"}) for spec, _ in bad]
    scalars = [{k: v for k, v in row.items() if not isinstance(v, dict | list)} for row in rows]
    index = pd.MultiIndex.from_frame(pd.DataFrame(scalars))
    messages = [str(error) for _, error in bad]
    return good, pd.DataFrame({"missing": False, "msg": messages}, index=index)
