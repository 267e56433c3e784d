"""Tables: for a terminal with a rule, colours and no line broken; for a pipe plain, and nothing cut off.

One layout for both. It is drawn here and not with `rich`, whose import costs as much as a whole report.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from agent_meter_mcp.core.figures import UNKNOWN, percent, shortened, width_of

if TYPE_CHECKING:
    from collections.abc import Sequence

GAP = "  "
LEAST = 3
"""A shortened column keeps so much."""
PROGRESS_WIDTH = 60
_STYLES: dict[str, dict[str, Any]] = {
    "alarm": {"fg": "red", "bold": True},
    "warn": {"fg": "yellow"},
    "good": {"fg": "green"},
    "dim": {"dim": True},
}


class Column(NamedTuple):
    """`shrinks` is the width (in cells) to which it may be shortened, 0: not at all.

    Columns with a `drop` above 0 are left out when all cannot fit, the highest first; a `spare` one before
    any other is shortened, one with a `last` above 0 only where all that can be shortened is not enough. A
    `rare` one is left out where no row has anything in it.
    """

    title: str
    right: bool = False
    shrinks: int = 0
    drop: int = 0
    spare: bool = False
    last: int = 0
    rare: bool = False


class Cell(NamedTuple):
    """`style` is alarm, warn, good, dim or nothing."""

    text: str
    style: str = ""


def screen_width() -> int | None:
    """Columns of the terminal, or of COLUMNS; None where there is no bound."""
    if not is_terminal() and not os.environ.get("COLUMNS", "").isdigit():
        return None
    return max(shutil.get_terminal_size().columns, 20)


def is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def has_colours() -> bool:
    """Colours are for a terminal whose owner wants them (NO_COLOR)."""
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def show_progress(text: str) -> None:
    """For a person: a line on stderr that the next one overwrites. An empty text takes it away."""
    if sys.stderr.isatty():
        click.echo(f"\r{text:<{PROGRESS_WIDTH}}" + ("" if text else "\r"), nl=False, err=True)


def fullness(full: float) -> Cell:
    """How full a limit is, in percent."""
    return Cell(percent(full), "alarm" if full >= 100 else "warn" if full >= 80 else "")


def styled(text: str, style: str) -> str:
    """The text in the style's colours, where there are colours."""
    return click.style(text, **_STYLES[style]) if style and has_colours() else text


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[str | Cell]], total: Sequence[str | Cell] | None = None
) -> str:
    """The lines of a table. What is in the cells has been made harmless. `total` is its last row."""
    body = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    if total is not None:
        body.append([cell if isinstance(cell, Cell) else Cell(cell) for cell in total])
    told = [
        index
        for index, column in enumerate(columns)
        if not column.rare or any(row[index].text not in ("", UNKNOWN) for row in body)
    ]
    columns, body = [columns[index] for index in told], [[row[index] for index in told] for row in body]
    natural = [
        max([width_of(column.title), *(width_of(row[index].text) for row in body)])
        for index, column in enumerate(columns)
    ]
    widths = _fitted(columns, natural, screen_width())
    head = _line(columns, [Cell(column.title) for column in columns], widths)
    lines = [_line(columns, row, widths) for row in body]
    if is_terminal():
        rule = styled("─" * (sum(widths.values()) + len(GAP) * (len(widths) - 1)), "dim")
        head = click.style(head, bold=True) if has_colours() else head
        lines.insert(0, rule)
        if total is not None:
            lines.insert(-1, rule)
    return "\n".join([head, *lines])


def _fitted(columns: Sequence[Column], natural: Sequence[int], screen: int | None) -> dict[int, int]:
    """Column number to width, of the columns that are shown."""
    kept = list(range(len(columns)))
    if screen is not None and sum(natural) + _gaps(kept) > screen:
        kept = [index for index in kept if not columns[index].spare]
    if screen is None:
        return {index: natural[index] for index in kept}
    floors = [min(size, column.shrinks or size) for column, size in zip(columns, natural, strict=True)]
    _drop(kept, floors, [column.drop for column in columns], screen)
    hard = [
        min(size, LEAST if column.shrinks else size) for column, size in zip(columns, natural, strict=True)
    ]
    _drop(kept, hard, [column.last for column in columns], screen)
    widths = {index: natural[index] for index in kept}
    for floor in (floors, hard):
        _shrink(widths, floor, columns, screen - _gaps(kept))
    return widths


def _gaps(kept: Sequence[int]) -> int:
    return len(GAP) * (len(kept) - 1)


def _drop(kept: list[int], floors: Sequence[int], order: Sequence[int], screen: int) -> None:
    """Takes away columns, those highest in `order` first, until the others fit at their `floors`."""
    while sum(floors[index] for index in kept) + _gaps(kept) > screen:
        droppable = [index for index in kept if order[index]]
        if not droppable:
            return
        kept.remove(max(droppable, key=lambda index: order[index]))


def _shrink(widths: dict[int, int], floor: Sequence[int], columns: Sequence[Column], room: int) -> None:
    """Takes from the widest, cell by cell, as long as there is one to take from."""
    while sum(widths.values()) > room:
        wide = [index for index in widths if columns[index].shrinks and widths[index] > floor[index]]
        if not wide:
            return
        widths[max(wide, key=lambda index: widths[index])] -= 1


def _line(columns: Sequence[Column], cells: Sequence[Cell], widths: dict[int, int]) -> str:
    parts: list[str] = []
    last = max(widths)
    for index, width in widths.items():
        text = shortened(cells[index].text, width)
        padding = " " * (width - width_of(text))
        shown = styled(text, cells[index].style)
        if columns[index].right:
            parts.append(padding + shown)
        else:
            parts.append(shown if index == last else shown + padding)
    return GAP.join(parts).rstrip()
