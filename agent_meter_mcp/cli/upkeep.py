"""`verify`: whether every total is what its events say."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from agent_meter_mcp.core.text import shown

from . import options
from .exits import DIFFERENCES, DONE
from .figures import counted

if TYPE_CHECKING:
    from agent_meter_mcp.core.queries import Difference

    from .session import Session


@options.command("verify", "agent-meter verify", "agent-meter --db copy.db verify --json")
@options.as_json
@options.pass_session
def verify(session: Session, as_json: bool) -> int:
    """Compute every total, counter and hold anew from the events, and name each that differs.

    It reads one snapshot and changes nothing; others may write meanwhile. Exit code 6 when something differs.
    """
    store = session.open_store()
    found: list[Difference] = []
    try:
        for difference in store.verify(_progress if sys.stderr.isatty() else None):
            found.append(difference)
            if not as_json:
                _clear()
                click.echo(
                    f"{shown(difference.view)}: {shown(difference.where)}: it says {difference.live:,}, "
                    f"the events say {difference.rebuilt:,}"
                )
    finally:
        _clear()
        store.close()
    if as_json:
        from .document import print_document

        print_document({"ok": not found, "differences": [_fields(difference) for difference in found]})
    else:
        click.echo(counted(len(found), "difference") if found else "every total agrees with its events")
    return DIFFERENCES if found else DONE


def _fields(difference: Difference) -> dict[str, Any]:
    return difference.as_dict()


def _progress(what: str, done: int, total: int) -> None:
    click.echo(f"\r{what}: {done:,} of {total:,}\x1b[K", nl=False, err=True)


def _clear() -> None:
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
