"""What is on the screen, as files: the rows of a table for a spreadsheet, and a picture.

Their names are made of the dashboard's own words and the time, never of what an agent chose, and no file that
is there already is touched.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from agent_meter_mcp.core.errors import StoreReadOnly
from agent_meter_mcp.core.text import guarded, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from .view import Row


def csv_of(titles: Sequence[str], rows: Iterable[Row]) -> str:
    """All rows, with figures in full; text that a spreadsheet would run gets an apostrophe before it."""
    import csv

    sheet = io.StringIO()
    lines = csv.writer(sheet, lineterminator="\n")
    lines.writerow(titles)
    lines.writerows([guarded(shown(cell.full or cell.text)) for cell in row.cells] for row in rows)
    return sheet.getvalue()


def name_of(what: str, at: datetime, ending: str) -> str:
    """ "agent-meter-limits-20260131-180000.csv" """
    return f"agent-meter-{what}-{at:%Y%m%d-%H%M%S}.{ending}"


def write_new(folder: str, name: str, text: str) -> str:
    """The path under which `text` was written; where the name is taken, it gets a number.

    Raises:
        StoreReadOnly: nothing can be written there.
    """
    stem, ending = os.path.splitext(name)
    path = os.path.join(folder, name)
    number = 1
    while os.path.lexists(path):
        number += 1
        path = os.path.join(folder, f"{stem}-{number}{ending}")
    try:
        with open(path, "x", encoding="utf-8", newline="") as file:
            file.write(text)
    except OSError as error:
        raise StoreReadOnly(f"{shown(path)} cannot be written: {error.strerror}") from error
    return path
