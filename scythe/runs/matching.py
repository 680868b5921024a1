"""Find the leaves of a finished run that have the inputs and the code of leaves of a new one."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scythe.errors import FetchError, StorageError
from scythe.experiment import Experiment
from scythe.runs.reuse import FinishedRun, Reuse
from scythe.specs.file import SPEC_COLUMN
from scythe.storage.file_values import fields_of_files, has_files
from scythe.storage.files import split_s3_uri
from scythe.storage.layout import RunLayout
from scythe.storage.store import Store, open_bucket

logger = logging.getLogger(__name__)

_ASKERS = 16
_ID = r'(?:null|"(?:[^"\\]|\\.)*")'
# The fields with which every spec begins, that say of which run it is.
_OF_RUN = (
    rf'^(tagged:)?\{{"experiment_id": ?{_ID}, ?"sort_index": ?\d+, ?"workflow_run_id": ?{_ID}, '
    rf'?"root_workflow_run_id": ?{_ID}, ?"storage_settings": ?(?:null|\{{[^{{}}]*\}})'
)
_URI = re.compile(r'"((?:s3|https?|file)://(?:[^"\\]|\\.)*)"')
_UNKNOWN = '"\x00"'  # in no spec


@dataclass(frozen=True, slots=True)
class NewLeaves:
    """The leaves of a run that is prepared.

    Attributes:
        specs: A file with their specs.
        runnable: What they run.
        fingerprint: That of its code; empty where it is not known.
        digests: The SHA-256 of each input file that the run uploads, by its URI.
    """

    specs: Path
    runnable: Any
    fingerprint: str
    digests: Mapping[str, str]

    @property
    def obstacle(self) -> str:
        """The reason why none of them can be taken from another run, or nothing."""
        if not isinstance(self.runnable, Experiment):
            return "it is a Hatchet task, whose code is not known"
        if not self.runnable.options.reusable:
            return "it was registered with reusable=False"
        return "" if self.fingerprint else "its code cannot be identified"


def reuse_leaves(store: Store, source: RunLayout, new: NewLeaves, folder: Path) -> Reuse | None:
    """Take over from a finished run what it has of the leaves of a new one.

    Args:
        store: The bucket.
        source: The finished run.
        new: The leaves of the new run.
        folder: Where files are kept meanwhile.

    Returns:
        None if there is nothing to take over.
    """
    if new.obstacle:
        logger.warning("%s runs all leaves anew: %s.", new.runnable.name, new.obstacle)
        return None
    own = folder / "source"
    own.mkdir()
    finished = FinishedRun(store, source, own)
    cls = new.runnable.input_validator_type
    inputs = InputIdentity(store, finished, new.digests) if has_files(cls) else None
    rows = match_leaves(finished, new.specs, new.fingerprint, inputs)
    n_taken = int((rows >= 0).sum())
    logger.info("%d leaves are taken over from %s", n_taken, source.experiment_id)
    return finished.give(rows, new.specs, fields_of_files(cls)) if n_taken else None


class InputIdentity:
    """Tells whether an input file is the one that a finished run has had.

    Args:
        store: The bucket.
        source: The finished run.
        digests: The SHA-256 of each file that the new run uploads, by its URI.
    """

    def __init__(self, store: Store, source: FinishedRun, digests: Mapping[str, str]) -> None:
        self._store = store
        self._known: dict[str, str] = {**_stored_digests(store, source), **digests}
        self._source_time = store.modified(source.layout.specs) or 0.0

    def learn(self, texts: Iterable[str]) -> None:
        """Find out which of the files that specs name were not changed since."""
        found = {uri for text in texts for uri in _URI.findall(text)} - self._known.keys()
        uris = [uri for uri in found if uri.startswith("s3://")]
        with ThreadPoolExecutor(_ASKERS, "scythe-inputs") as threads:
            same = threads.map(self._is_unchanged, uris)
            self._known |= {uri: uri for uri, is_same in zip(uris, same, strict=True) if is_same}

    def replace(self, text: str) -> str:
        """Return a spec with what identifies each file in place of its URI."""
        return _URI.sub(lambda found: self._known.get(found[1], _UNKNOWN), text)

    def _is_unchanged(self, uri: str) -> bool:
        """Return whether an object in S3 is older than the specs of the finished run."""
        try:
            bucket, key = split_s3_uri(uri)
            modified = open_bucket(bucket, self._store.config).modified(key)
        except (StorageError, FetchError, ValueError):
            return False
        return modified is not None and modified < self._source_time


def match_leaves(
    source: FinishedRun, specs: Path, fingerprint: str, inputs: InputIdentity | None
) -> Any:
    """Return the row in the specs of a new run that each leaf of a finished one becomes.

    A leaf that failed, or ran other code, is not taken. Of equal specs, each is taken once.

    Args:
        source: The finished run.
        specs: The specs of the new run.
        fingerprint: That of its code.
        inputs: Tells which input files are the same; None for specs without any.

    Returns:
        An array with -1 for a leaf that is not taken.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    call: Any = pc.call_function
    _, firsts, counts = np.unique(source.numbers, return_index=True, return_counts=True)
    is_single = np.zeros(len(source.numbers), bool)
    is_single[firsts[counts == 1]] = True  # leaves that share a number have no distinct rows
    has_code = call("equal", [source.leaves.column("code"), fingerprint]).fill_null(False)
    leaves = np.flatnonzero(source.is_done & has_code.to_numpy() & is_single)
    old = _keys(source.specs, inputs).take(leaves)
    new = _keys(specs, inputs)
    is_unknown = call("match_substring", [new], pc.MatchSubstringOptions(_UNKNOWN))
    new = call("if_else", [is_unknown, pa.scalar(None, new.type), new])
    rows = np.full(len(source.numbers), -1)
    taken, places = pairs_of(old.unique(), old, new)
    rows[leaves[taken]] = places
    return rows


def pairs_of(values: Any, old: Any, new: Any) -> tuple[Any, Any]:
    """Pair equal texts, the first with the first, the second with the second and so on.

    Args:
        values: The texts that count; each once.
        old: Texts.
        new: Other texts.

    Returns:
        The places of the texts of each pair.
    """
    import numpy as np
    import pyarrow.compute as pc

    options = pc.SetLookupOptions(values)
    codes = [
        pc.call_function("index_in", [texts], options).fill_null(-1).to_numpy()
        for texts in (old, new)
    ]
    places = [np.flatnonzero(numbers >= 0) for numbers in codes]
    count = max(len(old), len(new), 1)
    keys = [
        numbers[own].astype(np.int64) * count + _occurrence(numbers[own])
        for numbers, own in zip(codes, places, strict=True)
    ]
    _, first, second = np.intersect1d(*keys, assume_unique=True, return_indices=True)
    return places[0][first], places[1][second]


def _occurrence(numbers: Any) -> Any:
    """Return for each number how many equal ones are before it."""
    import numpy as np

    order = np.argsort(numbers, kind="stable")
    _, starts, counts = np.unique(numbers[order], return_index=True, return_counts=True)
    found = np.empty(len(numbers), np.int64)
    found[order] = np.arange(len(numbers)) - np.repeat(starts, counts)
    return found


def run_free_texts(texts: Any, folder: str) -> Any:
    """Return specs as text without what says of which run they are.

    Args:
        texts: The specs.
        folder: The URI of the run's input files; empty to keep the URIs.
    """
    import pyarrow.compute as pc

    options = pc.ReplaceSubstringOptions(_OF_RUN, r"\1{", max_replacements=1)
    found = pc.call_function("replace_substring_regex", [texts], options)
    shorter = pc.ReplaceSubstringOptions(f'"{folder}', '"')
    return pc.call_function("replace_substring", [found], shorter) if folder else found


def _keys(specs: Path, inputs: InputIdentity | None) -> Any:
    """Return what each spec is, whatever run it is of, as text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    keys = run_free_texts(pq.read_table(specs, columns=[SPEC_COLUMN]).column(0), "")
    if inputs is None:
        return keys
    plain = keys.to_pylist()
    inputs.learn(plain)
    return pa.chunked_array([pa.array(map(inputs.replace, plain), pa.large_string())])


def _stored_digests(store: Store, source: FinishedRun) -> dict[str, str]:
    """Return the digests of the files that a run has uploaded, or the run that it repeats."""
    known: dict[str, str] = {}
    for name in [source.layout.experiment_id, *source.manifest.sources]:
        layout = RunLayout(source.layout.bucket_prefix, name)
        known |= json.loads(store.find_bytes(layout.input_digests) or b"{}")
    return known
