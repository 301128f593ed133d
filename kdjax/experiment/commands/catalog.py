"""The names that a config can use: models, losses, critics, data, optimizers, experiments, keys."""

import ast
import json
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import Any

from kdjax import data, models
from kdjax.distill import critics, terms
from kdjax.experiment.config import keys
from kdjax.experiment.config.resolve import term_options
from kdjax.train import optimizer


def vocabulary(folder: Path, topic: str | None = None) -> str:
    """Return the lines of `kdjax list`, or of `kdjax list config`.

    Args:
      folder: of experiments; those whose names begin with "_" are parts of others.
      topic: "config" for the config keys in full, None for an overview.
    """
    if topic == "config":
        return _config_keys()
    lines = ["models: " + ", ".join(models.names()), "", "losses (terms of a role):"]
    lines += [f"  {name:18} {_title(define)}" for name, define in terms.TERM_SPECS.items()]
    lines += ["", "critics (roles between two others):"]
    lines += [f"  {name:18} {critics.describe(name)}" for name in critics.names()]
    lines += ["", "data sets: " + ", ".join(data.known())]
    lines += ["optimizers: " + ", ".join(optimizer.DIRECTIONS), "", "experiments:"]
    lines += [
        f"  {path.as_posix():36} {_heading(path)}" for path in sorted(folder.glob("[!_]*.py"))
    ]
    lines += ["", "config keys and defaults (`list config` adds types, bounds and meanings):"]
    lines += [f"  {key.path} = {json.dumps(key.default)}" for key in keys.declared()]
    return "\n".join(lines)


def _config_keys() -> str:
    """Every key with type, default, bounds and meaning, table by table."""
    tables: dict[str, list[tuple[str, ...]]] = {}
    for key in [*keys.declared(), *_term_keys()]:
        table, _, name = key.path.rpartition(".")
        row = (name, key.type, json.dumps(key.default), key.bounds, key.meaning)
        tables.setdefault(table, []).append(row)
    lines = ["config keys: type, default, bounds, meaning"]
    for table, rows in tables.items():
        lines += ["", *([f"{table}."] if table else [])]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines += ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(lines)


def _term_keys() -> Iterator[keys.Key]:
    """The scalars and layers of every loss, which its term declares."""
    for name, options in term_options().items():
        scalars = terms.TERM_SPECS[name]().scalars if name in terms.TERM_SPECS else {}
        for key, default in options.items():
            bounds = _interval(scalars[key].domain) if key in scalars else ""
            path = f"roles.<role>.terms.{name}.{key}"
            yield keys.Key(path, type(default).__name__, default, bounds, "")


def _interval(domain: tuple[float, float] | None) -> str:
    """An open interval in words; one that begins below 0 holds 0, as in `terms.check_domain`."""
    if domain is None:
        return ""
    low, high = domain
    return f"{'>=' if low < 0 else '>'} {max(low, 0):g}{'' if high == inf else f' and < {high:g}'}"


def _title(define: Callable[..., Any]) -> str:
    return (define.__doc__ or "").strip().split("\n")[0]


def _heading(path: Path) -> str:
    try:
        return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]
    except (SyntaxError, ValueError) as error:
        return f"(cannot be read: {error})"
