"""Speeds up the import of the Hatchet SDK in every process that imports `scythe` first.

The SDK's generated REST client has 450 methods with `pydantic.validate_call`, few of which are ever
called. Building their validators takes a third of the SDK's import, in each process of a worker.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_SDK = "hatchet_sdk"


class _SdkFinder(MetaPathFinder):
    """Import hook that loads the SDK once, with deferred validators."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - as the import system calls it
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname != _SDK:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _DeferringLoader(spec.loader)
        return spec


class _DeferringLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        import pydantic

        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader
        validate_call: Any = pydantic.validate_call

        def deferred(
            function: Callable[..., Any] | None = None,
            /,
            *,
            config: dict[str, Any] | None = None,
            validate_return: bool = False,
        ) -> Any:
            """Wrap a function so that its validator is built at the first call."""
            config = {**(config or {}), "defer_build": True}
            return validate_call(function, config=config, validate_return=validate_return)

        patched: Any = pydantic
        patched.validate_call = deferred
        try:
            self._loader.exec_module(module)
        finally:
            patched.validate_call = validate_call


def make_sdk_import_cheap() -> None:
    """Install the import hook, unless the SDK was imported already."""
    if _SDK not in sys.modules and not any(isinstance(one, _SdkFinder) for one in sys.meta_path):
        sys.meta_path.insert(0, _SdkFinder())
