"""A table of text cells, and three ways to show it: terminal, Markdown, HTML."""

import html
from collections.abc import Sequence
from typing import IO, NamedTuple

import rich.box
import rich.table
import rich.text
from rich.console import Console

__all__ = ["Table", "as_html", "as_markdown", "show"]


class Table(NamedTuple):
    """Text cells: `text_columns` leading columns are words, the others numbers.

    `bold` holds (row, column) of the cells to stand out, `rules` the rows that begin a new group;
    `notes` are sentences for below.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int
    bold: frozenset[tuple[int, int]] = frozenset()
    notes: tuple[str, ...] = ()
    rules: frozenset[int] = frozenset()


def show(table: Table, *, file: IO[str] | None = None) -> None:
    """Print a table for a terminal, on stdout unless told otherwise."""
    console = Console(file=file, highlight=False)
    if console.is_terminal:
        table = _fitted(table, console.width)
    else:  # a file gets whole lines, however long
        console.width = _width(table)
    grid = rich.table.Table(
        title_justify="left",
        box=rich.box.SIMPLE_HEAD,
        show_edge=False,
        collapse_padding=True,
        pad_edge=False,
    )
    grid.title = rich.text.Text(table.title)
    for index, name in enumerate(table.header):
        justify = "left" if index < table.text_columns else "right"
        grid.add_column(rich.text.Text(name), justify=justify, no_wrap=True)
    for row, cells in enumerate(table.rows):
        if row in table.rules:
            grid.add_section()
        grid.add_row(
            *(
                rich.text.Text(cell, style="bold" if (row, index) in table.bold else "")
                for index, cell in enumerate(cells)
            )
        )
    console.print(grid)
    for note in table.notes:
        console.print(note, markup=False, soft_wrap=True)


def as_markdown(table: Table) -> str:
    """Write a Markdown table with its title and notes."""
    rows = [
        [
            f"**{_markdown_cell(cell)}**" if (row, index) in table.bold else _markdown_cell(cell)
            for index, cell in enumerate(cells)
        ]
        for row, cells in enumerate(table.rows)
    ]
    rule = ["---" if i < table.text_columns else "---:" for i in range(len(table.header))]
    lines = [[_markdown_cell(name) for name in table.header], rule, *rows]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = "".join(f"\n\n{_markdown_cell(note)}" for note in table.notes)
    return f"**{_markdown_cell(table.title)}**\n\n{text}{notes}\n"


def as_html(table: Table) -> str:
    """Write an HTML table in a box of its own that scrolls sideways, then the notes."""

    def cells(names: Sequence[str], tag: str, row: int = -1) -> str:
        return "".join(
            f'<{tag} class="{"text" if index < table.text_columns else "number"}'
            f'{" best" if (row, index) in table.bold else ""}">{html.escape(name)}</{tag}>'
            for index, name in enumerate(names)
        )

    starts = [' class="start"' if row in table.rules else "" for row in range(len(table.rows))]
    body = "".join(
        f"<tr{starts[row]}>{cells(c, 'td', row)}</tr>\n" for row, c in enumerate(table.rows)
    )
    notes = "".join(f'<p class="note">{html.escape(note)}</p>\n' for note in table.notes)
    return (
        f'<div class="scroll"><table><caption>{html.escape(table.title)}</caption>\n'
        f"<thead><tr>{cells(table.header, 'th')}</tr></thead>\n"
        f"<tbody>\n{body}</tbody></table></div>\n{notes}"
    )


def _fitted(table: Table, width: int) -> Table:
    """Break the cells of a wide table at their spaces, then leave out its last columns."""
    if _width(table) <= width:
        return table
    rows = tuple(
        tuple(
            cell.replace(" ± ", "\n± ") if i >= table.text_columns else cell.replace(" ", "\n")
            for i, cell in enumerate(cells)
        )
        for cells in table.rows
    )
    table = table._replace(header=tuple(h.replace(" ", "\n") for h in table.header), rows=rows)
    kept = len(table.header)
    while kept > table.text_columns + 1 and _width(table, kept) > width:
        kept -= 1
    if kept == len(table.header):
        return table
    left_out = ", ".join(name.replace("\n", " ") for name in table.header[kept:])
    return table._replace(
        header=table.header[:kept],
        rows=tuple(cells[:kept] for cells in table.rows),
        notes=(*table.notes, f"Too wide for this window: {left_out}."),
    )


def _width(table: Table, columns: int | None = None) -> int:
    """Count the characters of the table's longest line: cells, paddings, separators."""
    lines = zip(*(table.header, *table.rows), strict=True)
    widths = [max(len(part) for cell in cells for part in cell.split("\n")) for cells in lines]
    return sum(width + 2 for width in widths[:columns])


def _markdown_cell(text: str) -> str:
    for sign in "\\|*_<`[":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")
