"""Something that can be run, in a pydantic model."""

from __future__ import annotations

from typing import Any, Generic, Self, cast

from pydantic import BaseModel, ConfigDict, field_serializer, field_validator, model_validator

from scythe.errors import RegistrationError
from scythe.experiment import TInput, TOutput
from scythe.registry import ExperimentRegistry


class SerializableRunnable(BaseModel, Generic[TInput, TOutput]):
    """Something that can be run, written as its name."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    runnable: Any

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        memo = {} if memo is None else memo
        memo[id(self.runnable)] = self.runnable  # shared: it holds connections, or is the user's
        return super().__deepcopy__(memo)

    @model_validator(mode="before")
    @classmethod
    def _take_former_name(cls, values: Any) -> Any:
        """Take `experiment=` for `runnable=`, as it was called before scythe-engine 1.1."""
        if isinstance(values, dict) and "experiment" in values and "runnable" not in values:
            named = {**cast("dict[str, Any]", values)}
            return {"runnable": named.pop("experiment"), **named}
        return values

    @field_validator("runnable", mode="before")
    @classmethod
    def _find_runnable(cls, value: Any) -> Any:
        if isinstance(value, str):
            return ExperimentRegistry.get_runnable(value)
        if not (hasattr(value, "name") and hasattr(value, "run")):
            raise RegistrationError(
                f"runnable={value!r} is not an experiment: decorate the function with "
                "@ExperimentRegistry.Register(), or pass the name of a registered one."
            )
        return value

    @field_serializer("runnable")
    def _serialize_runnable(self, value: Any) -> str:
        return str(value.name)
