"""Configs as plain nested dicts: defaults, overrides, and what is refused.

An experiment says only what it decides; `complete` fills in the rest, so that every key below
can be set by a flag. Roles and terms are open tables with a fixed set of keys inside.
"""

import copy
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdjax.errors import UserError
from kdjax.experiment.config.schema import ADAPTERS, DEFAULTS, OPEN, OPTIONAL, ROLE, TERM


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `over` upon `base`, deeply; dotted keys are paths.

    >>> merge({"a": {"b": 1, "c": 2}}, {"a.b": 3, "a": {"d": 4}})
    {'a': {'b': 3, 'c': 2, 'd': 4}}
    """
    found = copy.deepcopy(dict(base))
    for key, value in over.items():
        if key == "sweep" and isinstance(value or {}, Mapping):  # its keys are dotted paths
            table = {**(found.get(key) or {}), **(value or {})}
            found[key] = {path: values for path, values in table.items() if values is not None}
            continue
        head, _, rest = key.partition(".")
        if rest:
            value = {rest: value}
        if isinstance(value, Mapping) and isinstance(found.get(head, {}), Mapping):
            found[head] = merge(found.get(head, {}), value)
        else:
            found[head] = copy.deepcopy(value)
    return found


def without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the entries that a variant has set to None: that is how it removes a role or a term."""
    return {key: value for key, value in table.items() if value is not None}


def complete(
    given: Mapping[str, Any], term_scalars: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """Fill in every default.

    Args:
      given: what an experiment says.
      term_scalars: the scalars of every known term, with their defaults.
    """
    found = merge(DEFAULTS, given)
    _check_table("roles", found["roles"], "role -> player")
    roles = {}
    for name, role in without_none(found["roles"]).items():
        _check_table(f"roles.{name}", role, "model, terms, ...")
        roles[name] = merge(ROLE, role)
        _check_table(f"roles.{name}.model", roles[name]["model"], "name and options")
        _check_table(f"roles.{name}.terms", roles[name]["terms"] or {}, "loss -> its numbers")
        roles[name]["terms"] = {
            term: _complete_term(f"roles.{name}.terms.{term}", said, term_scalars.get(term, {}))
            for term, said in without_none(roles[name]["terms"] or {}).items()
        }
        _check_table(f"roles.{name}.adapters", roles[name]["adapters"] or {}, "name -> kind, ...")
        roles[name]["adapters"] = {
            adapter: _complete_adapter(f"roles.{name}.adapters.{adapter}", said)
            for adapter, said in without_none(roles[name]["adapters"] or {}).items()
        }
    return {**found, "roles": roles}


def _complete_term(path: str, said: Any, scalars: Mapping[str, float]) -> dict[str, Any]:
    _check_table(path, said, "toward, weight, ...")
    return merge({**TERM, **scalars}, said)


def _complete_adapter(path: str, said: Any) -> dict[str, Any]:
    _check_table(path, said, "kind, layer, width, ...")
    kind = said.get("kind", "linear")
    if kind not in ADAPTERS:
        raise UserError(f"{path}.kind is {kind!r}; there are {', '.join(ADAPTERS)}")
    return merge(ADAPTERS[kind], said)


def _check_table(path: str, value: Any, holds: str) -> None:
    if not isinstance(value, Mapping):
        raise UserError(f"{path} is {value!r}; it must be a table ({holds})")


def variants(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The experiment of each variant, before defaults; one called "default" if none is named."""
    base = {k: v for k, v in config.items() if k != "variants"}
    named = config.get("variants") or {}
    if not named:
        return {"default": dict(base)}
    for name, over in named.items():
        _check_table(f"variants.{name}", over or {}, "what it overrides")
    return {name: merge(base, over or {}) for name, over in named.items()}


def check(config: Mapping[str, Any], where: str = "config") -> None:
    """Refuse unknown keys and wrong types in a completed config.

    Raises:
      UserError: one line with the key, and the nearest known key or the right type.
    """
    for path, value, known in _walk(config):
        if known is _UNKNOWN:
            key = path.rpartition(".")
            near = difflib.get_close_matches(key[2], value, n=1)
            hint = (
                f"did you mean {_join(key[0], near[0])}?" if near else f"known: {', '.join(value)}"
            )
            raise UserError(f"{where}: unknown key {path}; {hint}")
        _check_type(path, value, known, where)


_UNKNOWN = object()


def _walk(config: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield (path, value, default) of all leaves; for unknown keys (path, known keys, _UNKNOWN)."""
    roles = config["roles"]
    yield from _level({k: v for k, v in config.items() if k != "roles"}, DEFAULTS, "")
    for role, player in roles.items():
        tables = ("terms", "model", "adapters")
        fixed = {k: v for k, v in player.items() if k not in tables}
        known = {k: v for k, v in ROLE.items() if k not in tables}
        yield from _level(fixed, known, f"roles.{role}", also=tables)
        yield f"roles.{role}.model.name", player["model"].get("name"), ""
        for term, said in player["terms"].items():
            # the scalars of a term are checked where its definition is known (build.py)
            own = {k: v for k, v in said.items() if k in TERM}
            yield from _level(own, TERM, f"roles.{role}.terms.{term}")
        for adapter, said in player["adapters"].items():
            yield from _level(said, ADAPTERS[said["kind"]], f"roles.{role}.adapters.{adapter}")


def _level(
    config: Mapping[str, Any], known: Mapping[str, Any], prefix: str, also: Sequence[str] = ()
) -> Iterator[tuple[str, Any, Any]]:
    for key, value in config.items():
        path = _join(prefix, key)
        if key not in known:
            yield path, [*known, *also], _UNKNOWN
        elif isinstance(known[key], Mapping) and key not in OPEN:
            if not isinstance(value, Mapping):
                yield path, value, {}
            else:
                yield from _level(value, known[key], path)
        else:
            yield path, value, known[key]


def _check_type(path: str, value: Any, known: Any, where: str) -> None:
    parts = path.split(".")
    if parts[0] == "roles":
        parts[1] = "*"
        if parts[2] == "terms":
            parts[3] = "*"
    optional = OPTIONAL.get(".".join(parts))
    if optional is not None:
        if value is None or _is(value, optional):
            return
        right = optional
    elif (
        known is None
        or _is(value, type(known))
        or (_is(known, float) and _is(value, int))
        or (_is(known, tuple) and _is(value, list))
    ):
        return
    else:
        right = type(known)
    names = " or ".join(t.__name__ for t in (right if isinstance(right, tuple) else (right,)))
    raise UserError(f"{where}: {path} is {value!r}; it must be of type {names}")


def _is(value: Any, kind: type | tuple[type, ...]) -> bool:
    """Isinstance, but a bool is no number."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if isinstance(value, bool):
        return bool in kinds
    if dict in kinds or Mapping in kinds:
        return isinstance(value, Mapping)
    return isinstance(value, kinds)


def _join(prefix: str, key: str) -> str:
    return f"{prefix}.{key}" if prefix else key


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lines `key: old -> new` for all leaves in which two configs differ."""
    found = []
    for key in sorted({*old, *new}):
        path = _join(prefix, key)
        a, b = old.get(key, "(unset)"), new.get(key, "(unset)")
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, path)
        elif a != b:
            found.append(f"{path}: {a!r} -> {b!r}")
    return found
