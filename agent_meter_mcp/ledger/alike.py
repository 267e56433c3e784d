"""Names that nobody has heard of: often those of somebody else, mistyped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import to_thread

if TYPE_CHECKING:
    from agent_meter_mcp.core.roles import Caller

    from .ledger import Ledger

NAMES_READ = 1000
COMPARED_MAX = 50
"""So many names that have nearly the same letters are compared closely: that takes half a millisecond each
where they are as long as names may be, and agents choose them."""
LEAST = 0.8
"""How much of two names has to be the same."""


async def alike(ledger: Ledger, caller: Caller, kind: str, name: str) -> str | None:
    """Of what the caller may see, the agent or service whose name looks like this one; None where none does.

    `name` itself is not known. Raises Forbidden for who may not read.
    """
    names = await ledger.names(caller, kind, "", NAMES_READ)
    return await to_thread.run_sync(_closest, name, names)


def _closest(name: str, names: list[str]) -> str | None:
    from difflib import SequenceMatcher, get_close_matches

    others = [
        one
        for one in names
        if not _numbered(one, name) and SequenceMatcher(None, one, name).quick_ratio() >= LEAST
    ]
    return next(iter(get_close_matches(name, others[:COMPARED_MAX], 1, LEAST)), None)


def _numbered(one: str, other: str) -> bool:
    """Whether they differ in numbers alone: worker-7 is not worker-8, and nobody mistyped it."""
    return _without_numbers(one) == _without_numbers(other)


def _without_numbers(name: str) -> str:
    return "".join("" if letter.isdecimal() else letter for letter in name)
