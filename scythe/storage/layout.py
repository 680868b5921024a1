"""Every object key of a run, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from scythe.errors import OutputError, SpecError
from scythe.texts import STEP, is_plain_path

_NAME_BYTES = 180  # of a table; with its number and suffix it must fit into a file name


@dataclass(frozen=True, slots=True)
class RunLayout:
    """The keys of one run.

    Attributes:
        bucket_prefix: The folder in the bucket that holds all runs.
        experiment_id: `<name>/<version>/<datetime>`.
    """

    bucket_prefix: str
    experiment_id: str

    def __post_init__(self) -> None:
        check_path("experiment_id", self.experiment_id)

    @property
    def prefix(self) -> str:
        """The folder of the run, with a slash at its end."""
        return f"{self.below_prefix(self.bucket_prefix, self.experiment_id)}/"

    @staticmethod
    def below_prefix(bucket_prefix: str, path: str) -> str:
        """Return the key of a path below the bucket's prefix."""
        check_path("key", path)
        return f"{bucket_prefix.strip('/')}/{path}".lstrip("/")

    @property
    def manifest(self) -> str:
        """The manifest."""
        return f"{self.prefix}manifest.yml"

    @property
    def io_spec(self) -> str:
        """The JSON schema of inputs and outputs."""
        return f"{self.prefix}experiment_io_spec.yml"

    @property
    def input_artifacts(self) -> str:
        """The list of the uploaded input files."""
        return f"{self.prefix}input_artifacts.yml"

    @property
    def input_digests(self) -> str:
        """The SHA-256 of each uploaded input file, by its URI."""
        return f"{self.prefix}input_digests.json"

    @property
    def workflow_spec(self) -> str:
        """The spec of a run that has just one."""
        return f"{self.prefix}workflow_spec.yml"

    @property
    def specs(self) -> str:
        """All specs."""
        return f"{self.prefix}specs.pq"

    @property
    def status(self) -> str:
        """Counts of the run, during the run and at its end."""
        return f"{self.prefix}status.json"

    @property
    def probe(self) -> str:
        """Key of the small object that probes whether the bucket accepts writes."""
        version, slash, name = self.prefix.rstrip("/").rpartition("/")
        return f"{version}{slash}.claims/probe-{name}"

    @property
    def claims(self) -> str:
        """Key prefix of the claim objects, by which an allocation takes the run's folder.

        They lie beside the run's folder: some stores list a folder whose last key was deleted.
        """
        version, slash, name = self.prefix.rstrip("/").rpartition("/")
        return f"{version}{slash}.claims/{name}."

    @property
    def artifacts(self) -> str:
        """The folder of the uploaded input files."""
        return f"{self.prefix}artifacts/"

    def artifact(self, field: str, file_name: str) -> str:
        """Return the key of an uploaded input file."""
        return f"{self.artifacts}{field}/{file_name}"

    @property
    def final(self) -> str:
        """The folder of the final tables."""
        return f"{self.prefix}final/"

    def final_table(self, name: str) -> str:
        """Return the key of a final table."""
        check_path("table name", name)
        return f"{self.final}{name}.pq"

    @property
    def intermediate(self) -> str:
        """The folder of objects that are removed at the end of the run."""
        return f"{self.prefix}scatter-gather/"

    @property
    def reused(self) -> str:
        """The folder of the tables of leaves that the run takes from another one."""
        return f"{self.intermediate}reused/"

    def reused_table(self, name: str, number: int) -> str:
        """Return the key of a part of such a table."""
        check_path("table name", name)
        return f"{self.reused}{name}/{number}.pq"

    @property
    def specs_to_run(self) -> str:
        """The specs of the other leaves, where the run takes some from another one."""
        return f"{self.intermediate}specs.pq"

    @property
    def stop_request(self) -> str:
        """Key of the request to stop the run."""
        return f"{self.intermediate}stop.json"

    @property
    def pause_request(self) -> str:
        """Key of the request to pause the run."""
        return f"{self.intermediate}pause.json"

    def node_rounds(self, node: str) -> str:
        """Return the key of the leaves that a scatter node has started again."""
        return f"{self.intermediate}rounds/{node}.json"

    @property
    def node_ends(self) -> str:
        """The folder of the ended tasks that cut scatter nodes knew."""
        return f"{self.intermediate}ends/"

    def node_end(self, node: str) -> str:
        """Return the key of the ended tasks that a cut scatter node knew."""
        return f"{self.node_ends}{node}.json"

    @property
    def endings(self) -> str:
        """Key prefix of the claims to write the final tables."""
        return f"{self.intermediate}ending/"

    @property
    def node_results(self) -> str:
        """The folder of the results of the scatter nodes below the root."""
        return f"{self.intermediate}results/"

    def node_result(self, node: str) -> str:
        """Return the key of a scatter node's input and result."""
        return f"{self.node_results}{node}.json"

    @property
    def batch_packs(self) -> str:
        """The folder of the tables of batches."""
        return f"{self.intermediate}output/batches/"

    @property
    def batch_journals(self) -> str:
        """The folder of the journals of batches that were cancelled."""
        return f"{self.intermediate}journals/"

    def batch_journal(self, workflow_run_id: str) -> str:
        """Return the key of the journal of a batch that was cancelled."""
        return f"{self.batch_journals}{workflow_run_id}"

    def node_table(self, node: str, name: str) -> str:
        """Return the key of a table that a scatter node hands to its parent."""
        check_path("table name", name)
        return f"{self.intermediate}output/{node}/{name}.pq"

    def node_status(self, node: str) -> str:
        """Return the key of the counts of a scatter node."""
        return f"{self.intermediate}status/{node}.json"

    def batch_pack(self, first_row: int, workflow_run_id: str) -> str:
        """Return the key of the tables of a batch that are too large to travel with its result."""
        return f"{self.batch_packs}{first_row:08d}-{workflow_run_id}.arrow"

    def leaf_table(self, leaf_id: str, name: str) -> str:
        """Return the key of a leaf's table that is too large to travel with its result."""
        check_path("table name", name)
        return f"{self.intermediate}output/leaves/{leaf_id}/{name}.arrow"

    def leaf_scalars(self, leaf_id: str) -> str:
        """Return the key of a leaf's scalars that are too large to travel with its result."""
        return f"{self.intermediate}output/leaves/{leaf_id}/scalars.json"


def check_path(what: str, path: str) -> None:
    """Raise unless a path stays below the folder that it is appended to.

    Raises:
        SpecError: It is absolute, has empty, `.` or `..` steps or control characters.
    """
    if not is_plain_path(path):
        raise SpecError(
            f"{what} {path!r} is not a plain relative path: use steps of printable characters "
            "joined by '/', none of them empty, '.' or '..'."
        )


def check_table_name(name: str) -> None:
    """Raise unless a table's name can be that of a file.

    Raises:
        OutputError: It is empty, too long, or has a slash or control characters.
    """
    if not STEP.fullmatch(name) or len(name.encode()) > _NAME_BYTES:
        raise OutputError(
            f"The table name {name[:_NAME_BYTES]!r} cannot be that of a file: use up to "
            f"{_NAME_BYTES} letters without '/'."
        )
