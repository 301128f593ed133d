"""Look-ups in the JSON schema of a config: the declaration at a path, its type and bounds."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from types import NoneType
from typing import Any, NamedTuple

from kdjax.experiment.config.schema import Config

Schema = Mapping[str, Any]
_SIGNS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
_TYPES = {
    "array": tuple,
    "boolean": bool,
    "integer": int,
    "null": NoneType,
    "number": float,
    "object": dict,
    "string": str,
}


class Key(NamedTuple):
    """A declaration of the schema; its path has <role> and the like in place of names."""

    path: str
    type: str
    default: Any
    bounds: str
    meaning: str


class Place(NamedTuple):
    """The place of a path in the schema; `schema` is empty for an unknown key."""

    path: str
    schema: Schema
    known: tuple[str, ...]  # keys of the table there, or of the table that lacks the key


def declared(table: Schema | None = None, prefix: str = "") -> Iterator[Key]:
    """Yield the declaration of every key that is no table, in order."""
    for name, schema in (table or _config())["properties"].items():
        path, tables = f"{prefix}{name}", _tables(schema)
        if not tables:
            only = f" Only {schema['of']}." if "of" in schema else ""
            meaning = f"{schema['description']}{only}"
            yield Key(path, type_text(schema), schema["default"], bounds_text(schema), meaning)
        for tag, inner in tables.items():
            entry = f".<{name.removesuffix('s')}{f': {tag}' if tag else ''}>"
            yield from declared(inner, f"{path}{entry if _is_dict(schema) else ''}.")


def of_data(kind: str) -> tuple[str, ...]:
    """Return the keys of `data` for one kind of data only: "text", "pairs" or "coco"."""
    keys = _config()["$defs"]["Data"]["properties"].items()
    return tuple(name for name, schema in keys if schema.get("of") == kind)


def locate(path: Iterable[str | int]) -> Place:
    """Return the place of a path of names, which may include pydantic's tags of unions.

    A part of a value, such as an entry of a list, has the place of the value.
    """
    names: list[str] = []
    schema = _config()
    for part in map(str, path):
        tables = _tables(schema)
        if not _is_dict(schema) and len(tables) > 1 and part in tables:
            schema = tables[part]
            continue
        if not _is_dict(schema) and len(tables) != 1:
            break
        names.append(part)
        if _is_dict(schema):
            schema = _entry(schema)
            continue
        (table,) = tables.values()
        if part not in table["properties"]:
            return Place(".".join(names), {}, tuple(table["properties"]))
        schema = table["properties"][part]
    tables = {} if _is_dict(schema) else _tables(schema)
    known = dict.fromkeys(name for table in tables.values() for name in table["properties"])
    return Place(".".join(names), schema, tuple(known))


def flag_type(path: str) -> type | None:
    """Return the type of a flag for the value at a path; None if the schema has no type.

    A key that takes several types has the type `object`.
    """
    members = _members(locate(path.split(".")).schema)
    kinds = {_TYPES.get(member.get("type", ""), dict) for member in members} - {NoneType}
    if dict in kinds:
        return None
    return kinds.pop() if len(kinds) == 1 else object


def type_text(schema: Schema) -> str:
    """Return a type in words: "int or None", "pmap or mesh", "tuple of str"."""
    words = list(dict.fromkeys(word for member in _members(schema) for word in _words(member)))
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def bounds_text(schema: Schema) -> str:
    """Return the bounds of a number in words: ">= 0", "> 0 and <= 1", "" without any."""
    bounds = {
        key: part[key] for part in (schema, *_members(schema)) for key in _SIGNS & part.keys()
    }
    return " and ".join(
        f"{_SIGNS[key]} {bounds[key]:g}" for key in sorted(bounds, key=[*_SIGNS].index)
    )


@cache
def _config() -> Schema:
    return Config.model_json_schema()


def _is_dict(schema: Schema) -> bool:
    """Return whether a value is a dict of any keys."""
    return schema.get("type") == "object" and "properties" not in schema


def _entry(schema: Schema) -> Schema:
    """Return the schema of the values of a dict."""
    entry = schema["additionalProperties"]
    return {} if entry is True else entry


def _members(schema: Schema) -> list[Schema]:
    """Return the members of a (nested) union; any other schema as the only member."""
    if "$ref" in schema:
        return [_config()["$defs"][schema["$ref"].rpartition("/")[2]]]
    union = schema.get("anyOf") or schema.get("oneOf") or ()
    return [member for part in union for member in _members(part)] or [schema]


def _tables(schema: Schema) -> dict[str, Schema]:
    """Return the tables of a key or of its entries, by `kind` if there are several."""
    if _is_dict(schema):
        return _tables(_entry(schema))
    tables = [member for member in _members(schema) if "properties" in member]
    return {table["properties"].get("kind", {}).get("default", ""): table for table in tables}


def _words(schema: Schema) -> list[str]:
    if "enum" in schema or "const" in schema:
        return [str(value) for value in schema.get("enum", [schema.get("const")])]
    if "prefixItems" in schema:
        return ["(height, width)"]
    if "items" in schema:
        return [f"tuple of {type_text(schema['items'])}"]
    kind = _TYPES.get(schema.get("type", ""), Any)
    return ["None" if kind is NoneType else kind.__name__]
