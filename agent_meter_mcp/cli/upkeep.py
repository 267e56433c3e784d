"""`verify`: whether every total is what its events say."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from agent_meter_mcp.core.errors import NotFound
from agent_meter_mcp.core.figures import counted
from agent_meter_mcp.core.text import shown

from . import options
from .exits import DIFFERENCES, DONE
from .table import show_progress

if TYPE_CHECKING:
    from agent_meter_mcp.core.queries import Difference

    from .session import Session


HEADER_BYTES = 100
"""Of a SQLite file: at 28 is how many pages it has, at 68 whose it is. What is newer is in its log."""


@options.command("verify", "agent-meter verify", "agent-meter --db copy.db verify --json")
@options.as_json
@options.pass_session
def verify(session: Session, as_json: bool) -> int:
    """Compute every total, counter and hold anew from the events, and name each that differs.

    It reads one snapshot and changes nothing; others may write meanwhile. Exit code 6 when something differs.
    """
    path = session.settings.db
    if not os.path.exists(path) or (os.path.isfile(path) and _is_empty(path)):  # who opens another says why
        raise NotFound(f"there is no ledger at {path}: nothing was verified.")
    store = session.open_store()
    found: list[Difference] = []
    try:
        for difference in store.verify(_progress):
            found.append(difference)
            if not as_json:
                show_progress("")
                click.echo(
                    f"{shown(difference.view)}: {shown(difference.where)}: it says {difference.live:,}, "
                    f"the events say {difference.rebuilt:,}"
                )
    finally:
        show_progress("")
        store.close()
    if as_json:
        from .document import print_document

        print_document({"ok": not found, "differences": [one.as_dict() for one in found]})
    else:
        click.echo(counted(len(found), "difference") if found else "every total agrees with its events")
    return DIFFERENCES if found else DONE


def _is_empty(path: str) -> bool:
    """No table is in it, as in a copy that has failed: opened, it would be a new ledger and all be well."""
    try:
        with open(path, "rb") as file:
            head = file.read(HEADER_BYTES)
    except OSError:
        return False  # whoever opens it says why
    one_page, nobodys = head[28:32] == b"\0\0\0\1", head[68:72] == bytes(4)
    return not head or (one_page and nobodys and not os.path.exists(f"{path}-wal"))


def _progress(what: str, done: int, total: int) -> None:
    show_progress(f"{what}: {done:,} of {total:,}")
