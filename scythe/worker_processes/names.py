"""Names for the workers of a host."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count

from pydantic_settings import BaseSettings, SettingsConfigDict

from scythe.environment import TOKEN
from scythe.settings import cache_folder


class WorkerNameConfig(BaseSettings):
    """The worker's default name, made from the environment that hosts it."""

    model_config = SettingsConfigDict(env_ignore_empty=True)

    FLY_REGION: str | None = None
    AWS_BATCH_JOB_ARRAY_INDEX: int | None = None
    COPILOT_ENVIRONMENT_NAME: str | None = None

    @property
    def in_aws_batch(self) -> bool:
        """Whether this is a job of an AWS Batch array."""
        return self.AWS_BATCH_JOB_ARRAY_INDEX is not None

    @property
    def in_aws_copilot(self) -> bool:
        """Whether AWS Copilot runs this."""
        return self.COPILOT_ENVIRONMENT_NAME is not None

    @property
    def in_aws(self) -> bool:
        """Whether this runs on AWS Batch or AWS Copilot."""
        return self.in_aws_batch or self.in_aws_copilot

    @property
    def in_fly(self) -> bool:
        """Whether this runs on Fly.io."""
        return self.FLY_REGION is not None

    @property
    def in_local(self) -> bool:
        """Whether this runs on none of these platforms."""
        return not (self.in_aws or self.in_fly)

    @property
    def aws_hosting_str(self) -> str:
        """`AWSBatch0001`, `AWSCopilotPROD`, or both in one; empty elsewhere."""
        batch = f"Batch{self.AWS_BATCH_JOB_ARRAY_INDEX:04d}" if self.in_aws_batch else ""
        copilot = (self.COPILOT_ENVIRONMENT_NAME or "").upper()
        return f"AWS{batch}{'Copilot' + copilot if self.in_aws_copilot else ''}" * self.in_aws

    @property
    def fly_hosting_str(self) -> str:
        """`FlyIAD`, or empty elsewhere."""
        return f"Fly{(self.FLY_REGION or '').upper()}" * self.in_fly

    @property
    def hosting_str(self) -> str:
        """The platform, for the name."""
        return self.aws_hosting_str or self.fly_hosting_str or "Local"

    @property
    def name(self) -> str:
        """The worker's name, such as `ScytheWorker--FlyIAD`."""
        return f"ScytheWorker--{self.hosting_str}"


@contextmanager
def free_worker_name(name: str) -> Generator[str]:
    """Reserve the first of `name`, `name-2`, `name-3`, … that no worker of this user has here.

    Only workers of the same engine compete. The reservation ends with the process.
    """
    folder = cache_folder() / "workers"
    what = f"{name} {os.environ.get('HATCHET_CLIENT_HOST_PORT')} {os.environ.get(TOKEN)}"
    digest = hashlib.sha256(what.encode()).hexdigest()[:16]
    for number in count(1):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / f"{digest}-{number}").open("w")
        except OSError:  # the cache is not writable, so the name may not be unique
            yield name
            return
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            yield name if number == 1 else f"{name}-{number}"
            return
