"""`reconcile`: whether an agent and a service tell the same story."""

from __future__ import annotations

import os
import re
from io import BytesIO
from string import Template
from typing import TYPE_CHECKING, Any

import click

from agent_meter_mcp.core.attest import parse
from agent_meter_mcp.core.errors import InvalidInput, MeterError, Unreachable
from agent_meter_mcp.core.figures import counted
from agent_meter_mcp.core.reconcile import Account, Compared, compare, records_in
from agent_meter_mcp.core.text import NAME_WIDTH, REASON_WIDTH, name, optional_name, shown

from . import options
from .exits import DIFFERENCES, DONE
from .exporting import decimal_text
from .table import Cell, Column, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from decimal import Decimal

    import httpx2

    from agent_meter_mcp.core.attest import Json
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger

    from .session import Session

BYTES_MAX = 256 * 1024 * 1024
PAGES_MAX = 1000
DETAIL_BYTES_MAX = 16 * 1024
TIMEOUT_S = 30
SHOWN_MAX = 50
KEY_WIDTH = 16
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""What HTTP takes for a header's name."""


@options.command(
    "reconcile",
    "agent-meter reconcile --agent coder --service-records svc.json",
    "agent-meter reconcile --agent-records mine.json --agent coder --service api",
)
@click.option("--agent-records", metavar="PLACE", help="What the agent has: a file, - or an http(s) URL.")
@click.option("--service-records", metavar="PLACE", help="What the service has: the same.")
@click.option(
    "--agent-header",
    metavar="HEADER",
    multiple=True,
    help="For the agent's URL, such as 'Authorization: Bearer $KEY': $KEY is from the environment.",
)
@click.option("--service-header", metavar="HEADER", multiple=True, help="For the service's URL: the same.")
@options.name_option("--agent", "agent", "Whose usage to take from the ledger.")
@options.name_option("--service", "service", "At which service; all, if left out.")
@options.as_json
@options.pass_session
def reconcile(session: Session, /, as_json: bool, **given: Any) -> int:
    """Compare upstream's records of an agent with those of a service, request by request.

    Records belong together by their request signature, or their id where they have none. A side that is not
    given is what the ledger has of the agent. Exit code 6 when something is on one side only or differs.
    """
    sides = given["agent_records"], given["service_records"]
    if sides == (None, None):
        raise InvalidInput("agent_records", "give it, or --service-records, or both")
    for side, field in zip(sides, ("agent_header", "service_header"), strict=True):
        if given[field] and not _is_url(side):
            raise InvalidInput(field, "is for records that are at a URL")
    if None in sides and given["agent"] is None:
        raise InvalidInput("agent", "is required: say whose usage in the ledger is one side")
    if None not in sides and (given["agent"] or given["service"]):
        raise InvalidInput("agent", "names what to take from the ledger: leave it out, both sides are given")
    agents, services = (
        _from_ledger(session, given["agent"], given["service"])
        if side is None
        else _read(side, f"{whose}_records", _headers(given[f"{whose}_header"], f"{whose}_header"))
        for side, whose in zip(sides, ("agent", "service"), strict=True)
    )
    compared = compare(agents, services)
    if as_json:
        from .document import print_document

        print_document(_document(compared))
    else:
        click.echo(_told(compared))
    return DONE if compared.agree else DIFFERENCES


def _from_ledger(session: Session, agent: str, service: str | None) -> Sequence[Json]:
    from agent_meter_mcp.core.queries import EVENTS_PAGE_MAX, EventsQuery, UsageFilter

    chosen = UsageFilter(agent=name(agent, "agent"), service=optional_name(service, "service"))

    async def ask(ledger: Ledger, caller: Caller) -> list[str]:
        from agent_meter_mcp.faces.wire.attesting import newest_usage, record_texts

        texts: list[str] = []
        async for events, _ in newest_usage(ledger, caller, EventsQuery(chosen, EVENTS_PAGE_MAX)):
            texts += await record_texts(events)
        return texts

    return [parse(text, "agent") for text in reversed(session.ask(ask))]


def _is_url(place: str | None) -> bool:
    return place is not None and place.startswith(("http://", "https://"))


def _headers(given: Sequence[str], field: str) -> dict[str, str]:
    """Their values are secrets: no error shows them, and written as $NAME no list of processes does."""
    headers: dict[str, str] = {}
    for header in given:
        title, colon, value = header.partition(":")
        if not colon or not _TOKEN.fullmatch(title):
            raise InvalidInput(
                field, "must be a name, a colon and a value, such as 'Authorization: Bearer $KEY'"
            )
        try:
            value = Template(value.strip()).substitute(os.environ)
        except KeyError as error:
            raise InvalidInput(field, f"names ${error.args[0]}, which is not in the environment") from None
        except ValueError:
            raise InvalidInput(field, "has a $ without a name after it: $NAME, or $$ for the sign") from None
        if not (value.isascii() and value.isprintable()):
            raise InvalidInput(field, f"has a value of {title} that is not printable ASCII")
        headers[title] = value
    return headers


def _read(place: str, field: str, headers: Mapping[str, str]) -> Sequence[Json]:
    if _is_url(place):
        return _fetched(place, field, headers)
    try:
        with click.open_file(place, "rb") as file:
            content = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise InvalidInput(field, f"{shown(place)} cannot be read: {error.strerror}") from None
    return _parsed(content, field)


def _parsed(content: bytes, field: str) -> Sequence[Json]:
    if len(content) > BYTES_MAX:
        raise InvalidInput(field, f"is larger than {BYTES_MAX} bytes")
    if _is_lines(content):
        return [parse(line, field) for line in _lines(content)]
    found = parse(content, field)
    return [found] if isinstance(found, dict) and "records" not in found else records_in(found, field)


def _lines(content: bytes) -> Iterator[bytes]:
    """Those that are not blank, one by one: together they would be all of it a second time."""
    return (stripped for line in BytesIO(content) if (stripped := line.strip()))


def _is_lines(content: bytes) -> bool:
    found = 0
    for line in _lines(content):
        if not (line.startswith(b"{") and line.endswith(b"}")):
            return False
        found += 1
    return found > 1


def _fetched(url: str, field: str, headers: Mapping[str, str]) -> Sequence[Json]:
    """All pages of it: `Link` leads to older ones, at the same place only, as the headers are for that."""
    import httpx2

    found: list[Json] = []
    try:
        with httpx2.Client(timeout=TIMEOUT_S, headers={"accept": "application/json", **headers}) as client:
            first = here = httpx2.URL(url)
            for _ in range(PAGES_MAX):
                with client.stream("GET", here) as response:
                    if not response.is_success:
                        raise _refused(response, field, url, headers)
                    content = BytesIO()  # to add to bytes would copy all that is there, each time
                    for chunk in response.iter_bytes():
                        content.write(chunk)
                        if content.tell() > BYTES_MAX:
                            break
                found += _parsed(content.getvalue(), field)
                following = response.links.get("next", {}).get("url")
                if following is None:
                    return found
                here = here.join(following)
                if (here.scheme, here.host, here.port) != (first.scheme, first.host, first.port):
                    raise InvalidInput(field, "leads to another host for what is older")
    except httpx2.InvalidURL as error:
        raise InvalidInput(field, f"{_public(url)} cannot be had: {shown(str(error))}") from None
    except httpx2.HTTPError as error:
        raise Unreachable(
            f"{_public(url)} cannot be had: {shown(str(error)) or type(error).__name__}"
        ) from None
    raise InvalidInput(field, f"has more than {PAGES_MAX} pages")


def _refused(response: httpx2.Response, field: str, url: str, headers: Mapping[str, str]) -> MeterError:
    """Why it does not give them, with what a problem document says, unless that repeats a secret."""
    status, why = response.status_code, ""
    try:
        problem = parse(next(response.iter_bytes(DETAIL_BYTES_MAX), b""), field)
    except InvalidInput:
        problem = None
    if isinstance(problem, dict) and isinstance(detail := problem.get("detail"), str):
        asked = response.request.url
        secrets = [
            *(value.split()[-1:] for value in headers.values()),
            [asked.password],
            asked.params.values(),
        ]
        told = any(word and word in detail for words in secrets for word in words)
        why = "" if told else f" ({shown(detail, width=REASON_WIDTH)})"
    text = f"{_public(url)} cannot be had: it answers {status}{why}"
    if status in (401, 403):
        return InvalidInput(field, f"{text}: it wants --{field.split('_')[0]}-header")
    return InvalidInput(field, text) if status < 500 else Unreachable(text)


def _public(url: str) -> str:
    """Without what may be a secret in it: a password, or a query."""
    scheme, _, rest = url.partition("://")
    return shown(f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}")


def _document(compared: Compared) -> dict[str, Any]:
    def account(one: Account) -> dict[str, Any]:
        return {**one.as_dict(), "units": _number(one.units)}

    return {
        "ok": compared.agree,
        "matched": compared.matched,
        "agent_only": [{"key": key, **account(one)} for key, one in compared.agent_only],
        "service_only": [{"key": key, **account(one)} for key, one in compared.service_only],
        "unit_differences": [
            {"key": key, "agent": account(ours), "service": account(theirs)}
            for key, ours, theirs in compared.different
        ],
    }


def _number(units: Decimal) -> int | float:
    return int(units) if units == units.to_integral_value() else float(units)


def _told(compared: Compared) -> str:
    if compared.agree:
        return f"{counted(compared.matched, 'request')}: both sides agree"
    rows: list[list[str | Cell]] = [
        [Cell("agent only", "warn"), *_named(key, one), decimal_text(one.units), "—"]
        for key, one in compared.agent_only
    ]
    rows += [
        [Cell("service only", "warn"), *_named(key, one), "—", decimal_text(one.units)]
        for key, one in compared.service_only
    ]
    rows += [
        [Cell("differs", "alarm"), *_named(key, theirs), _units(ours), _units(theirs)]
        for key, ours, theirs in compared.different
    ]
    columns = [
        Column("What"),
        Column("Request", shrinks=8),
        Column("Time", shrinks=10, drop=2),
        Column("Agent", shrinks=6, drop=1),
        Column("Operation", shrinks=8, drop=3),
        Column("Agent's units", right=True),
        Column("Service's units", right=True),
    ]
    lines = [table(columns, rows[:SHOWN_MAX])]
    if len(rows) > SHOWN_MAX:
        lines.append(f"and {len(rows) - SHOWN_MAX} more: --json has all")
    lines.append(
        f"{compared.matched - len(compared.different)} agree, {len(compared.agent_only)} agent only,"
        f" {len(compared.service_only)} service only, {len(compared.different)} differ"
    )
    return "\n".join(lines)


def _named(key: str, account: Account) -> list[str]:
    return [
        shown(key, width=KEY_WIDTH),
        shown(account.timestamp, width=NAME_WIDTH),
        shown(account.agent, width=NAME_WIDTH),
        shown(account.operation, width=NAME_WIDTH),
    ]


def _units(account: Account) -> str:
    return decimal_text(account.units) + (f" in {account.records}" if account.records > 1 else "")
