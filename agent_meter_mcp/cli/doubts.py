"""Names that nobody has heard of: often those of somebody else, mistyped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agent_meter_mcp.core.models import EACH

from .figures import named

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger


async def doubt(ledger: Ledger, caller: Caller, kind: str, name: str, *, alike_only: bool = False) -> str:
    """What to ask about the name of an agent or a service; "" where it is known.

    `alike_only`: only where it looks like one that is known.
    """
    if await ledger.knows(caller, kind, name):
        return ""
    from agent_meter_mcp.ledger.alike import alike

    meant = await alike(ledger, caller, kind, name)
    if alike_only and meant is None:
        return ""
    asked = "is the name right?" if meant is None else f"did you mean {named(meant)}?"
    return f"no usage of {kind} {named(name)} is known yet; {asked}"


async def doubts(ledger: Ledger, caller: Caller, given: Mapping[str, Any]) -> list[str]:
    """What to ask about the agent and the service that options name, where they look like known ones."""
    asked = [
        await doubt(ledger, caller, kind, given[kind], alike_only=True)
        for kind in ("agent", "service")
        if given[kind] not in (None, EACH)
    ]
    return [note for note in asked if note]


def say(notes: Iterable[str]) -> None:
    """On stderr, beside the answer."""
    for note in notes:
        click.echo(f"agent-meter: note: {note}", err=True)
