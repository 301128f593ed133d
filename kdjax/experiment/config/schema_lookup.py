"""Look-ups in the schema: the declaration at a path, its type and its bounds in words."""

from collections.abc import Iterable, Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from kdjax.experiment.config.schema import Config, Data

_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


class Key(NamedTuple):
    """One line of the schema; <role> and the like in its path stand for names."""

    path: str
    type: str
    default: Any
    bounds: str
    meaning: str


class Place(NamedTuple):
    """The place in the schema that a path leads to; `annotation` is None of an unknown key."""

    path: str
    annotation: Any
    bounds: str
    known: tuple[str, ...]  # keys of the table there, or of the table that lacks the key


def declared(table: type[BaseModel] = Config, prefix: str = "") -> Iterator[Key]:
    """Yield the declaration of every key that is no table, in order."""
    for name, field in table.model_fields.items():
        path, kind, tables = f"{prefix}{name}", field.annotation, _tables(field.annotation)
        if not tables:
            only = f" Only {of}." if (of := _kind_of_data(field)) else ""
            meaning = f"{field.description}{only}"
            yield Key(path, type_text(kind), field.default, bounds_text(field), meaning)
        for tag, inner in tables.items():
            entry = f".<{name.removesuffix('s')}{f': {tag}' if tag else ''}>"
            yield from declared(inner, f"{path}{entry if get_origin(kind) is dict else ''}.")


def of_data(kind: str) -> tuple[str, ...]:
    """Return the keys of `data` that only one kind of it has: "text", "pairs" or "coco"."""
    return tuple(name for name, field in Data.model_fields.items() if _kind_of_data(field) == kind)


def locate(path: Iterable[str | int]) -> Place:
    """Return the place of a path of names; pydantic's tags of unions may be among them.

    The place of a part of a value, such as an entry of a list, is that of the value.
    """
    names: list[str] = []
    kind, bounds, table = Config, "", Config
    for part in path:
        tables = _tables(kind)
        if get_origin(kind) is dict:
            names.append(str(part))
            kind = _bare(get_args(kind)[1])
        elif len(tables) > 1 and part in tables:
            kind = tables[str(part)]
        elif len(tables) == 1:
            names.append(str(part))
            table = next(iter(tables.values()))
            field = table.model_fields.get(str(part))
            if field is None:
                return Place(".".join(names), None, "", tuple(table.model_fields))
            kind, bounds = field.annotation, bounds_text(field)
        else:
            break
    known = () if get_origin(kind) is dict else tuple(_keys(_tables(kind).values()))
    return Place(".".join(names), kind, bounds, known)


def flag_type(path: str) -> type | None:
    """Return the type of a flag for the value at a path; None where the schema leaves it open.

    A key that takes several types has the type `object`.
    """
    kinds = {kind for kind in _kinds(locate(path.split(".")).annotation) if kind is not NoneType}
    if not kinds <= {bool, int, float, str, tuple} or not kinds:
        return None
    return kinds.pop() if len(kinds) == 1 else object


def type_text(annotation: Any) -> str:
    """Return a type in words: "int or None", "pmap or mesh", "tuple of str"."""
    words = list(dict.fromkeys(_words(annotation)))
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def bounds_text(field: FieldInfo) -> str:
    """Return the bounds of a number in words: ">= 0", "> 0 and <= 1", "" without any."""
    return " and ".join(
        f"{sign} {getattr(bound, name):g}"
        for bound in _metadata([*field.metadata, field.annotation])
        for name, sign in _SIGNS.items()
        if hasattr(bound, name)
    )


def _kind_of_data(field: FieldInfo) -> Any:
    extra = field.json_schema_extra
    return extra.get("of") if isinstance(extra, dict) else None


def _keys(tables: Iterable[type[BaseModel]]) -> dict[str, None]:
    return dict.fromkeys(name for table in tables for name in table.model_fields)


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _members(annotation: Any) -> Iterator[Any]:
    """Yield the members of a union, also of a nested one; any other type alone."""
    bare = _bare(annotation)
    if get_origin(bare) in (Union, UnionType):
        for member in get_args(bare):
            yield from _members(member)
    else:
        yield bare


def _tables(annotation: Any) -> dict[str, type[BaseModel]]:
    """Return the tables that a key holds, itself or by name; several by their `kind`."""
    if get_origin(annotation) is dict:
        return _tables(get_args(annotation)[1])
    tables = [kind for kind in _members(annotation) if isinstance(kind, type)]
    return {
        table.model_fields["kind"].default if "kind" in table.model_fields else "": table
        for table in tables
        if issubclass(table, BaseModel)
    }


def _kinds(annotation: Any) -> Iterator[Any]:
    """Yield the Python types of the values that an annotation allows."""
    for kind in _members(annotation):
        if get_origin(kind) is Literal:
            yield from map(type, get_args(kind))
        else:
            yield get_origin(kind) or kind


def _words(annotation: Any) -> Iterator[str]:
    for kind in _members(annotation):
        if kind is NoneType:
            yield "None"
        elif get_origin(kind) is Literal:
            yield from map(str, get_args(kind))
        elif get_origin(kind) is tuple:
            first, *rest = get_args(kind)
            yield f"tuple of {type_text(first)}" if rest == [...] else "(height, width)"
        else:
            yield (get_origin(kind) or kind).__name__


def _metadata(parts: Iterable[Any]) -> Iterator[Any]:
    """Yield the metadata of annotations and of fields, also inside unions."""
    for part in parts:
        if isinstance(part, FieldInfo):
            yield from part.metadata
        elif get_origin(part) is Annotated:
            yield from _metadata(get_args(part)[1:])
        elif get_origin(part) in (Union, UnionType):
            yield from _metadata(get_args(part))
        else:
            yield part
