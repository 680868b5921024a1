"""Settings of the executor `ray`, read from `SCYTHE_RAY_*` when constructed."""

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
    """The Ray cluster of a worker, and its share of it."""

    model_config = SettingsConfigDict(env_prefix="SCYTHE_RAY_")

    ADDRESS: str | None = Field(
        default=None,
        description="`host:port` of the cluster's head; `auto` for the Ray that runs on this node; "
        "`local` for an own cluster; unset for the Ray of this node, or else an own cluster.",
    )
    CONNECT_TIMEOUT: Timeout = Field(
        default=timedelta(seconds=30), description="Time limit for attaching to a cluster."
    )
    SCOPE: Literal["node", "cluster"] = Field(
        default="node",
        description="Whether this worker's slots are the CPUs of its node or of all nodes.",
    )
    PREFETCH: int = Field(
        default=0,
        ge=0,
        description="Slots beyond the CPUs, so that the next leaf is waiting in Ray. Leaves that "
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
        description="The nodes that Ray's autoscaler may start, as a JSON list of resources: "
        "a leaf that only such a node could run waits for it.",
    )
    SYSTEM_RETRIES: int = Field(
        default=3,
        ge=0,
        description="How often a leaf is submitted again after it lost its Ray node.",
    )

    RUNTIME_ENV: str | None = Field(
        default=None,
        description="What Ray takes to its nodes (code, variables, packages): its `runtime_env` "
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
        SettingsError: A variable has an invalid value.
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
