"""The tree of errors that Scythe raises.

    ScytheError
    ├── SettingsError             a setting or an environment variable is missing or wrong
    │   ├── SettingsExit          a worker's setting is wrong; ends a script with one line
    │   └── NoBucketError         no bucket is named and no local stack runs
    ├── StackError                a service of the local stack did not start, or died
    ├── EngineError               Hatchet cannot be reached, or refuses the token
    ├── StorageError              the bucket cannot be reached, read or written
    ├── FetchError                an input file cannot be fetched
    ├── SpecError                 a spec cannot be run as it is (names its index and field)
    │   ├── NothingToRetryError   a run has no leaves of those that are to run again
    │   ├── DuplicateInputArtifactsError      kept for scythe-engine; never raised
    │   ├── ExperimentSpecsMismatchError
    │   ├── ExperimentIndexNotSerializableError
    │   ├── ExperimentIndexAdditionalDataDoesNotMatchNRowsError
    │   └── ExperimentIndexAdditionalDataOverlapsWithSpecError
    ├── RegistrationError         a function cannot be registered as an experiment
    │   ├── ExperimentTypeExists
    │   └── ExperimentTypeNotFound
    ├── BaseNotFoundError         something was looked up in the bucket and is not there
    │   ├── ExperimentNotFoundError
    │   ├── ExperimentVersionNotFoundError
    │   ├── ExperimentRunNotFoundError
    │   ├── RunNotFoundError      no run fits what the user called it
    │   └── ResultNotFoundError
    ├── OutputError               the return value of the user's function cannot be stored
    │   ├── ScalarInDataframesError
    │   └── ResultFileRefsInDataframesError
    ├── MismatchError             a worker's code differs from that of the run
    │   ├── CodeMismatchError
    │   └── SchemaMismatchError
    ├── WorkerStartError          a worker cannot start; the message says what to do
    │   ├── PlaceAwayError        the executor's cluster is unreachable for now
    │   └── WorkerExit            a worker did not start, or gave up; ends a script with one line
    ├── ExecutorError
    │   ├── LeafFailed            the user's code failed
    │   └── ExecutorUnavailable   the executor failed, not the user's code
    ├── MissingLibraryError       an optional library is not installed
    ├── RunGoesOnError            a run is not over, and is not deleted or run again
    ├── RunFailedError            a run has failed leaves, and the caller wants none
    └── RunTimeoutError           a run did not end within the caller's timeout

Each message says what is wrong, why, and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scythe.outcomes import LeafFailure


class ScytheError(Exception):
    """The root of all errors that Scythe raises."""


class SettingsError(ScytheError, ValueError):
    """A setting or an environment variable is missing or wrong."""


class SettingsExit(SettingsError, SystemExit):  # noqa: N818 - it is one of Python's exits
    """A setting of a worker is wrong; ends a script with one line, as `WorkerExit` does."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = f"scythe: {message}"


class StackError(ScytheError):
    """A service of the local stack did not start, or died."""


class EngineError(ScytheError):
    """Hatchet cannot be reached, or refuses a request."""


class StorageError(ScytheError):
    """The bucket cannot be reached, read or written."""


class NoBucketError(SettingsError, StorageError):
    """No bucket is named and no local stack runs."""


class FetchError(ScytheError):
    """An input file cannot be fetched."""


class SpecError(ScytheError, ValueError):
    """A spec cannot be run as it is."""


class NothingToRetryError(SpecError):
    """A run has no leaves of those that are to run again.

    Attributes:
        run_id: The `experiment_id` of the run.
        n_failed: Number of leaves that failed by their own code, which were not asked for.
        n_missing: Number of leaves without a result for another reason, which were not asked for.
    """

    def __init__(self, run_id: str, n_failed: int, n_missing: int) -> None:
        self.run_id = run_id
        self.n_failed = n_failed
        self.n_missing = n_missing
        super().__init__(self.text("failed=True", "missing=True"))

    def text(self, failed: str, missing: str) -> str:
        """Return the message.

        Args:
            failed: What asks for the failed leaves: an argument, or the option of a command.
            missing: What asks for the missing leaves.
        """
        start = f"Nothing to retry in {self.run_id}:"
        if not self.n_failed and not self.n_missing:
            return f"{start} no leaf failed."
        of_code = f"{self.n_failed or 'no'} leaves failed by their own code"
        others = f"{self.n_missing or 'no'} leaves were cancelled or lost their place"
        of_code += f" (run them again with {failed})" if self.n_failed else ""
        others += f" (they count as failed; run them with {missing})" if self.n_missing else ""
        return f"{start} {of_code}, {others}."

    def __reduce__(self) -> tuple[type[NothingToRetryError], tuple[str, int, int]]:
        return type(self), (self.run_id, self.n_failed, self.n_missing)


class DuplicateInputArtifactsError(SpecError):
    """Two input files have the same name. Never raised, as each file has its own key."""

    def __init__(self, file_name: str, field_name: str) -> None:
        self.file_name = file_name
        self.field_name = field_name
        super().__init__(f"Two files of field {field_name} are called {file_name}: rename one.")


class ExperimentSpecsMismatchError(SpecError):
    """A spec is not an instance of the experiment's input model."""

    def __init__(self, expected_type: type, actual_type: type, index: int | None = None) -> None:
        self.expected_type = expected_type
        self.actual_type = actual_type
        where = "" if index is None else f" for spec {index}"
        super().__init__(
            f"Expected type {expected_type.__name__}, got {actual_type.__name__}{where}: "
            f"build the specs with {expected_type.__name__}(...)."
        )


class ExperimentIndexNotSerializableError(SpecError):
    """The index of a spec cannot be written as JSON."""

    def __init__(self, cls: type) -> None:
        self.cls = cls
        super().__init__(
            f"Index data is not serializable as json: {cls.__name__}. "
            "Return numbers and text from `computed_features`, and pass numbers and text as "
            "`additional_index_data`."
        )


class ExperimentIndexAdditionalDataDoesNotMatchNRowsError(SpecError):
    """A list of additional index data has another length than the table."""

    def __init__(
        self, n_rows: int, additional_index_data: dict[str, Any] | list[dict[str, Any]]
    ) -> None:
        self.n_rows = n_rows
        self.additional_index_data = additional_index_data
        super().__init__(
            "Additional index data does not match the number of rows: "
            f"{n_rows} != {len(additional_index_data)}. Pass one dict for each row."
        )


class ExperimentIndexAdditionalDataOverlapsWithSpecError(SpecError):
    """Additional index data, or a computed feature, has the name of a field."""

    def __init__(self, overlapping_keys: list[str]) -> None:
        self.overlapping_keys = overlapping_keys
        super().__init__(
            f"Additional index data overlaps with the spec: {overlapping_keys}. Rename these keys."
        )


class RegistrationError(ScytheError, TypeError):
    """A function cannot be registered as an experiment."""


class ExperimentTypeExists(RegistrationError):  # noqa: N818 - the public name of scythe-engine
    """Two experiments have one name."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"Experiment {name} already exists: give one of the two another `name=` in Register()."
        )


class ExperimentTypeNotFound(RegistrationError):  # noqa: N818 - the public name of scythe-engine
    """No experiment of this name is registered in this process."""

    def __init__(self, name: str, known: list[str] | None = None) -> None:
        self.name = name
        listed = ", ".join(sorted(known or [])) or "none"
        super().__init__(
            f"Experiment {name} not found (registered here: {listed}). "
            "Import the module that registers it before you look it up."
        )


class BaseNotFoundError(ScytheError, LookupError):
    """Something was looked up in the bucket and does not exist."""


class ExperimentNotFoundError(BaseNotFoundError):
    """No run of this experiment is in the bucket."""

    def __init__(self, experiment_name: str) -> None:
        self.experiment_name = experiment_name
        super().__init__(
            f"Experiment {experiment_name} not found: nothing was run under this name in this "
            "bucket and prefix. Call allocate() first, or check SCYTHE_STORAGE_BUCKET, "
            "SCYTHE_STORAGE_BUCKET_PREFIX and `run_name`."
        )


class ExperimentVersionNotFoundError(BaseNotFoundError):
    """The experiment has no such version in the bucket."""

    def __init__(self, experiment_name: str, version: object) -> None:
        self.experiment_name = experiment_name
        self.version = version
        super().__init__(
            f"Experiment {experiment_name}/{version} not found: list_versions() names those there."
        )


class ExperimentRunNotFoundError(BaseNotFoundError):
    """The version has no such run in the bucket."""

    def __init__(self, experiment_name: str, version: object, run_name: str) -> None:
        self.experiment_name = experiment_name
        self.version = version
        self.run_name = run_name
        super().__init__(
            f"Experiment {experiment_name}/{version}/{run_name} not found: "
            "list_runs() names those that are there."
        )


class RunNotFoundError(BaseNotFoundError):
    """No run in the bucket fits what the user called it."""


class ResultNotFoundError(BaseNotFoundError):
    """The run has no such table (yet)."""


class OutputError(ScytheError, ValueError):
    """The return value of the user's function cannot be stored."""


class ScalarInDataframesError(OutputError):
    """A user table is called `scalars`, which is Scythe's own."""

    def __init__(self, scalar: Any) -> None:
        self.scalar = scalar
        super().__init__("`scalars` key is already in `dataframes`: give that table another name.")


class ResultFileRefsInDataframesError(OutputError):
    """A user table is called `result_file_refs`, which is Scythe's own."""

    def __init__(self, result_file_refs: Any) -> None:
        self.result_file_refs = result_file_refs
        super().__init__(
            "`result_file_refs` key is already in `dataframes`: give that table another name."
        )


class MismatchError(ScytheError):
    """A worker's code differs from that of the run."""


class CodeMismatchError(MismatchError):
    """The fingerprint of the code differs."""


class SchemaMismatchError(MismatchError):
    """The input model of the experiment has other fields."""


class WorkerStartError(ScytheError):
    """A worker cannot start; the message says what to do."""


class PlaceAwayError(WorkerStartError):
    """The executor's cluster is unreachable; it may come back."""


class WorkerExit(WorkerStartError, SystemExit):  # noqa: N818 - it is one of Python's exits
    """A worker did not start, or gave up.

    A program may catch it as a `ScytheError`. Otherwise the script ends with exit code 1 and the
    message on standard error, without a traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = f"scythe: {message}"

    def __reduce__(self) -> tuple[type[WorkerExit], tuple[str]]:
        return type(self), (str(self),)


class ExecutorError(ScytheError):
    """A leaf did not succeed.

    Attributes:
        failure: The failure.
        journal: The journal of a batch (see `scythe.leaf.journal`), with the leaves that ended
            before; None if the batch had not begun.
    """

    def __init__(self, failure: LeafFailure, journal: bytes | None = None) -> None:
        self.failure = failure
        self.journal = journal
        super().__init__(failure.summary)

    def __reduce__(self) -> tuple[type[ExecutorError], tuple[LeafFailure, bytes | None]]:
        return type(self), (self.failure, self.journal)


class LeafFailed(ExecutorError):  # noqa: N818 - the name in the contract
    """The user's code failed: it raised, ran out of time, or ended its process."""


class ExecutorUnavailable(ExecutorError):  # noqa: N818 - the name in the contract
    """The executor failed, not the user's code: a lost process, Ray node or cluster."""


class MissingLibraryError(ScytheError, ImportError):
    """A library that is not installed with Scythe is needed."""

    def __init__(self, library: str, purpose: str) -> None:
        self.library = library
        super().__init__(f"{purpose} needs {library}, which is not here: pip install {library}")


class RunGoesOnError(ScytheError):
    """A run is not over, and what was asked for needs one that is."""


class RunFailedError(ScytheError):
    """A run has failed leaves, or was stopped, and the caller wants all to have ended well."""


class RunTimeoutError(ScytheError, TimeoutError):
    """A run did not end within the caller's timeout."""
