"""Something that can be run, in a pydantic model."""

from __future__ import annotations

from typing import Any, Generic, NoReturn, Self, cast

from pydantic import BaseModel, ConfigDict, field_serializer, field_validator, model_validator

from scythe.errors import ExperimentTypeNotFound, RegistrationError
from scythe.experiment import TInput, TOutput
from scythe.registry import ExperimentRegistry


class AbsentExperiment:
    """An experiment whose code this process has not imported: its runs can be read all the same.

    Args:
        name: Its name, or that of its folder in the bucket.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"AbsentExperiment({self.name!r})"

    def run(self, *_: Any, **__: Any) -> NoReturn:
        """Raise `ExperimentTypeNotFound`: the code is not here."""
        raise ExperimentTypeNotFound(
            self.name, [known.name for known in ExperimentRegistry.experiments()]
        )

    @property
    def input_validator_type(self) -> NoReturn:
        """Raise `ExperimentTypeNotFound`: the class of its input is not here."""
        self.run()

    @property
    def output_validator_type(self) -> NoReturn:
        """Raise `ExperimentTypeNotFound`: the class of its output is not here."""
        self.run()


def find_runnable(name: str) -> Any:
    """Return what is registered in this process under a name, else an `AbsentExperiment`."""
    try:
        return ExperimentRegistry.get_runnable(name)
    except ExperimentTypeNotFound:
        return AbsentExperiment(name)


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
