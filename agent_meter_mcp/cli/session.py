"""What one command works with: the settings, who it acts for, and the ledger."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

import click

from agent_meter_mcp.core.text import shown
from agent_meter_mcp.runtime import open_ledger, process_caller
from agent_meter_mcp.runtime import open_store as open_store_of
from agent_meter_mcp.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger
    from agent_meter_mcp.settings import Settings
    from agent_meter_mcp.store.sqlite import SqliteStore

T = TypeVar("T")


class Session:
    """`options` are variables that the command line has set: they come before the environment."""

    def __init__(self) -> None:
        self.options: dict[str, str] = {}
        self._settings: Settings | None = None

    @property
    def settings(self) -> Settings:
        """Raises InvalidInput when a variable cannot be what it is."""
        if self._settings is None:
            self._settings = load_settings(options=self.options)
        return self._settings

    @property
    def caller(self) -> Caller:
        """The owner of this process, or the agent that it is bound to."""
        return process_caller(self.settings)

    def ask(self, work: Callable[[Ledger, Caller], Awaitable[T]]) -> T:
        """What `work` answers, with the ledger open around it. Raises what `work` and StoreError say."""
        import anyio

        _log_in_lines()
        self.announce_new_file()

        async def run() -> T:
            async with open_ledger(self.settings) as ledger:
                return await work(ledger, self.caller)

        return anyio.run(run)

    def open_store(self) -> SqliteStore:
        """Raises StoreError."""
        self.announce_new_file()
        return open_store_of(self.settings)

    def announce_new_file(self) -> None:
        """A mistyped path must not look like a ledger without usage."""
        if not os.path.exists(self.settings.db) and os.path.isdir(os.path.dirname(self.settings.db) or "."):
            click.echo(f"agent-meter: making a new ledger, {shown(self.settings.db)}", err=True)


def _log_in_lines() -> None:
    """What the ledger logs is a line on stderr, without a traceback."""
    import logging

    class Line(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return f"agent-meter: {shown(record.getMessage())}"

    handler = logging.StreamHandler()
    handler.setFormatter(Line())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
