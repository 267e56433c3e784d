"""What people and programs read: aligned tables or JSON. Agents' text never reaches a terminal as it came."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from agent_meter_mcp.core.money import usd
from agent_meter_mcp.core.text import shown

if TYPE_CHECKING:
    from pydantic import BaseModel

GAP = "  "
WIDTH_MIN = 40


def as_json(result: BaseModel | dict[str, Any]) -> None:
    """One JSON document on stdout."""
    data = result if isinstance(result, dict) else result.model_dump(mode="json")
    click.echo(json.dumps(data, ensure_ascii=True, indent=2))


def colourful() -> bool:
    """Whether colours are welcome on stdout."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def dollars(cost_nano_usd: int) -> str:
    """Two decimals, four below a cent, and never a nought where there is something."""
    amount = usd(cost_nano_usd)
    if not amount:
        return "$0.00"
    if amount >= Decimal("0.01"):
        return f"${amount:,.2f}"
    return f"${amount:.4f}" if amount >= Decimal("0.0001") else "<$0.0001"


def count(number: int) -> str:
    return f"{number:,}"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Columns as wide as they need; the first `left` are text, shortened where the terminal is too narrow."""
    cells = [[shown(cell) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(headers), *cells]) for column in range(len(headers))]
    spare = sum(widths) + len(GAP) * (len(widths) - 1) - max(terminal_width(), WIDTH_MIN)
    while spare > 0:
        widest = max(range(left), key=lambda column: widths[column])
        if widths[widest] <= 6:
            break
        widths[widest] -= 1
        spare -= 1
    click.secho(_line(headers, widths, left), bold=colourful() or None)
    for row in cells:
        click.echo(_line(row, widths, left))


def _line(cells: Sequence[str], widths: Sequence[int], left: int) -> str:
    parts = [
        shown(cell, width=width).ljust(width) if column < left else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return GAP.join(parts).rstrip()


def terminal_width() -> int:
    """Columns of the terminal; 120 where there is none."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        return int(os.environ.get("COLUMNS") or 120)
