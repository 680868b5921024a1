"""Locates a Hatchet task or workflow of the user for another process, by import.

The SDK's objects hold connections and cannot be sent to another process.
"""

from __future__ import annotations

import sys
from typing import Any

from scythe.engine.client import is_hatchet_runnable
from scythe.errors import WorkerStartError
from scythe.locate import MAIN_NAMES, CodeNotFoundError, import_code, main_source
from scythe.outcomes import CodeRef


def workflow_ref(workflow: Any) -> CodeRef:
    """Return a reference by which another process finds a Hatchet task or workflow.

    Raises:
        WorkerStartError: It is not a Hatchet task or workflow, or no module has it under a name.
    """
    if not is_hatchet_runnable(workflow):
        raise WorkerStartError(
            f"{workflow!r} is not a Hatchet task or workflow. Pass what `hatchet.workflow(...)` or "
            "`@hatchet.task(...)` returned; pass experiments to `start(experiments=[...])`."
        )
    module, attribute = _place_of(workflow)
    main_path, main_module = main_source() if module in MAIN_NAMES else (None, None)
    if not module or (module in MAIN_NAMES and not (main_path or main_module)):
        raise WorkerStartError(
            f"The worker's processes cannot find the Hatchet workflow {workflow.name}. Define it "
            "at module level, in a module or in the script that starts the worker."
        )
    return CodeRef(str(workflow.name), module, attribute, main_path, main_module)


def find_workflow(ref: CodeRef) -> Any:
    """Import and return the Hatchet task or workflow that a reference names.

    Raises:
        CodeNotFoundError: The module does not import, or has no such workflow.
    """
    module = import_code(ref)
    values = [getattr(module, ref.qualname, None), *vars(module).values()]
    for value in values:
        if is_hatchet_runnable(value) and str(getattr(value, "name", "")) == ref.experiment:
            return value
    raise CodeNotFoundError(
        f"{ref.main_path or ref.main_module or ref.module} has no Hatchet workflow "
        f"{ref.experiment} after its import. Define it at module level, outside of "
        "`if __name__ == '__main__':`."
    )


def _place_of(workflow: Any) -> tuple[str, str]:
    """Return the module and name of a workflow; other modules go before the main script."""
    modules = sorted(sys.modules.items(), key=lambda item: item[0] in MAIN_NAMES)
    for name, module in modules:
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is workflow:
                return name, attribute
    return "", ""
