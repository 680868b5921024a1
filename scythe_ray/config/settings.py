"""Settings of the executor `ray`, from `SCYTHE_RAY_*`. They are read when constructed."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from scythe.durations import Timeout
from scythe.errors import SettingsError
from scythe.settings import CheckedSettings
from scythe_ray.config.resources import RayNode


class RaySettings(CheckedSettings):
    """Where the Ray cluster is, and what of it this worker uses."""

    model_config = SettingsConfigDict(env_prefix="SCYTHE_RAY_")

    ADDRESS: str | None = Field(
        default=None,
        description="`host:port` of the cluster's head; `auto` for the Ray that runs on this node; "
        "`local` for a cluster of this worker's own; unset for this node's, else one of its own.",
    )
    CONNECT_TIMEOUT: Timeout = Field(
        default=timedelta(seconds=30), description="How long attaching to a cluster may take."
    )
    SCOPE: Literal["node", "cluster"] = Field(
        default="node",
        description="Whether this worker's slots are the CPUs of its node or of all nodes.",
    )
    PREFETCH: int = Field(
        default=0,
        ge=0,
        description="Slots beyond the CPUs, so that Ray has the next leaf at hand. Leaves that "
        "need a GPU, or another resource, have none.",
    )
    RESOURCES: dict[str, float] = Field(
        default_factory=dict[str, float],
        description="Custom resources of a cluster that the worker starts, as JSON.",
    )
    NUM_GPUS: int | None = Field(
        default=None, ge=0, description="GPUs of a cluster that the worker starts (else detected)."
    )
    AUTOSCALING: list[dict[str, float]] = Field(
        default_factory=list[dict[str, float]],
        description="The nodes that Ray's autoscaler may start, each by its resources, as JSON: "
        "what only such a node could run waits for it.",
    )
    SYSTEM_RETRIES: int = Field(
        default=3, ge=0, description="How often a leaf is sent again when its place was lost."
    )

    RUNTIME_ENV: str | None = Field(
        default=None,
        description="What Ray brings to its nodes (code, variables, packages): its `runtime_env` "
        "as JSON, or the path of a JSON or YAML file.",
    )
    ON_CLUSTER_LOSS: Literal["reconnect", "exit"] = Field(
        default="reconnect",
        description="What the worker does when the cluster is lost: wait for it (one of its own is "
        "started again), or stop.",
    )

    @property
    def ceiling(self) -> list[RayNode]:
        """The nodes that the autoscaler may start."""
        return [
            RayNode("", "a node that the autoscaler starts", "not there yet", resources)
            for resources in self.AUTOSCALING
        ]

    @property
    def address(self) -> str | None:
        """`SCYTHE_RAY_ADDRESS`, else Ray's own `RAY_ADDRESS`, else None."""
        return self.ADDRESS or os.environ.get("RAY_ADDRESS") or None

    @property
    def address_source(self) -> str:
        """The variable that `address` comes from."""
        return "SCYTHE_RAY_ADDRESS" if self.ADDRESS else "RAY_ADDRESS"


def ray_settings() -> RaySettings:
    """Return the settings of the environment.

    Raises:
        SettingsError: A variable has a value that it cannot have.
    """
    try:
        return RaySettings()
    except SettingsError:
        raise
    except ValueError as error:  # pydantic-settings raises it for text that is not JSON
        raise SettingsError(
            f"{error} (SCYTHE_RAY_RESOURCES is a JSON object such as "
            "'{\"high_memory\": 4}', SCYTHE_RAY_AUTOSCALING a list such as "
            '\'[{"CPU": 8, "GPU": 1}]\'). Correct it, or unset it.'
        ) from error
