"""A table of text cells, for a terminal, Markdown and HTML."""

from typing import IO, NamedTuple

import rich.box
import rich.table
import rich.text
from rich.console import Console

from kdjax.report.template import render

BOLD_NOTE = "Bold: the best mean of a role, even if others are close; not for ECE."


class Table(NamedTuple):
    """Text cells: the first `text_columns` columns are words, the others numbers.

    `bold`: (row, column) of bold cells; `rules`: the rows that begin a new group; `notes`:
    sentences below the table.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int
    bold: frozenset[tuple[int, int]] = frozenset()
    notes: tuple[str, ...] = ()
    rules: frozenset[int] = frozenset()


def show(table: Table, *, file: IO[str] | None = None) -> None:
    """Print a table to `file`, by default stdout; in a terminal it is fitted to the width."""
    console = Console(file=file, highlight=False)
    if console.is_terminal:
        table = _fitted(table, console.width)
    else:  # lines of a file may have any length
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
    is_bold = console.color_system and any(c < len(table.header) for _, c in table.bold)
    for note in table.notes if is_bold else (n for n in table.notes if n != BOLD_NOTE):
        console.print(note, markup=False, soft_wrap=True)


def show_line(line: str) -> None:
    """Print a line that a terminal may wrap."""
    Console(highlight=False).print(line, markup=False, soft_wrap=True)


def as_markdown(table: Table) -> str:
    """Return a Markdown table with its title and notes."""
    return render("table.md.j2", table=table)


def as_html(table: Table) -> str:
    """Return an HTML table in a box that scrolls sideways, followed by the notes."""
    return render("table.html.j2", table=table)


def _fitted(table: Table, width: int) -> Table:
    """Break the cells of a wide table at spaces; if it is still too wide, omit its last columns."""
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
    columns = len(table.header)
    while columns > table.text_columns + 1 and _width(table, columns) > width:
        columns -= 1
    if columns == len(table.header):
        return table
    omitted = ", ".join(name.replace("\n", " ") for name in table.header[columns:])
    return table._replace(
        header=table.header[:columns],
        rows=tuple(cells[:columns] for cells in table.rows),
        notes=(*table.notes, f"Too wide for this window: {omitted}."),
    )


def _width(table: Table, columns: int | None = None) -> int:
    """Return the length of the table's longest line: cells, padding and separators."""
    lines = zip(*(table.header, *table.rows), strict=True)
    widths = [max(len(part) for cell in cells for part in cell.split("\n")) for cells in lines]
    return sum(width + 2 for width in widths[:columns])
