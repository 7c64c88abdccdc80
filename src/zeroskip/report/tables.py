"""Tables that fit 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text


def facts(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    """Two columns, names and values, without a head."""
    grid = Table(
        title=title, title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False
    )
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, Text(value))
    return grid


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str = "",
    footer: Sequence[str] = (),
    left: int = 1,
) -> Table:
    """Rows under a head; the first `left` columns are text, the rest numbers (right-aligned)."""
    view = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_footer=bool(footer),
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
        padding=(0, 1),
    )
    body = [list(row) for row in rows]
    for index, name in enumerate(columns):
        end = footer[index] if footer else ""
        if index < left:
            view.add_column(name, footer=Text(end), overflow="ellipsis", no_wrap=True)
        else:
            width = max(len(name), len(end), *(len(row[index]) for row in body), 0)
            view.add_column(name, footer=Text(end), justify="right", no_wrap=True, min_width=width)
    for row in body:
        view.add_row(*(Text(cell) for cell in row))
    return view
