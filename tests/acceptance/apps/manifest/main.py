"""A worker whose configuration has fields of the project's own."""

from pathlib import Path

from pydantic import Field
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.worker import ScytheWorkerConfig


class RoofInput(ExperimentInputSpec):
    slope: float


class RoofOutput(ExperimentOutputSpec):
    area: float


@ExperimentRegistry.Register(name="manifest_roof")
def roof(input_spec: RoofInput) -> RoofOutput:
    return RoofOutput(area=2 * input_spec.slope)


class ProjectConfig(ScytheWorkerConfig):
    MANIFEST: Path = Field(default=Path("manifest.yml"), description="What to submit.")
    DURABLE_SLOTS: int | None = 50
    tag: str = "none"

    def start(self, *args, **kwargs) -> None:
        print("tag", self.tag, "durable", self.computed_durable_slots, flush=True)
        super().start(*args, **kwargs)


if __name__ == "__main__":
    ProjectConfig(tag="study").start()
