"""The keys of a run under the names that scythe-engine gave them."""

from __future__ import annotations

from scythe.storage.layout import RunLayout


class RunKeys:
    """Adds the keys of a run to a class that has its layout."""

    @property
    def layout(self) -> RunLayout:
        """The keys of the run."""
        raise NotImplementedError

    @property
    def prefix(self) -> str:
        """The key below which everything of the run is, with a slash at its end."""
        return self.layout.prefix

    @property
    def artifact_prefix(self) -> str:
        """The key below which the input files are, with a slash at its end."""
        return self.layout.artifacts

    def construct_artifact_key(self, field_name: str, file_name: str) -> str:
        """Return the key of an input file."""
        return self.layout.artifact(field_name, file_name)

    @property
    def specs_filekey(self) -> str:
        """The key of the specs."""
        return self.layout.specs

    @property
    def manifest_filekey(self) -> str:
        """The key of the manifest."""
        return self.layout.manifest

    @property
    def io_spec_filekey(self) -> str:
        """The key of the schema of inputs and outputs."""
        return self.layout.io_spec

    @property
    def input_artifacts_filekey(self) -> str:
        """The key of the list of input files."""
        return self.layout.input_artifacts

    @property
    def workflow_spec_filekey(self) -> str:
        """The key of the spec of a run that has just one."""
        return self.layout.workflow_spec

    @property
    def final_results_dirkey(self) -> str:
        """The key below which the final tables are, with a slash at its end."""
        return self.layout.final

    @property
    def scalars_filekey(self) -> str:
        """The key of the table of scalar outputs."""
        return self.layout.final_table("scalars")

    @property
    def specs_filename(self) -> str:
        """The name of the file with the specs, without its suffix."""
        return "specs"

    def construct_specs_filekey(self, filename: str) -> str:
        """Return the key of a Parquet file beside the specs."""
        return f"{self.layout.prefix}{filename}.pq"
