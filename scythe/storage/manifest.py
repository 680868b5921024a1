"""The documents of a run that people and other programs read: manifest, schema, input files."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, create_model
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from scythe.storage.files import S3Url


class InputArtifactLocations(BaseModel):
    """The uploaded input files of a run, by field."""

    files: dict[str, list[S3Url]]


class ExperimentRunManifest(BaseModel):
    """The manifest of a run.

    Attributes:
        workflow_run_id: Hatchet's id; None until the run was started.
        experiment_id: `<name>/<version>/<datetime>`.
        experiment_name: The name of the experiment.
        specs_uri: The specs.
        io_spec: The schema of inputs and outputs.
        input_artifacts: The list of the uploaded input files.
        n_specs: Number of specs.
        recursion_map: The tree in which they are run; None for a single workflow run.
        batch_size: The number of leaves that one Hatchet task runs.
        labels: The labels that a worker must have to take its leaves.
        code: The code that `allocate` saw: fingerprint, version of its package, Git commit.
        codes: How many leaves ran with which fingerprint; None until the run is over.
        code_mismatches: Number of leaves that ran with another fingerprint than that of `code`.
        description: The caller's words about it.
        tags: The caller's words to find it by.
        sources: The runs whose leaves and files it uses, by their `experiment_id`: they must not
            be deleted before it.
    """

    workflow_run_id: str | None
    experiment_id: str
    experiment_name: str
    specs_uri: S3Url
    io_spec: S3Url
    input_artifacts: S3Url | None = None
    n_specs: int | None = None
    recursion_map: dict[str, Any] | None = None
    batch_size: int = 1
    labels: dict[str, str] | None = None
    code: dict[str, str] | None = None
    codes: dict[str, int] | None = None
    code_mismatches: int | None = None
    description: str = ""
    tags: list[str] = []
    sources: list[str] = []


def to_yaml(document: Any) -> bytes:
    """Write a document as YAML, its keys in order."""
    import yaml

    if isinstance(document, BaseModel):
        document = document.model_dump(mode="json")
    return yaml.safe_dump(document, indent=2, sort_keys=False, allow_unicode=True).encode()


def from_yaml(data: bytes) -> Any:
    """Read a YAML document."""
    import yaml

    return yaml.safe_load(data)


def io_schema(input_type: type[BaseModel], output_type: type[BaseModel] | None) -> dict[str, Any]:
    """Return the JSON schema of an experiment's input and output."""
    fields: dict[str, Any] = {
        "input": (input_type, Field(..., description="The input for the experiment.")),
        "output": (
            output_type or type(None),
            Field(..., description="The output for the experiment."),
        ),
    }
    model = create_model("ExperimentIO", **fields)
    model.__doc__ = "The input and output schema for the experiment."
    return model.model_json_schema(schema_generator=_LenientSchema)


class _LenientSchema(GenerateJsonSchema):
    """Describes a field of a type that JSON schema has no word for (an array, say) as anything."""

    ignored_warning_kinds: set[Any] = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        del schema
        return {"description": error_info}
