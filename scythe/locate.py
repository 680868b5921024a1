"""Locates an experiment for another process: by import, by the script's file, or by value."""

from __future__ import annotations

import importlib
import os
import runpy
import sys
import types
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scythe.errors import ScytheError
from scythe.experiment import Experiment
from scythe.options import ExperimentOptions
from scythe.outcomes import CodeRef
from scythe.registry import ExperimentRegistry

MAIN_NAMES = ("__main__", "__mp_main__")
_found: dict[CodeRef, Experiment[Any, Any]] = {}
_importing = 0


class CodeNotFoundError(ScytheError):
    """A process that should run a leaf cannot import the experiment."""


def code_ref(experiment: Experiment[Any, Any]) -> CodeRef:
    """Return a reference by which another process finds the experiment."""
    module = experiment.fn.__module__
    qualname = experiment.fn.__qualname__
    main_path, main_module = main_source() if module in MAIN_NAMES else (None, None)
    importable = _import_leads_to(experiment)
    if module in MAIN_NAMES and not (main_path or main_module):
        importable = False  # typed at a prompt or in a notebook
    return CodeRef(
        experiment=experiment.name,
        module=module,
        qualname=qualname,
        main_path=main_path,
        main_module=main_module,
        pickled=None if importable else _pickle(experiment),
    )


def find_experiment(ref: CodeRef) -> Experiment[Any, Any]:
    """Return the experiment behind a reference, importing what is needed.

    Raises:
        CodeNotFoundError: The module is not there, does not import, or has no such experiment.
    """
    if ref not in _found:
        _found[ref] = _find(ref)
    return _found[ref]


def is_found(ref: CodeRef) -> bool:
    """Return whether this process has imported the experiment before."""
    return ref in _found


def import_code(ref: CodeRef) -> types.ModuleType:
    """Return the module that a reference names, importing it if need be.

    Raises:
        CodeNotFoundError: The module is not there, or does not import.
    """
    try:
        with _import_noted():
            return _import_main(ref) if ref.module in MAIN_NAMES else _import(ref.module)
    except CodeNotFoundError:
        raise
    except BaseException as error:
        raise CodeNotFoundError(_explain_import(ref, error)) from error


def is_importing() -> bool:
    """Return whether user code is being imported for its definitions, not to be run."""
    return _importing > 0


@contextmanager
def _import_noted() -> Generator[None]:
    global _importing
    _importing += 1
    try:
        yield
    finally:
        _importing -= 1


def _find(ref: CodeRef) -> Experiment[Any, Any]:
    if ref.pickled is not None:
        import cloudpickle

        with _import_noted():
            return cloudpickle.loads(ref.pickled)
    module = import_code(ref)
    for experiment in ExperimentRegistry.experiments():
        if experiment.name == ref.experiment:
            return experiment
    found: Any = module
    for step in ref.qualname.split("."):
        found = getattr(found, step, None)
    if isinstance(found, Experiment):
        return found
    if callable(found):
        return Experiment(found, ref.experiment)
    raise CodeNotFoundError(
        f"Module {ref.module} on this node has no {ref.qualname}: it is another version of the "
        "code than the worker's. Install the same version on all nodes."
    )


def _import_leads_to(experiment: Experiment[Any, Any]) -> bool:
    """Return whether importing the function's module brings this very experiment."""
    found: Any = sys.modules.get(experiment.fn.__module__)
    if found is None:
        return False
    if any(value is experiment for value in list(vars(found).values())):
        return True
    for step in experiment.fn.__qualname__.split("."):
        found = getattr(found, step, None)
    # A plain function that was registered with options elsewhere would come back without them.
    plain = found is experiment.fn and experiment.options == ExperimentOptions()
    return found is experiment or plain


def _import(name: str) -> types.ModuleType:
    return sys.modules.get(name) or importlib.import_module(name)


def _import_main(ref: CodeRef) -> types.ModuleType:
    """Import the worker's script under the name that multiprocessing gives such a module."""
    for name in MAIN_NAMES:
        module = sys.modules.get(name)
        if module is not None and _is_script(module, ref):
            return module
    if ref.main_module is not None:
        content = runpy.run_module(ref.main_module, run_name="__mp_main__", alter_sys=True)
    else:
        path = str(ref.main_path)
        if not Path(path).exists():
            raise CodeNotFoundError(
                f"The experiment {ref.experiment} is defined in the script {path}, which is not on "
                "this node: put the script at that path on every node (a shared folder, the same "
                "image), or move the experiment to an installed module."
            )
        folder = str(Path(path).parent)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        content = runpy.run_path(path, run_name="__mp_main__")
    module = types.ModuleType("__mp_main__")
    module.__dict__.update(content)
    sys.modules["__mp_main__"] = module
    return module


def _is_script(module: types.ModuleType, ref: CodeRef) -> bool:
    path, name = _source_of(module)
    return (name is not None and name == ref.main_module) or (
        path is not None and path == ref.main_path
    )


def main_source() -> tuple[str | None, str | None]:
    """Return the file of the script that this process runs, or the module of `python -m`."""
    for name in MAIN_NAMES:
        if name in sys.modules:
            path, module = _source_of(sys.modules[name])
            if path or module:
                return path, module
    return None, None


def _source_of(module: types.ModuleType) -> tuple[str | None, str | None]:
    spec = getattr(module, "__spec__", None)
    if spec is not None and spec.name not in MAIN_NAMES:
        return None, spec.name.removesuffix(".__main__") if spec.name != "__main__" else None
    file = getattr(module, "__file__", None)
    if not file or not Path(file).exists():
        return None, None
    return os.path.abspath(file), None  # noqa: PTH100 - links keep their own names


def _pickle(experiment: Experiment[Any, Any]) -> bytes:
    import cloudpickle

    _ = experiment.code  # it goes with it: by value, its source cannot be read elsewhere
    try:
        return cloudpickle.dumps(experiment)
    except Exception as error:
        raise CodeNotFoundError(
            f"The experiment {experiment.name} is defined inside a function or at a prompt and "
            f"cannot be sent to another process ({error}): define it at module level."
        ) from error


def _explain_import(ref: CodeRef, error: BaseException) -> str:
    where = ref.main_path or ref.main_module or ref.module
    if isinstance(error.__cause__, ModuleNotFoundError):
        error = error.__cause__  # what `python -m` says of a package that is not there
    if isinstance(error, ModuleNotFoundError):
        return (
            f"The experiment {ref.experiment} needs the module {error.name!r}, which is not on "
            f"this node (imported from {where}): install it there, or start the worker's cluster "
            "with a shared environment."
        )
    return (
        f"{where} cannot be imported on this node ({type(error).__name__}: {error}): a script must "
        "start its worker below `if __name__ == '__main__':`."
    )
