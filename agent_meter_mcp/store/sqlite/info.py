"""What a doctor wants to know of a ledger's file."""

from __future__ import annotations

from agent_meter_mcp.core.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .reading import Reader


class Info(Value):
    """`newest_seq` is the highest seq given out: microseconds since 1970, 0 in an empty ledger."""

    format_version: int
    journal_mode: str
    newest_seq: int
    events: int
    agents: int


def info(reader: Reader) -> Info:
    """Counts the events: with millions of them it takes a moment."""
    reader.book.refresh()
    row = reader.connection.execute(
        "SELECT user_version, (SELECT journal_mode FROM pragma_journal_mode), (SELECT count(*) FROM event),"
        " (SELECT count(*) FROM agent) FROM pragma_user_version"
    ).fetchone()
    return Info(row[0], row[1], reader.book.last, row[2], row[3])
