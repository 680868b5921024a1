"""Runs in the bucket, found by id, by experiment or by prefix, also without their code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from scythe.errors import RunNotFoundError
from scythe.experiments import BaseExperiment, DatetimeFormat, ExperimentRun, VersionedExperiment
from scythe.runnable import AbsentExperiment
from scythe.runs.explain import DEFAULT_PREFIX
from scythe.semver import SemVer, as_version
from scythe.settings import ScytheStorageSettings, default_storage_settings, store_config
from scythe.storage.layout import RunLayout, check_path
from scythe.storage.manifest import from_yaml
from scythe.storage.store import Store, open_store

_LATEST = "@latest"
_DEPTH = 8  # steps of a run's id at most; deeper the bucket is not searched
_ASKERS = 16

Run = ExperimentRun[Any, Any]


def short_id(run_id: str) -> str:
    """Return the id of a run without the prefix of experiments that were given no name."""
    return run_id.removeprefix(DEFAULT_PREFIX)


def list_runs(
    experiment: str | None = None, *, prefix: str | None = None, tags: Iterable[str] = ()
) -> list[Run]:
    """Return the runs in the bucket, the latest first.

    Args:
        experiment: A folder or an experiment's name, without `scythe_experiment_` if you like;
            by default all.
        prefix: The bucket's prefix, in place of `SCYTHE_STORAGE_BUCKET_PREFIX`.
        tags: Only runs that were allocated with all of these.
    """
    catalog = _Catalog(prefix)
    found = catalog.runs(experiment)
    wanted = {*tags}
    if not wanted:
        return found
    manifests = catalog.manifests(found)
    return [
        run
        for run, fields in zip(found, manifests, strict=True)
        if wanted <= {*(fields.get("tags") or ())}
    ]


def open_run(run: str = _LATEST, *, prefix: str | None = None) -> Run:
    """Return a run in the bucket. The code of its experiment need not be imported.

    Args:
        run: Its id, `EXPERIMENT` for the latest run, `EXPERIMENT@v1.2.0` for the latest of a
            version, or `@latest` for the latest of all.
        prefix: The bucket's prefix, in place of `SCYTHE_STORAGE_BUCKET_PREFIX`.

    Raises:
        RunNotFoundError: There is none; the message has names that are close.
    """
    return _Catalog(prefix).find(run)


def users_of(run: Run) -> list[str]:
    """Return the ids of the runs whose tables refer to files of this run."""
    catalog = _Catalog(run.storage_settings.BUCKET_PREFIX)
    others = [one for one in catalog.runs() if one.experiment_id != run.experiment_id]
    return [
        one.experiment_id
        for one, fields in zip(others, catalog.manifests(others), strict=True)
        if run.experiment_id in (fields.get("sources") or ())
    ]


@dataclass(frozen=True, slots=True)
class RunName:
    """A run as the user calls it."""

    folder: str = ""
    version: SemVer | None = None
    timestamp: datetime | None = None


def parse_name(text: str, given: str = "") -> RunName:
    """Read what a user calls a run.

    Args:
        text: The name, without the URI of the bucket.
        given: What the user typed, for the messages; by default the name.

    Raises:
        RunNotFoundError: What follows '@' is neither a version nor 'latest'.
        SpecError: It is no plain path.
    """
    given = given or text
    if text.endswith(_LATEST):
        return RunName(text.removesuffix(_LATEST))
    folder, at, version = text.rpartition("@")
    if at:
        try:
            number = as_version(version)
        except ValueError:
            raise RunNotFoundError(
                f"{given!r} does not name a run: after '@' comes a version such as v1.2.0, or "
                f"'latest'. Did you mean '{folder}{_LATEST}'?"
            ) from None
        if not folder:
            raise RunNotFoundError(
                f"{given!r} does not name a run: before '@' comes the name of an experiment. "
                f"{_LATEST!r} is the latest run of all."
            )
        check_path("RUN", folder)
        return RunName(folder, number)
    check_path("RUN", text)
    head, _, last = text.rpartition("/")
    timestamp, number = _timestamp(last), _version(head.rpartition("/")[2])
    if timestamp and number:
        return RunName(head.rpartition("/")[0], number, timestamp)
    number = _version(last)
    return RunName(head, number) if number and head else RunName(text)


class _Catalog:
    """The runs below one prefix of the bucket."""

    def __init__(self, prefix: str | None) -> None:
        self._settings = default_storage_settings()
        if prefix is not None:
            self._settings = ScytheStorageSettings(
                BUCKET=self._settings.BUCKET, BUCKET_PREFIX=prefix
            )
        self.store: Store = open_store(store_config(self._settings))
        self.store.check()  # within seconds: somebody waits for the answer

    def runs(self, experiment: str | None = None) -> list[Run]:
        """Return the runs of one experiment, or all, the latest first."""
        folders = [""] if experiment is None else _folders_of(experiment)
        found = {run.experiment_id: run for folder in folders for run in self._walk(folder)}
        return sorted(found.values(), key=_age, reverse=True)

    def manifests(self, runs: Sequence[Run]) -> list[dict[str, Any]]:
        """Return the fields of the manifest of each run; none where it has no manifest."""

        def read(run: Run) -> dict[str, Any]:
            data = self.store.find_bytes(run.layout.manifest)
            return from_yaml(data) if data else {}

        with ThreadPoolExecutor(_ASKERS, "scythe-catalog") as threads:
            return list(threads.map(read, runs))

    def find(self, given: str) -> Run:
        """Return the run that the user calls so."""
        text = given.strip().removeprefix(f"{self.store.uri(self._key(''))}/").strip("/")
        name = parse_name(text, given)
        if name.timestamp is not None and name.version is not None:
            for folder in _folders_of(name.folder):
                run = self._run(folder, name.version, name.timestamp)
                if next(self.store.list_keys(run.layout.prefix), None) is not None:
                    return run
            raise self._not_found(given, name)
        for folder in _folders_of(name.folder) if name.folder else [""]:
            for run in sorted(self._walk(folder), key=_age, reverse=True):
                fits = name.version is None or run.versioned_experiment.version == name.version
                # What has no manifest was not started: the run before it is meant.
                if fits and self.store.find_bytes(run.layout.manifest) is not None:
                    return run
        raise self._not_found(given, name)

    def _key(self, folder: str) -> str:
        prefix = self._settings.BUCKET_PREFIX
        return RunLayout.below_prefix(prefix, folder) if folder else prefix.strip("/")

    def _walk(self, folder: str) -> Iterator[Run]:
        """Yield the runs below a folder, in no order."""
        level = [folder]
        with ThreadPoolExecutor(_ASKERS, "scythe-catalog") as threads:
            while level:
                below: list[str] = []
                for path, names in zip(level, threads.map(self._names, level), strict=True):
                    parent, _, version = path.rpartition("/")
                    number = _version(version) if parent else None
                    if number is None:
                        below += [f"{path}/{name}".lstrip("/") for name in names]
                        continue
                    times = [time for name in names if (time := _timestamp(name))]
                    yield from (self._run(parent, number, time) for time in times)
                level = [path for path in below if path.count("/") < _DEPTH]

    def _names(self, folder: str) -> list[str]:
        key = self._key(folder)
        names = self.store.list_folders(f"{key}/" if key else "")
        return [name for name in names if name and not name.startswith(".")]

    def _run(self, folder: str, version: SemVer, timestamp: datetime) -> Run:
        base: BaseExperiment[Any, Any] = BaseExperiment(
            runnable=AbsentExperiment(folder), run_name=folder, storage_settings=self._settings
        )
        versioned = VersionedExperiment(base_experiment=base, version=version)
        return ExperimentRun(versioned_experiment=versioned, timestamp=timestamp)

    def _not_found(self, given: str, name: RunName) -> RunNotFoundError:
        where = self.store.uri(self._key(""))
        known = self.runs()
        if not known:
            return RunNotFoundError(
                f"No run {given!r}: there are no runs in {where}. Allocate one, or check "
                "SCYTHE_STORAGE_BUCKET and SCYTHE_STORAGE_BUCKET_PREFIX."
            )
        own = [run for run in known if _folder(run) in _folders_of(name.folder)]
        near = [run.experiment_id for run in own[:3]]
        if not near:
            names = sorted({short_id(_folder(run)) for run in known})
            near = get_close_matches(short_id(name.folder), names, n=3, cutoff=0.5)
        hint = " or ".join(repr(one) for one in near)
        hint = f"Did you mean {hint}? " if near else ""
        return RunNotFoundError(f"No run {given!r} in {where}. {hint}`scythe runs` lists all.")


def _folders_of(experiment: str) -> list[str]:
    """Return the folders that an experiment's name, which may be a short one, can mean."""
    name = experiment.strip("/")
    check_path("experiment", name)
    return [name] if name.startswith(DEFAULT_PREFIX) else [name, f"{DEFAULT_PREFIX}{name}"]


def _folder(run: Run) -> str:
    return run.versioned_experiment.base_experiment.base_id


def _age(run: Run) -> tuple[datetime, SemVer, str]:
    return run.timestamp, run.versioned_experiment.version, run.experiment_id


def _version(text: str) -> SemVer | None:
    try:
        version = SemVer.FromString(text)
    except ValueError:
        return None
    return version if str(version) == text else None


def _timestamp(text: str) -> datetime | None:
    try:
        found = datetime.strptime(text, DatetimeFormat)
    except ValueError:
        return None
    return found if found.strftime(DatetimeFormat) == text else None
