"""What a config can name: models, losses, critics, data, optimizers, experiments, all keys."""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdjax import data, models
from kdjax.distill import critics, terms
from kdjax.experiment.config import schema
from kdjax.train import optimizer

TABLES = {
    "": schema.DEFAULTS,
    "roles.<role>.": schema.ROLE,
    "roles.<role>.terms.<term>.": schema.TERM,
}


def vocabulary(folder: Path) -> str:
    """The lines of `kdjax list`.

    Args:
      folder: of experiments; those whose names begin with "_" are parts of others.
    """
    lines = ["models: " + ", ".join(models.names()), "", "losses (terms of a role):"]
    lines += [f"  {name:18} {_title(define)}" for name, define in terms.TERM_SPECS.items()]
    lines += ["", "critics (roles between two others):"]
    lines += [f"  {name:18} {critics.describe(name)}" for name in critics.names()]
    lines += ["", "data sets: " + ", ".join(data.known())]
    lines += ["optimizers: " + ", ".join(optimizer.DIRECTIONS), "", "experiments:"]
    lines += [
        f"  {path.as_posix():36} {_heading(path)}" for path in sorted(folder.glob("[!_]*.py"))
    ]
    lines += ["", "config keys and defaults:"]
    for prefix, table in TABLES.items():
        lines += [f"  {prefix}{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines)


def _title(define: Callable[..., Any]) -> str:
    return (define.__doc__ or "").strip().split("\n")[0]


def _heading(path: Path) -> str:
    try:
        return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]
    except (SyntaxError, ValueError) as error:
        return f"(cannot be read: {error})"
