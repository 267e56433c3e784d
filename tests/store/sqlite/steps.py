"""How much SQLite does, which no busy machine changes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_meter_mcp.core.commands import Applied, Command
    from agent_meter_mcp.store.sqlite import SqliteStore
    from agent_meter_mcp.store.sqlite.driver import Connection

STEP = 20
"""So many steps of SQLite's machine are counted as one."""


@contextmanager
def counted(connection: Connection) -> Generator[list[int]]:
    """How many steps SQLite takes for what is done there meanwhile: one number, at the end."""
    taken: list[int] = []
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    connection.set_progress_handler(step, STEP)
    try:
        yield taken
    finally:
        connection.set_progress_handler(None, STEP)
    taken.append(steps)


def applied_in(store: SqliteStore, command: Command, at_us: int) -> tuple[Applied, int]:
    """What became of the command, and how much SQLite did for it."""
    with counted(store._writer.connection) as taken:  # pyright: ignore[reportPrivateUsage] - its own steps
        applied = store.apply([command], at_us)
    return applied, taken[0]
