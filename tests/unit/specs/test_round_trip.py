"""Whatever the fields of a spec are: the leaf gets it as it was, or `allocate` says why not."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ConfigDict, Field, PrivateAttr, create_model

from scythe.base import ExperimentInputSpec
from scythe.errors import SpecError
from scythe.messages import LeafInput
from scythe.outcomes import StoreConfig
from scythe.specs.codec import decode_spec
from scythe.specs.file import SPEC_COLUMN
from scythe.specs.writer import SpecChecker, SpecRules
from scythe.storage.layout import RunLayout
from scythe.storage.store import Store
from scythe.tables.arrow import parquet_options
from tests.unit.specs.exact import described
from tests.unit.specs.field_kinds import CARRIED, REFUSABLE, anything

STORE = Store(StoreConfig("b", endpoint_url="http://127.0.0.1:1", region="x"), client=object())
RUN = "wall/v1.0.0/2025-01-01_00-00-00"
IDS: dict[str, Any] = {"experiment_id": RUN, "sort_index": 0}


class WithAliases(ExperimentInputSpec):
    model_config = ConfigDict(
        alias_generator=lambda name: f"{name}Alias", serialize_by_alias=True, populate_by_name=True
    )


class WithPrivate(ExperimentInputSpec):
    _noted: Any = PrivateAttr(default=None)


def allocated(specs: list[Any]) -> list[str]:
    """Return specs as text, as they are in the bucket, through the checks of `allocate`."""
    checker = SpecChecker(SpecRules(type(specs[0]), False, True, True), RunLayout("p", RUN), STORE)
    chunk = checker.chunk(specs)
    assert chunk is not None
    file = io.BytesIO()
    pq.write_table(chunk.table, file, **parquet_options(chunk.table.schema))
    file.seek(0)
    return pq.read_table(file).column(SPEC_COLUMN).to_pylist()


def sent_inline(spec_text: str) -> str:
    """Return a spec's text after it was sent to the engine, whose database takes no NUL."""
    sent = json.dumps(LeafInput(spec=spec_text, experiment_id=RUN).model_dump(mode="json"))
    assert "\\u0000" not in sent.replace("\\\\u0000", "")
    return LeafInput.model_validate(json.loads(sent)).spec


@st.composite
def made_specs(draw: st.DrawFn, *, carried: bool) -> ExperimentInputSpec:
    """A spec of a class that is made of some kinds of fields, all of which must be carried or not.

    A kind that was found by hypothesis is reported by its name, which is that of the field.
    """
    kinds = CARRIED if carried else CARRIED | REFUSABLE
    names = draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, max_size=4, unique=True))
    base = draw(st.sampled_from([ExperimentInputSpec, WithAliases, WithPrivate]))
    fields: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for name in names:
        annotation, strategy = kinds[name]
        value = draw(strategy)
        how = draw(st.sampled_from(["given", "default", "factory"]))
        if how == "given" or name in ("file", "url", "parsed", "numpy_number"):
            fields[name] = (annotation, ...)
            values[name] = value
        elif how == "default":
            fields[name] = (annotation, value)
        else:
            fields[name] = (annotation, Field(default_factory=lambda value=value: value))
    cls: Any = create_model("Made", __base__=base, **fields)
    if draw(st.booleans()):
        values[f"more_{draw(st.integers(0, 3))}"] = draw(anything)
    spec = cls(**IDS, **values)
    if isinstance(spec, WithPrivate) and draw(st.booleans()):
        spec._noted = draw(anything)
    return spec


def assert_arrives(spec: Any, spec_text: str) -> None:
    for received in (spec_text, sent_inline(spec_text)):
        back = decode_spec(type(spec), received)
        assert described(back) == described(spec)


@given(made_specs(carried=True))
def test_a_spec_arrives_as_it_was(spec: ExperimentInputSpec) -> None:
    assert_arrives(spec, allocated([spec])[0])


@given(made_specs(carried=True), st.integers(2, 5))
def test_a_spec_of_many_arrives_as_it_was(spec: ExperimentInputSpec, count: int) -> None:
    others = [spec.model_copy(update={"sort_index": number}) for number in range(count)]
    for other, spec_text in zip(others, allocated(others), strict=True):
        assert_arrives(other, spec_text)


@given(made_specs(carried=False))
def test_a_spec_arrives_as_it_was_or_is_refused_by_the_name_of_a_field(
    spec: ExperimentInputSpec,
) -> None:
    try:
        spec_text = allocated([spec])[0]
    except SpecError as error:
        message = str(error)
        refusable = [name for name in type(spec).model_fields if name in REFUSABLE]
        assert any(f"ield {name!r}" in message for name in refusable), message
        assert message.startswith("Spec 0: ")
        assert message.endswith(". Nothing was uploaded or started.")
        assert "hush" not in message
    else:
        assert_arrives(spec, spec_text)
