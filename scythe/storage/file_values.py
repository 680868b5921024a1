"""Find the files in the values of a model, wherever they are inside, and replace them."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import re
import types
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import Annotated, Any, Union, cast, get_args, get_origin, get_type_hints

from pydantic import AnyUrl, BaseModel, HttpUrl
from typing_extensions import TypeAliasType, is_typeddict

from scythe.storage.uris import S3Url

_KEY_BYTES = 80  # of a key in a file's name; a file system takes 255 for the whole name
_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\%\ud800-\udfff]")
# The last suffix, and the one before where the last says only how the file is compressed.
_ENDING = re.compile(r"(?:\.[A-Za-z][A-Za-z0-9]{0,9})?\.(?:gz|bz2|xz|zst|lz4|Z|br)\Z")


@dataclass(frozen=True, slots=True)
class FilePlace:
    """Where in a model a file is.

    Attributes:
        field: The names of the fields that lead to it, joined by dots.
        keys: The keys and positions in dicts and lists on the way.
        has_names: Whether a key of a dict is among them.
        is_declared: Whether a file reference is what is expected there.
        text: The place as Python writes it.
    """

    field: str
    keys: tuple[Any, ...] = ()
    has_names: bool = False
    is_declared: bool = False
    text: str = ""

    @property
    def suffix(self) -> str:
        """Suffix that makes the file's name unique within its field."""
        return "".join(f"-{escape_key(key)}" for key in self.keys)

    def inside(self, field: str) -> FilePlace:
        """Return the place of a field of the model that is here."""
        return dataclasses.replace(self, field=f"{self.field}.{field}", text=f"{self}.{field}")

    def at(self, key: Any, *, is_name: bool) -> FilePlace:
        """Return the place of an item of the container that is here."""
        has_names = self.has_names or is_name
        return FilePlace(
            self.field, (*self.keys, key), has_names=has_names, text=f"{self}[{key!r}]"
        )

    def __str__(self) -> str:
        """Return the place as Python writes it."""
        return self.text or self.field


Visit = Callable[[FilePlace, Any], Any]


def escape_key(key: Any) -> str:
    """Return a key as a part of a file's name: it leads out of no folder, and stays different."""
    text = _UNSAFE.sub(
        lambda found: "".join(f"%{b:02X}" for b in found[0].encode(errors="surrogatepass")),
        str(key),
    )
    data = text.encode()
    if len(data) <= _KEY_BYTES:
        return text
    digest = hashlib.sha256(data).hexdigest()[:16]
    return f"{data[:_KEY_BYTES].decode(errors='ignore')}~{digest}"


def file_ending(path: PurePath) -> str:
    """Return the suffix of a file, `.csv`, or `.tar.gz` where the last names a compression."""
    found = _ENDING.search(path.name)
    return found[0] if found and found.start() > 0 else path.suffix


def replace_files(
    model: BaseModel, visit: Visit, *, any_path: bool, skip: str | None = None
) -> dict[str, Any]:
    """Return new values for the fields of a model that hold files, by name; it is not changed.

    Args:
        model: The model.
        visit: Called with each file reference, a path or URL, and its place; returns what takes
            its place in the copy.
        any_path: Whether each path is a file, not only those in fields for file references.
        skip: A field to leave out.
    """
    updates: dict[str, Any] = {}
    for name, kinds in _fields_with_files(type(model), any_path):
        value = getattr(model, name, None) if name != skip else None
        made = _Walk(visit, any_path).replaced(value, kinds, FilePlace(name))
        if made is not value:
            updates[name] = made
    return updates


@cache
def has_files(cls: type[BaseModel], *, any_path: bool = False, skip: str | None = None) -> bool:
    """Return whether a field of a class may hold files; see `replace_files`."""
    return any(name != skip for name, _ in _fields_with_files(cls, any_path))


@cache
def fields_of_files(cls: type[BaseModel]) -> frozenset[str]:
    """Return the names of the fields that hold file references and nothing else."""
    return frozenset(
        name
        for name, field in cls.model_fields.items()
        if _is_only_files(kinds_of(field.annotation))
    )


@dataclass(frozen=True, slots=True)
class _Walk:
    visit: Visit
    any_path: bool

    def replaced(  # noqa: PLR0911 - one return for each kind of value
        self, value: Any, kinds: tuple[Any, ...], place: FilePlace
    ) -> Any:
        """Return a value with its files replaced; the value itself where there are none."""
        if isinstance(value, (PurePath, AnyUrl)):
            is_declared = is_reference(kinds)
            if not is_declared and not (self.any_path and isinstance(value, Path)):
                return value
            return self.visit(dataclasses.replace(place, is_declared=is_declared), value)
        if isinstance(value, BaseModel):
            return self._model(value, place)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._dataclass(value, place)
        if isinstance(value, dict):
            return self._dict(cast("dict[Any, Any]", value), kinds, place)
        if isinstance(value, (list, tuple, set, frozenset, deque)):
            return self._items(cast("list[Any]", value), kinds, place)
        return value

    def _model(self, model: BaseModel, place: FilePlace) -> Any:
        updates: dict[str, Any] = {}
        for name, kinds in _fields_with_files(type(model), self.any_path):
            value = getattr(model, name, None)
            inside = place if name == "root" else place.inside(name)
            made = self.replaced(value, kinds, inside)
            if made is not value:
                updates[name] = made
        return model.model_copy(update=updates) if updates else model

    def _dataclass(self, value: Any, place: FilePlace) -> Any:
        made = value
        for name, kinds in _hints(type(value)).items():
            old = getattr(value, name, None)
            new = self.replaced(old, kinds, place.inside(name))
            if new is not old:
                made = copy.copy(value) if made is value else made
                object.__setattr__(made, name, new)
        return made

    def _dict(self, value: dict[Any, Any], kinds: tuple[Any, ...], place: FilePlace) -> Any:
        made = value
        for key, old in value.items():
            new = self.replaced(old, _kinds_of_item(kinds, key), place.at(key, is_name=True))
            if new is not old:
                made = copy.copy(value) if made is value else made
                made[key] = new
        return made

    def _items(self, value: Any, kinds: tuple[Any, ...], place: FilePlace) -> Any:
        items = [
            self.replaced(old, _kinds_of_item(kinds, number), place.at(number, is_name=False))
            for number, old in enumerate(value)
        ]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        if hasattr(value, "_make"):
            return value._make(items)
        return deque(items, value.maxlen) if isinstance(value, deque) else type(value)(items)


def is_reference(kinds: tuple[Any, ...]) -> bool:
    """Return whether one of `FileReference` and its forms is among some annotations."""
    return S3Url in kinds and HttpUrl in kinds and Path in kinds


def kinds_of(annotation: Any) -> tuple[Any, ...]:
    """Return the members of an annotation that may be a union."""
    return tuple(_members(annotation))


def _members(annotation: Any) -> Iterator[Any]:
    if isinstance(annotation, TypeAliasType):
        annotation = annotation.__value__
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _members(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _kinds_of_item(kinds: tuple[Any, ...], key: Any) -> tuple[Any, ...]:
    """Return what the items of a container may be."""
    found: list[Any] = []
    for kind in kinds:
        arguments = get_args(kind)
        if is_typeddict(kind) or hasattr(kind, "_fields"):
            names = list(_hints(kind))
            name = names[key] if isinstance(key, int) and key < len(names) else key
            found += _hints(kind).get(str(name), ())
        elif get_origin(kind) is tuple and arguments and arguments[-1] is not Ellipsis:
            found += kinds_of(arguments[key]) if key < len(arguments) else ()
        elif arguments:
            found += kinds_of(arguments[0] if arguments[-1] is Ellipsis else arguments[-1])
    return tuple(found)


@cache
def _hints(cls: Any) -> dict[str, tuple[Any, ...]]:
    """Return what the fields of a dataclass, TypedDict or named tuple may be."""
    try:
        return {
            name: kinds_of(one) for name, one in get_type_hints(cls, include_extras=True).items()
        }
    except (NameError, TypeError):  # a name that only the user's module knows
        return {}


@cache
def _fields_with_files(
    cls: type[BaseModel], any_path: bool
) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    fields = ((name, kinds_of(one.annotation)) for name, one in cls.model_fields.items())
    return tuple(one for one in fields if _may_hold(one[1], any_path, (cls,)))


def _may_hold(kinds: tuple[Any, ...], any_path: bool, within: tuple[Any, ...]) -> bool:
    """Return whether values of these types may have files inside."""
    return is_reference(kinds) or any(_may_be(kind, any_path, within) for kind in kinds)


def _may_be(kind: Any, any_path: bool, within: tuple[Any, ...]) -> bool:
    if kind in within:  # a class that holds itself: its other fields say whether it has files
        return True
    if any(_may_hold(kinds_of(one), any_path, within) for one in get_args(kind)):
        return True
    if kind is Any or not isinstance(kind, type):
        return any_path and kind is Any
    if issubclass(kind, BaseModel):
        fields = [kinds_of(one.annotation) for one in kind.model_fields.values()]
        return any(_may_hold(one, any_path, (*within, kind)) for one in fields)
    if dataclasses.is_dataclass(kind) or is_typeddict(kind) or hasattr(kind, "_fields"):
        return any(_may_hold(one, any_path, (*within, kind)) for one in _hints(kind).values())
    return any_path and (issubclass(kind, PurePath) or kind in (list, dict, tuple, set, object))


def _is_only_files(kinds: tuple[Any, ...]) -> bool:
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if is_reference(kinds):
        return True
    return bool(kinds) and all(
        get_args(kind) and _is_only_files(_kinds_of_item((kind,), 0)) for kind in kinds
    )
