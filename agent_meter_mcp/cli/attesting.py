"""`attest`: a service's usage, signed so that others can see that nothing in it was changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agent_meter_mcp.core import attest as attesting
from agent_meter_mcp.core.errors import InvalidInput, NotFound
from agent_meter_mcp.core.figures import counted
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.core.windows import check_zone
from agent_meter_mcp.runtime import system_clock_us

from . import options
from .exits import DIFFERENCES, DONE
from .times import parse_span

if TYPE_CHECKING:
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger

    from .session import Session

BYTES_MAX = 256 * 1024 * 1024


@click.group("attest", context_settings={"help_option_names": options.HELP_NAMES})
def attest() -> None:
    """Sign usage for others, and verify what they signed."""


@options.command_of(
    attest,
    "create",
    "agent-meter attest create --service my-api --day 2026-01-31 > day.json",
    "agent-meter attest create --service my-api --window 24h",
)
@options.name_option("--service", "service", "Whose usage; its secret is in the file of secrets.")
@click.option("--day", metavar="DATE", help="All of that day, such as 2026-01-31.")
@options.span
@options.pass_session
def create(session: Session, /, service: str | None, day: str | None, **given: Any) -> None:
    """Print a service's usage, signed, as upstream's SDKs verify it.

    The secret is read from a file that you alone can read: a line under [services] in the file that
    AGENT_METER_SECRETS names.
    """
    if service is None:
        raise InvalidInput("service", "is required: say whose usage to sign")
    zone = check_zone(given["timezone"] or session.settings.timezone)
    if day is not None:
        if any(given[field] is not None for field in ("since", "until", "window")):
            raise InvalidInput("day", "give either a day, or a window, or since and until")
        from agent_meter_mcp.faces.wire.attesting import day_of

        span = day_of(day, zone)
    else:
        span = parse_span(given, zone, system_clock_us())
    secret = _secret(session, service)

    async def work(ledger: Ledger, caller: Caller) -> str:
        from agent_meter_mcp.faces.wire.attesting import attestation

        return await attestation(ledger, caller, secret, service, span)

    click.echo(session.ask(work))


@options.command_of(
    attest,
    "verify",
    "agent-meter attest verify day.json",
    "curl -s https://meter.example/day.json | agent-meter attest verify -",
)
@click.argument("file", type=options.FILE, metavar="FILE")
@options.as_json
@options.pass_session
def verify(session: Session, file: str, as_json: bool) -> int:
    """Check an attestation against the secret of its service. Exit code 6 when it is not what was signed."""
    try:
        with click.open_file(file, "rb") as opened:
            content = opened.read(BYTES_MAX + 1)
    except OSError as error:
        raise InvalidInput("file", f"{shown(file)} cannot be read: {error.strerror}") from None
    if len(content) > BYTES_MAX:
        raise InvalidInput("file", f"is larger than {BYTES_MAX} bytes")
    service = attesting.service_of(content)
    checked = attesting.verify(_secret(session, service), content)
    if as_json:
        from .document import print_document

        print_document({"ok": not checked.problems, **checked.as_dict()})
    elif checked.problems:
        click.echo("\n".join(checked.problems))
    else:
        click.echo(f"{counted(checked.records, 'record')} of {shown(service)}: what was signed")
    return DIFFERENCES if checked.problems else DONE


def _secret(session: Session, service: str) -> str:
    from agent_meter_mcp.secrets import SecretsFile

    path = session.settings.secrets
    secret = SecretsFile(path).read().services.get(service)
    if secret is None:
        raise NotFound(
            f"service {service!r} has no secret: add a line for it under [services] in {path}, with mode 600"
        )
    return secret
