"""Lists that are read page by page: how long a page is, and where it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agent_meter_mcp.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

cursor = click.option("--cursor", metavar="CURSOR", help="Go on where a page has ended.")


def limit(default: int, maximum: int) -> Callable[[Any], Any]:
    """The option --limit."""
    about = f"At most so many, and at most {maximum}."
    return click.option("--limit", type=int, metavar="N", default=default, show_default=True, help=about)


def page_size(size: int, maximum: int) -> int:
    """Raises InvalidInput unless it is within 1 and `maximum`."""
    if not 1 <= size <= maximum:
        raise InvalidInput("limit", f"must be between 1 and {maximum}")
    return size


def before_seq(cursor: str | None) -> int | None:
    """The place in the ledger that a cursor names. Raises InvalidInput."""
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise InvalidInput("cursor", "is none that a page ended with")
    return int(cursor)
