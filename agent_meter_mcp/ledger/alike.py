"""Names that nobody has heard of: often those of somebody else, mistyped."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_meter_mcp.core.roles import Caller

    from .ledger import Ledger

NAMES_READ = 1000
LEAST = 0.8
"""How much of two names has to be the same."""


async def alike(ledger: Ledger, caller: Caller, kind: str, name: str) -> str | None:
    """Of what the caller may see, the agent or service whose name looks like this one; None where none does.

    `name` itself is not known. Raises Forbidden for who may not read.
    """
    from difflib import get_close_matches

    others = [one for one in await ledger.names(caller, kind, "", NAMES_READ) if not _numbered(one, name)]
    return next(iter(get_close_matches(name, others, 1, LEAST)), None)


def _numbered(one: str, other: str) -> bool:
    """Whether they differ in numbers alone: worker-7 is not worker-8, and nobody mistyped it."""
    return _without_numbers(one) == _without_numbers(other)


def _without_numbers(name: str) -> str:
    return "".join("" if letter.isdecimal() else letter for letter in name)
