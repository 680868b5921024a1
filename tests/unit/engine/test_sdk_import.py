"""The SDK's import with deferred validators, each time in a fresh process."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def printed(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_validators_of_the_sdk_are_made_for_the_first_call_only() -> None:
    lines = printed("""
        import scythe
        import pydantic
        before = pydantic.validate_call
        import hatchet_sdk
        from hatchet_sdk.clients.rest.api.task_api import TaskApi
        from pydantic._internal._validate_call import ValidateCallWrapper
        print(pydantic.validate_call is before)
        print(type(hatchet_sdk.__spec__.loader).__name__, type(hatchet_sdk.__loader__).__name__)
        try:
            TaskApi(None).v1_task_get(task=3)
        except pydantic.ValidationError as error:
            print(error.errors()[0]["loc"][0], error.errors()[0]["type"])

        built = []
        make = ValidateCallWrapper._create_validators
        ValidateCallWrapper._create_validators = lambda self: (built.append(1), make(self))
        from hatchet_sdk.clients.rest.api.tenant_api import TenantApi
        print(len(built))
        try:
            TenantApi(None).tenant_get(tenant=3)
        except pydantic.ValidationError:
            print(len(built))
    """)
    assert lines == ["True", *["SourceFileLoader"] * 2, "task", "string_type", "0", "1"]


def test_an_sdk_that_was_imported_first_stays_as_it_is() -> None:
    lines = printed("""
        import sys
        import hatchet_sdk
        finders = list(sys.meta_path)
        import scythe
        print(sys.meta_path == finders)
    """)
    assert lines == ["True"]


def test_other_modules_are_found_as_ever() -> None:
    lines = printed("""
        import sys
        import scythe
        from scythe.engine.sdk_import import make_sdk_import_cheap
        finders = list(sys.meta_path)
        make_sdk_import_cheap()
        import colorsys
        print(sys.meta_path == finders, colorsys.__spec__.name)
        import hatchet_sdk
        print(any(type(one).__name__ == "_SdkFinder" for one in sys.meta_path))
    """)
    assert lines == ["True", "colorsys", "False"]
