"""`keys`: who is let in over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.keys import BOUND_ROLES, ROLES
from agent_meter_mcp.core.text import NAME_WIDTH, shown
from agent_meter_mcp.core.windows import parse_window, zone_of

from . import options
from .table import Cell, Column, table
from .times import exact, moment, zone_name

if TYPE_CHECKING:
    from agent_meter_mcp.core.keys import Key
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger

    from .session import Session

_NEVER = "never"
_STYLES = {"valid": "good", "expired": "warn", "revoked": "dim"}


@click.group("keys", context_settings={"help_option_names": options.HELP_NAMES})
def keys() -> None:
    """Let agents, services and people in over HTTP, each with a key of their own.

    As long as there is no key, the server listens on this machine only and takes every caller for its owner.
    From the first key on, nobody is let in without one.
    """


@options.command_of(
    keys,
    "create",
    "agent-meter keys create --role agent --agent coder --expires 30d",
    "agent-meter keys create --role service --service search --name gateway",
    "agent-meter keys create --role viewer --name dashboard",
)
@click.option(
    "--role", type=click.Choice(ROLES), required=True, metavar="ROLE", help=f"One of {', '.join(ROLES)}."
)
@options.name_option("--agent", "agent", "The agent that it is for, with those it spawned.")
@options.name_option("--service", "service", "The service that it is for.")
@click.option("--name", metavar="TEXT", help="What you call it; shown in the audit log.")
@click.option("--expires", metavar="LENGTH", help="When it ends by itself: 12h, 30d. [never]")
@options.as_json
@options.pass_session  # fmt: skip
def create_key(session: Session, /, as_json: bool, **given: Any) -> None:
    """Make a key. It goes to stdout, once; the ledger keeps only a hash of it."""
    role, bound_to = given["role"], _bound_to(given)
    lasts_us = None if given["expires"] is None else _length(given["expires"])

    async def work(ledger: Ledger, caller: Caller) -> tuple[Key, str]:
        expires_at_us = None if lasts_us is None else ledger.now_us() + lasts_us
        return await ledger.create_key(caller, role, bound_to, given["name"], expires_at_us)

    key, token = session.ask(work)
    if as_json:
        from .document import print_document

        print_document({**_document(key, "valid"), "token": token})
        return
    click.echo(token)
    ends = "" if key.expires_at_us is None else f", until {exact(key.expires_at_us)}"
    click.echo(
        f"agent-meter: note: this is shown once, so keep it now. It lets in {shown(key.holder)}{ends}. "
        f"To end it: agent-meter keys revoke {key.prefix}",
        err=True,
    )


def _bound_to(given: dict[str, Any]) -> str | None:
    """The agent or service that the role is for. Raises InvalidInput for one that it is not for."""
    for field in BOUND_ROLES:
        if given[field] is not None and field != given["role"]:
            raise InvalidInput(field, f"leave it out: a key in the role {given['role']} is for no {field}")
    return given.get(given["role"])


def _length(text: str) -> int:
    """Raises InvalidInput. A key lasts as long as the longest window does, and ends at no calendar's turn."""
    try:
        window = parse_window(text)
    except InvalidInput:
        window = None
    if window is None or window.kind != "rolling":
        raise InvalidInput("expires", "must be a length of time, such as 12h or 30d; at most 366d")
    return window.length_us


@options.command_of(keys, "list", "agent-meter keys list", "agent-meter keys list --json")
@options.timezone
@options.as_json
@options.pass_session
def list_keys(session: Session, as_json: bool, timezone: str | None) -> None:
    """All keys, without their secrets: those that are not revoked first."""
    zone = timezone or session.settings.timezone
    local_zone = zone_of(zone)

    async def work(ledger: Ledger, caller: Caller) -> tuple[list[Key], int]:
        return await ledger.keys(caller), ledger.now_us()

    found, now_us = session.ask(work)
    if as_json:
        from .document import print_document

        print_document({"keys": [_document(key, _status(key, now_us)) for key in found]})
        return
    if not found:
        click.echo("No key: the server takes every caller on this machine for its owner.")
        return

    def when(at_us: int | None) -> str:
        return _NEVER if at_us is None else moment(at_us, local_zone)

    columns = [
        Column("Key"),
        Column("Lets in", shrinks=12),
        Column("Name", shrinks=8),
        Column("Status"),
        Column(f"Last used ({zone_name(zone)})", drop=1),
        Column("Expires", drop=2),
        Column("Created", drop=3),
        Column("Id", drop=4),
    ]
    rows: list[list[str | Cell]] = [
        [
            shown(key.prefix),
            shown(key.holder, width=NAME_WIDTH),
            shown(key.name or "", width=NAME_WIDTH),
            Cell(_status(key, now_us), _STYLES[_status(key, now_us)]),
            when(key.last_used_us),
            when(key.expires_at_us),
            when(key.created_at_us),
            key.key_id,
        ]
        for key in found
    ]
    click.echo(table(columns, rows))


@options.command_of(keys, "revoke", "agent-meter keys revoke am_3kTq0aZ1")
@click.argument("key", metavar="PREFIX_OR_ID")
@options.as_json
@options.pass_session
def revoke_key(session: Session, as_json: bool, key: str) -> None:
    """End a key at once, in every running server. It cannot be taken back."""

    async def work(ledger: Ledger, caller: Caller) -> Key:
        return await ledger.revoke_key(caller, key)

    revoked = session.ask(work)
    if as_json:
        from .document import print_document

        print_document(_document(revoked, "revoked"))
        return
    click.echo(f"revoked: {shown(revoked.prefix)} no longer lets in {shown(revoked.holder)}")


def _status(key: Key, now_us: int) -> str:
    if key.revoked_at_us is not None:
        return "revoked"
    return "valid" if key.is_valid(now_us) else "expired"


def _document(key: Key, status: str) -> dict[str, Any]:
    def when(at_us: int | None) -> str | None:
        return None if at_us is None else exact(at_us)

    return {
        "key_id": key.key_id,
        "prefix": key.prefix,
        "role": key.role,
        "agent": key.bound_to if key.role == "agent" else None,
        "service": key.bound_to if key.role == "service" else None,
        "name": key.name,
        "status": status,
        "created_at": when(key.created_at_us),
        "expires_at": when(key.expires_at_us),
        "revoked_at": when(key.revoked_at_us),
        "last_used_at": when(key.last_used_us),
    }
