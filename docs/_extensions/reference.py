"""Reference pages that are generated from the code: keys, commands, losses, networks."""

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sphinx.application import Sphinx

from kdjax import cli, models
from kdjax.distill import critics, terms
from kdjax.experiment.commands import catalog_entry
from kdjax.experiment.config import schema_lookup

FOLDER = Path(__file__).resolve().parents[1] / "_generated"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield ""
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def config() -> Iterator[str]:
    """Write every key of a config, one section a table."""
    sections: dict[str, list[tuple[str, ...]]] = {}
    for key in schema_lookup.declared():
        table, _, name = key.path.rpartition(".")
        kind = ", ".join(filter(None, (key.type, key.bounds)))
        row = (_code(name), key.meaning, _code(json.dumps(key.default)), kind)
        sections.setdefault(table, []).append(row)
    for table, rows in sections.items():
        yield f"## {f'`{table}`' if table else 'The run'}"
        yield from _table(("key", "meaning", "default", "type and bounds"), rows)


def commands() -> Iterator[str]:
    """Write `--help` of the program and of each command."""
    parser = cli._parser()
    parsers = {"": parser}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            parsers |= action.choices
    for name, entry in parsers.items():
        yield f"## `{name or 'python -m kdjax'}`"
        yield from ("", "```text", entry.format_help().rstrip(), "```", "")


def losses() -> Iterator[str]:
    """Write the terms and the critics as `kdjax list NAME` prints them."""
    for name in (*terms.TERM_SPECS, *critics.names()):
        yield from _entry(name)


def networks() -> Iterator[str]:
    """Write the networks as `kdjax list NAME` prints them."""
    for name in models.names():
        yield from _entry(name)


def _entry(name: str) -> Iterator[str]:
    yield from (f"## `{name}`", "", "```text", catalog_entry.describe(name), "```", "")


PAGES = {"config": config, "commands": commands, "losses": losses, "networks": networks}


def _write(app: Sphinx) -> None:
    """Write the pages that have changed."""
    FOLDER.mkdir(exist_ok=True)
    for name, lines in PAGES.items():
        path, text = FOLDER / f"{name}.md", "\n".join(lines()) + "\n"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before the sources are read."""
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
