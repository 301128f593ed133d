"""Lists of the names and keys of a config: models, losses, critics, data sets, experiments."""

import ast
import json
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kdjax import data, models
from kdjax.distill import critics, terms
from kdjax.distill.terms.spec import domain_text
from kdjax.experiment.config import schema_lookup
from kdjax.experiment.config.resolve import term_options
from kdjax.train import optimizer

WIDTH = 100  # columns of a terminal
_NO_BREAK = "\xa0"


def vocabulary(folder: Path) -> str:
    """Return the lines of `kdjax list`.

    Args:
      folder: the folder of experiments; files with names that begin with "_" are not listed.
    """
    experiments = {path.as_posix(): _heading(path) for path in sorted(folder.glob("[!_]*.py"))}
    defaults = [f"  {key.path} = {json.dumps(key.default)}" for key in schema_lookup.declared()]
    lines = [
        *_wrap("models: ", ", ".join(models.names())),
        "",
        loss_names(),
        "",
        *_wrap("data sets: ", ", ".join(data.known())),
        *_wrap("optimizers: ", ", ".join(optimizer.DIRECTIONS)),
        *_section("experiments:", experiments),
        "",
        "config keys and defaults (`list config` adds types, bounds and meanings):",
        *defaults,
    ]
    return "\n".join(lines)


def loss_names() -> str:
    """Return the lines of `kdjax list losses`: one for each term and critic, not wrapped."""
    tables = {
        "losses (terms of a role):": {n: _title(define) for n, define in terms.TERM_SPECS.items()},
        "critics (roles between two others):": {n: critics.describe(n) for n in critics.names()},
    }
    column = max(len(name) for rows in tables.values() for name in rows)
    lines = []
    for heading, rows in tables.items():
        lines += ["", heading, *(f"  {name:{column}}  {text}" for name, text in rows.items())]
    return "\n".join(lines[1:])


def config_keys() -> str:
    """Return the lines of `kdjax list config`: default, meaning, type and bounds of every key."""
    tables: dict[str, dict[str, str]] = {}
    for key in schema_lookup.declared():
        table, _, name = key.path.rpartition(".")
        row = f"{name} = {json.dumps(key.default)}"
        tables.setdefault(table, {})[row] = f"{key.meaning} {_kind(key.type, key.bounds)}"
    lines = ["config keys and defaults: meaning [type, bounds]"]
    for table, rows in tables.items():
        lines += _section(f"{table}.", rows) if table else _section("", rows)[2:]
    lines += _section("roles.<role>.terms.<term>. of each loss or critic:", dict(_term_keys()))
    return "\n".join(lines)


def _term_keys() -> Iterator[tuple[str, str]]:
    """Yield the name of every loss, and the scalars and layers of its term."""
    for name, options in term_options().items():
        scalars = terms.TERM_SPECS[name]().scalars if name in terms.TERM_SPECS else {}
        entries = [
            f"{key} = {json.dumps(default)} "
            + _kind(type(default).__name__, domain_text(scalars[key]) if key in scalars else "")
            for key, default in options.items()
        ]
        if entries:
            yield name, "; ".join(entries)


def _kind(*parts: str) -> str:
    """Return a type and bounds in brackets, with no-break spaces."""
    return f"[{', '.join(filter(None, parts))}]".replace(" ", _NO_BREAK)


def _section(heading: str, rows: Mapping[str, str]) -> list[str]:
    """Return an empty line, a heading and its rows: a label and a wrapped text."""
    column = max(map(len, rows), default=0)
    lines = [line for label, text in rows.items() for line in _wrap(f"  {label:{column}}  ", text)]
    return ["", heading, *lines]


def _wrap(label: str, text: str) -> list[str]:
    indent = " " * len(label)
    lines = textwrap.wrap(f"{label}{text}", WIDTH, subsequent_indent=indent, break_on_hyphens=False)
    return [line.replace(_NO_BREAK, " ") for line in lines]


def _title(define: Callable[..., Any]) -> str:
    return (define.__doc__ or "").strip().split("\n")[0]


def _heading(path: Path) -> str:
    try:
        return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
    except (SyntaxError, ValueError) as error:
        return f"(cannot be read: {error})"
