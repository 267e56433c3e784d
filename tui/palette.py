"""The list of all commands. It looks for them in its own time, and may be closed before it has found any."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from textual import work
from textual.command import CommandPalette
from textual.css.query import NoMatches

_GATHER: Any = CommandPalette._gather_commands  # pyright: ignore[reportPrivateUsage] - there is no other way


class Palette(CommandPalette):
    @work(exclusive=True, group=CommandPalette._GATHER_COMMANDS_GROUP)
    async def _gather_commands(self, search_value: str) -> None:
        with suppress(NoMatches):  # Textual would end the app when its list is gone meanwhile
            await _GATHER.__wrapped__(self, search_value)
