"""Whole sessions, as upstream's hooks write them (`spend.jsonl`) and its sync script sends them.

A session is one event, under the session's id. It may be told again when it has gone on: the last word
counts, which is a correction for the ledger.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NotRequired, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from agent_meter_mcp.core.commands import Recorded
from agent_meter_mcp.core.errors import Conflict, InvalidInput, MeterError
from agent_meter_mcp.core.models import Usage, UsageEvent, Who
from agent_meter_mcp.core.money import nano_usd
from agent_meter_mcp.core.queries import EVENTS_PAGE_MAX, EventsQuery, UsageFilter
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.intake import Report

from .fields import Several, parse_time
from .mistakes import first_mistake
from .upstream import kept_text

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import Source
    from agent_meter_mcp.ledger import Ledger

SESSIONS_MAX = 1000
OPERATION = "session_summary"
_TOLERANT = ConfigDict(strict=True, extra="ignore")
_OF_THE_FIRST = frozenset(("occurred_at", "project"))
"""What stays as it was told first: a session goes on later, and in whichever folder its agent is then."""
_MAY_DIFFER = _OF_THE_FIRST | frozenset(
    (
        "metadata", "status_code", "duration_ms", "requests", "input_tokens", "output_tokens",
        "cache_read_tokens", "cache_write_tokens", "cost_usd",
    )
)  # fmt: skip
"""What may be another when a session is told again."""

Amount = int | float | None
Text = str | None


class SyncedSession(TypedDict):
    """A session in a body of `POST /v1/sessions/batch`."""

    __pydantic_config__ = _TOLERANT  # pyright: ignore[reportGeneralTypeIssues] - pydantic's way to configure one
    id: str
    ts: str
    api: str
    model: NotRequired[Text]
    project: NotRequired[Text]
    totalCalls: NotRequired[Amount]
    tokensIn: NotRequired[Amount]
    tokensOut: NotRequired[Amount]
    cacheCreation: NotRequired[Amount]
    cacheRead: NotRequired[Amount]
    costUsd: NotRequired[Amount]
    source: NotRequired[Text]
    purpose: NotRequired[Text]
    intent: NotRequired[Several[str] | str | None]


class SpendRow(TypedDict):
    """A line of `spend.jsonl`."""

    __pydantic_config__ = _TOLERANT  # pyright: ignore[reportGeneralTypeIssues] - pydantic's way to configure one
    type: str
    ts: str
    api: str
    source: NotRequired[Text]
    model: NotRequired[Text]
    tokens_in: NotRequired[Amount]
    tokens_out: NotRequired[Amount]
    cache_creation: NotRequired[Amount]
    cache_read: NotRequired[Amount]
    cost_usd: NotRequired[Amount]
    total_calls: NotRequired[Amount]
    project: NotRequired[Text]
    purpose: NotRequired[Text]
    intent: NotRequired[Several[str] | str | None]
    key_alias: NotRequired[Text]
    session_id: NotRequired[Text]
    agent_id: NotRequired[Text]
    operation: NotRequired[Text]
    status: NotRequired[int | str | None]
    duration_ms: NotRequired[Amount]
    meta: NotRequired[dict[str, Any] | None]


SESSION = TypeAdapter(SyncedSession)
_ROW = TypeAdapter(SpendRow)
_COUNTS = ("requests", "input_tokens", "output_tokens", "cache_write_tokens", "cache_read_tokens")


def session_report(sent: object, agent: str, source: "Source") -> Report:
    """Raises InvalidInput."""
    try:
        session = cast("dict[str, Any]", SESSION.validate_python(sent))
    except ValidationError as error:
        raise first_mistake(error) from None
    fields = ("totalCalls", "tokensIn", "tokensOut", "cacheCreation", "cacheRead")
    return Report(
        Who(agent, session["api"], None, session.get("project") or None, session["id"]),
        _usage(session, fields, "costUsd"),
        session["id"],
        OPERATION,
        None,
        parse_time(session["ts"], "ts"),
        metadata=_described(session),
        usual_source=source,
    )


def spend_row(sent: object) -> dict[str, Any]:
    """A line that was read, if it is one. Raises InvalidInput."""
    try:
        row = cast("dict[str, Any]", _ROW.validate_python(sent))
    except ValidationError as error:
        raise first_mistake(error) from None
    if row["type"] not in ("api_call", OPERATION):
        raise InvalidInput("type", f"must be api_call or {OPERATION}")
    if row["type"] == OPERATION and not row.get("session_id"):
        raise InvalidInput("session_id", f"is required in a {OPERATION}")
    return row


def spend_reports(
    rows: Sequence[tuple[int, dict[str, Any]]], agent: str | None
) -> list[tuple[int, Report | InvalidInput]]:
    """What the rows of a file come to, with their numbers; `agent` is whose, where a row does not say.

    A session's last summary counts. It has in it the calls that are listed beside it, so they are taken off:
    what is left is one event.
    """
    last: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {}
    calls: dict[tuple[str, str], list[Usage]] = {}
    found: list[tuple[int, Report | InvalidInput]] = []
    repeats: dict[str, int] = {}
    for number, row in rows:
        key = (row["api"], row.get("session_id") or "")
        if row["type"] == OPERATION:
            last[key] = (number, row)
            continue
        try:
            report = _call(row, agent, repeats)
        except InvalidInput as error:
            found.append((number, error.alone()))
            continue
        found.append((number, report))
        if key[1]:
            calls.setdefault(key, []).append(report.usage)
    for key, (number, row) in last.items():
        try:
            report = _summary(row, agent, calls.get(key, ()))
        except InvalidInput as error:
            found.append((number, error.alone()))
            continue
        if report is not None:
            found.append((number, report))
    return found


def _call(row: dict[str, Any], agent: str | None, repeats: dict[str, int]) -> Report:
    """The id is made of what the row says, and of how often it has been said before."""
    text = json.dumps(row, sort_keys=True)
    number = repeats[text] = repeats.get(text, 0) + 1
    made = hashlib.sha256(f"{number}:{text}".encode()).hexdigest()[:32]
    return _row_report(row, agent, made, row.get("operation"), _row_usage(row))


def _summary(row: dict[str, Any], agent: str | None, calls: Sequence[Usage]) -> Report | None:
    """None when the calls beside it are all there was."""
    usage = _row_usage(row)
    if calls:
        counts = {
            field: None
            if (total := getattr(usage, field)) is None
            else max(total - sum(getattr(call, field) or 0 for call in calls), 0)
            for field in _COUNTS
        }
        cost = usage.cost_nano_usd
        if cost is not None:
            cost = max(cost - sum(call.cost_nano_usd or 0 for call in calls), 0)
        usage = usage.replace(**counts, cost_nano_usd=cost)
        if not any(usage.amounts):
            return None
    return _row_report(row, agent, row["session_id"], OPERATION, usage)


def _row_report(
    row: dict[str, Any], agent: str | None, event_id: str, operation: str | None, usage: Usage
) -> Report:
    whose = row.get("agent_id") or agent
    if whose is None:
        raise InvalidInput("agent", "is required: a row does not say whose usage it is")
    status = row.get("status")
    duration = row.get("duration_ms")
    return Report(
        Who(whose, row["api"], None, row.get("project") or None, row.get("session_id") or None),
        usage,
        event_id,
        operation or None,
        "import",
        parse_time(row["ts"], "ts"),
        status if isinstance(status, int) else None,
        None if duration is None else _whole(duration, "duration_ms"),
        _described(row),
    )


def _row_usage(row: dict[str, Any]) -> Usage:
    return _usage(row, ("total_calls", "tokens_in", "tokens_out", "cache_creation", "cache_read"), "cost_usd")


def _usage(parts: dict[str, Any], fields: tuple[str, ...], cost_field: str) -> Usage:
    """`fields` name calls, tokens in and out, written to the cache and read from it. Raises InvalidInput."""
    calls, read, written, cached, from_cache = (
        None if parts.get(field) is None else _whole(parts[field], field) for field in fields
    )
    cost = parts.get(cost_field)
    return Usage(
        1 if calls is None else calls,
        None,
        None,
        read,
        written,
        from_cache,
        cached,
        None,
        parts.get("model") or None,
        None if cost is None else nano_usd(cost, field=cost_field),
        "unpriced" if cost is None else "reported",
    )


def _whole(value: float, field: str) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise InvalidInput(field, "must be a whole number")
    return int(value)


def _described(parts: dict[str, Any]) -> str | None:
    fields = ("source", "purpose", "intent", "key_alias", "meta")
    kept = {field: parts[field] for field in fields if parts.get(field)}
    return kept_text(kept) if kept else None


async def record_sessions(
    ledger: "Ledger", caller: "Caller", reports: Sequence[Report]
) -> list[Recorded | MeterError]:
    """As `Ledger.record_many`. A session that has gone on since it was told corrects what was told."""
    answers = await ledger.record_many(caller, reports)
    again = [
        place
        for place, answer in enumerate(answers)
        if isinstance(answer, Conflict)
        and not _OF_THE_FIRST.isdisjoint(answer.fields)
        and _MAY_DIFFER.issuperset(answer.fields)
    ]
    if not again:
        return answers
    # A service's key reads nothing, but may correct what it may record: nothing is told of what is read here.
    reader = Caller("viewer", caller.name) if caller.role == "service" else caller
    try:
        told = await _told(ledger, reader, [reports[place] for place in again])
    except MeterError:  # the conflict stays
        return answers
    again = [place for place in again if _key(reports[place]) in told]
    corrected = await ledger.record_many(
        caller, [_as_told(reports[place], told[_key(reports[place])]) for place in again]
    )
    for place, answer in zip(again, corrected, strict=True):
        answers[place] = answer
    return answers


def _key(report: Report) -> tuple[str | None, str | None]:
    return report.who.service, report.id


def _as_told(report: Report, first: UsageEvent) -> Report:
    return report.replace(
        who=report.who.replace(project=first.who.project), occurred_at_us=first.occurred_at_us
    )


async def _told(
    ledger: "Ledger", caller: Caller, reports: Sequence[Report]
) -> dict[tuple[str | None, str | None], UsageEvent]:
    """The events under these keys."""
    ids = [report.id for report in reports if report.id is not None]
    found: dict[tuple[str | None, str | None], UsageEvent] = {}
    for start in range(0, len(ids), EVENTS_PAGE_MAX):
        wanted = tuple(ids[start : start + EVENTS_PAGE_MAX])
        async for page in ledger.event_pages(caller, EventsQuery(UsageFilter(), EVENTS_PAGE_MAX, ids=wanted)):
            found |= {(one.event.who.service, one.event.id): one.event for one in page.events}
    return found
