"""Merging, completing, checking and comparing configs.

An experiment sets only the keys that differ from the defaults; `from_dict` adds the others, so
every key can be set by a flag. Roles, terms and adapters have any names and a fixed set of keys.
"""

import copy
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from kdjax.distill import critics, terms
from kdjax.distill.terms import TermSpec
from kdjax.errors import UserError, did_you_mean, prefix_errors
from kdjax.experiment.config import schema_lookup
from kdjax.experiment.config.schema import Config
from kdjax.models import user_code

_OUT_OF_BOUNDS = (
    "finite_number",
    "greater_than",
    "greater_than_equal",
    "less_than",
    "less_than_equal",
)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `over` into `base`, table by table; dotted keys are paths.

    >>> merge({"a": {"b": 1, "c": 2}}, {"a.b": 3, "a": {"d": 4}})
    {'a': {'b': 3, 'c': 2, 'd': 4}}
    """
    merged = copy.deepcopy(dict(base))
    for key, value in over.items():
        if key == "sweep" and isinstance(value or {}, Mapping):  # its keys are dotted paths
            paths = {**(merged.get(key) or {}), **(value or {})}
            merged[key] = {path: values for path, values in paths.items() if values is not None}
            continue
        head, _, rest = key.partition(".")
        if rest:
            value = {rest: value}
        if isinstance(value, Mapping) and isinstance(merged.get(head, {}), Mapping):
            merged[head] = merge(merged.get(head, {}), value)
        else:
            merged[head] = copy.deepcopy(value)
    return merged


def from_dict(mapping: Mapping[str, Any], where: str = "config") -> Config:
    """Complete a config and check it.

    Args:
      mapping: the keys of an experiment; dotted keys are paths, None removes a role, a term or an
        adapter.
      where: prefix of errors.

    Raises:
      UserError: one line with the key, and the nearest known key or what would be right.
    """
    for name in _entries(mapping.get("variants")) or ():
        if not re.fullmatch(r"[^./\\]+", name):
            raise UserError(
                f"{where}: variants holds {name!r}; a name must not be empty or hold '.' or '/'"
            )
    plain = merge({}, mapping)
    for owner, role in _entries(plain.get("roles")).items():
        for name, term in _entries(role.get("terms")).items():
            with prefix_errors(f"{where}: roles.{owner}.terms.{name}.loss: "):
                role["terms"][name] = {**_options_of_term(name, term.get("loss")), **term}
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        raise UserError(f"{where}: {_refusal(error, plain)}") from error


def to_dict(config: Config) -> dict[str, Any]:
    """Return a config as nested dicts with all defaults."""
    return config.model_dump()


def term_factory(name: str, loss: Any = "") -> Callable[..., TermSpec] | None:
    """Return the function that makes the spec of a term; None of an unknown one."""
    if not isinstance(loss, str) or not loss:
        return terms.TERM_SPECS.get(name)
    if not user_code.is_path(loss):
        raise UserError(f"{loss!r} is no Python path; write FILE.py:NAME or MODULE:NAME")
    return terms.term_factory(user_code.load(loss), loss)


def _options_of_term(name: str, loss: Any) -> dict[str, Any]:
    define = term_factory(name, loss) if loss else None
    return term_options().get(name, {}) if define is None else options_of_factory(define)


def options_of_factory(define: Callable[..., TermSpec]) -> dict[str, Any]:
    """Return the layers and scalars of a term with their defaults."""
    layers = {key: p.default for key, p in inspect.signature(define).parameters.items()}
    scalars = {key: scalar.default for key, scalar in define().scalars.items()}
    return {**layers, **scalars}


@functools.cache
def term_options() -> dict[str, dict[str, Any]]:
    """Return the scalars and layers of every term, with defaults: its keys beyond the schema's."""
    options = critics.term_scalars()
    return options | {name: options_of_factory(f) for name, f in terms.TERM_SPECS.items()}


def _entries(table: Any) -> dict[str, dict[str, Any]]:
    """Return the entries of a table that are tables; the schema checks other entries."""
    items = table.items() if isinstance(table, dict) else ()
    return {name: entry for name, entry in items if isinstance(entry, dict)}


def _refusal(error: ValidationError, plain: Mapping[str, Any]) -> str:
    """Describe the first error in one line; unknown keys come before other errors."""
    errors = error.errors(include_url=False)
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    place = schema_lookup.locate(first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {place.path}; {nearest(place.path, place.known)}"
    value: Any = plain
    for name in place.path.split("."):
        value = value[name]
    if first["type"] == "union_tag_invalid":
        known = first.get("ctx", {})["expected_tags"].replace("'", "")
        return f"{place.path}.kind is {value['kind']!r}; there are {known}"
    kinds = {e["type"] for e in errors if schema_lookup.locate(e["loc"]).path == place.path}
    if "string_too_short" in kinds:
        right = "a path that is not empty"
    elif kinds & set(_OUT_OF_BOUNDS):
        finite = "finite" if "finite_number" in kinds else ""
        right = " and ".join(filter(None, (schema_lookup.bounds_text(place.schema), finite)))
    elif first["type"] in ("model_type", "dict_type"):
        right = f"a table (a dict of {', '.join(place.known) or 'names'})"
    else:
        words = schema_lookup.type_text(place.schema)
        right = words if "literal_error" in kinds else f"of type {words}"
    return f"{place.path} is {value!r}; it must be {right}"


def nearest(path: str, known: Iterable[str], prefix: str = "") -> str:
    """Return a hint for an unknown key: the nearest known key, or all known keys."""
    known = list(known)
    table, dot, key = path.rpartition(".")
    hint = did_you_mean(key, known, prefix=f"{prefix}{table}{dot}")
    return hint.rstrip() or f"known: {', '.join(known)}"


def variants(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the config of each variant, without defaults; {"default": ...} without variants."""
    base = {key: value for key, value in config.items() if key != "variants"}
    named = config.get("variants") or {"default": {}}
    return {name: merge(base, over or {}) for name, over in named.items()}


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return a line `key: old -> new` for each value that differs between two configs.

    A table that one of them lacks is written {...}.
    """
    lines = []
    for key in sorted({*old, *new}):
        path = _join(prefix, key)
        a, b = old.get(key, "(unset)"), new.get(key, "(unset)")
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, path)
        elif a != b:
            lacks = "(unset)" in (a, b)
            texts = ("{...}" if lacks and isinstance(x, Mapping) else repr(x) for x in (a, b))
            lines.append(f"{path}: {' -> '.join(texts)}")
    return lines


def _join(prefix: str, key: str) -> str:
    return f"{prefix}.{key}" if prefix else key
