"""What upstream's SDKs and scripts speak: they work with only their endpoint changed.

A batch is stored as a whole at the first try, because those clients lose one that they cannot get rid of. So
a record that is wrong is named in the answer, and an agent that is over its budget gets 429 after everything
has been stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

from fastapi import APIRouter, Query, Request
from pydantic_core import to_json
from starlette.responses import Response

from agent_meter_mcp.core import check
from agent_meter_mcp.core.attest import is_same, receipt_of
from agent_meter_mcp.core.commands import Recorded
from agent_meter_mcp.core.errors import InvalidInput, MeterError, NotFound
from agent_meter_mcp.core.models import SECOND_US
from agent_meter_mcp.core.queries import EVENTS_PAGE_MAX, EventsQuery, UsageFilter
from agent_meter_mcp.core.roles import allow
from agent_meter_mcp.core.text import name, optional_name
from agent_meter_mcp.faces.wire import upstream_bodies as wire
from agent_meter_mcp.faces.wire.attesting import RECORDS_MAX, attestation, newest_usage, record_texts
from agent_meter_mcp.faces.wire.problems import MEDIA_TYPE
from agent_meter_mcp.faces.wire.sessions import SESSIONS_MAX, record_sessions, session_report

from . import CALLER, batches
from .answers import JSON, PROBLEM_SCHEMA, next_page
from .batches import Batch, id_in, list_in, read_as, read_json, retry_s, shown_id
from .openapi_bodies import body_of, list_body, records_schema, session_schema
from .ratelimit import quota_exceeded
from .signing import secrets_of, signing_of

if TYPE_CHECKING:
    from agent_meter_mcp.core.decide import Reason
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.intake import Report
    from agent_meter_mcp.ledger import Ledger

router = APIRouter(tags=["upstream"])
_PROBLEM: dict[str, Any] = {"content": {MEDIA_TYPE: {"schema": PROBLEM_SCHEMA}}}
_REFUSED: dict[int | str, dict[str, Any]] = {
    status: {**_PROBLEM, "description": text}
    for status, text in {
        400: "The body is no JSON.",
        401: "Not signed as the agent's requests have to be.",
        403: "The role may not do this.",
        422: "A value that cannot be; `field` names it.",
        503: "Nothing was written; try again after Retry-After seconds.",
    }.items()
}


@router.post(
    "/v1/usage/batch",
    openapi_extra=list_body("records", records_schema(), batches.RECORDS_MAX),
    responses={
        200: {"model": wire.BatchStored, "description": "What became of each record."},
        429: {
            **_PROBLEM,
            "description": "All is stored, and an agent in it is over a hard limit.",
        },
        **_REFUSED,
    },
)
async def record_batch(request: Request) -> Response:
    """Record usage that has happened: 1 to 1000 records, upstream's or those of `record_usage`."""
    ledger, caller = _asked(request)
    allow(caller, "use")
    signing = await signing_of(request, caller)
    batch = Batch(await request.body(), caller, signing)
    recorded = await ledger.record_many(caller, batch.reports)
    answer = batch.answer(recorded)
    headers = dict(signing.receipt()) if answer["accepted"] or answer["duplicatesIgnored"] else {}
    reasons = await batch.over(ledger, recorded)
    if reasons:
        return _over(reasons, ledger.now_us(), headers, answer)
    return Response(to_json(answer), headers=headers, media_type=JSON)


def _over(reasons: list[Reason], now_us: int, headers: dict[str, str], answer: dict[str, Any]) -> Response:
    after_s = retry_s(reasons, now_us)
    over = [reason.state for reason in reasons if reason.state is not None]
    states = {(state.limit.limit_id, state.scope): state for state in over}.values()
    response = quota_exceeded(
        "Everything is stored. An agent in this batch is over a limit, and should stop."
        f" Send more in {after_s} s.",
        states,
        violated=states,
        retry_after_us=after_s * SECOND_US,
        **answer,
    )
    response.headers.update(headers)
    return response


@router.get(
    "/v1/usage/me",
    responses={
        200: {"model": list[wire.AttestedRecord], "description": "A bare list of upstream's records."},
        **{status: _REFUSED[status] for status in (403, 422, 503)},
    },
)
async def usage_of_agent(
    request: Request,
    agent_id: Annotated[
        str | None, Query(description="Left out: the agent that the key is bound to.")
    ] = None,
    service_id: Annotated[str | None, Query(description="Only at this service.")] = None,
    limit: Annotated[int, Query(ge=1, le=RECORDS_MAX)] = RECORDS_MAX,
    cursor: Annotated[str | None, Query(description="From the Link header of the newer page.")] = None,
) -> Response:
    """The newest usage of an agent, in the order in which it was recorded. Link leads to what is older."""
    ledger, caller = _asked(request)
    agent = agent_id if agent_id is not None else _agent_of(caller)
    if agent is None:
        raise InvalidInput("agent_id", "is required: say whose usage")
    chosen = UsageFilter(agent=name(agent, "agent_id"), service=optional_name(service_id, "service_id"))
    query = EventsQuery(chosen, min(limit, EVENTS_PAGE_MAX), check.before_seq(cursor))
    texts: list[str] = []
    older: int | None = None
    async for events, following in newest_usage(ledger, caller, query):
        room = limit - len(texts)
        texts += await record_texts(events[:room])
        older = events[room - 1].seq if len(events) > room else following
        if len(texts) == limit:
            break
    headers = next_page(request, None if older is None or len(texts) < limit else str(older))
    return Response(f"[{','.join(reversed(texts))}]", headers=headers, media_type=JSON)


@router.post(
    "/v1/receipts/verify",
    openapi_extra=body_of(wire.VerifyReceipt),
    response_model=wire.ReceiptVerified,
    responses={
        404: {**_PROBLEM, "description": "No receipts are given here."},
        **{status: _REFUSED[status] for status in (400, 422, 503)},
    },
)
async def verify_receipt(request: Request) -> object:
    """Whether this meter has given that receipt (`X-Usage-Receipt`) for a request with that signature."""
    sent = read_as(wire.VerifyReceipt, await request.body())
    secret = (await secrets_of(request)).receipt
    if secret is None:
        raise NotFound("this server gives no receipts: its file of secrets has no `receipt`")
    return wire.ReceiptVerified(valid=is_same(receipt_of(secret, sent.request_signature), sent.receipt))


@router.post(
    "/v1/attestations",
    responses={
        200: {"model": wire.Attestation, "description": "Upstream's attestation."},
        404: {**_PROBLEM, "description": "The service has no secret."},
        **{status: _REFUSED[status] for status in (400, 403, 422, 503)},
    },
    openapi_extra=body_of(wire.Attest),
)
async def attest_usage(request: Request) -> Response:
    """Sign a service's usage of a day, of a stretch of time, or with these ids, for upstream's SDKs."""
    ledger, caller = _asked(request)
    allow(caller, "read")
    sent = read_as(wire.Attest, await request.body())
    span = sent.span(request.app.state.timezone)
    name(sent.service, "service")
    secret = (await secrets_of(request)).services.get(sent.service)
    if secret is None:
        raise NotFound(
            f"service {sent.service!r} has no secret: the operator adds one under [services] in the file of"
            " secrets"
        )
    text = await attestation(ledger, caller, secret, sent.service, span, sent.ids)
    return Response(text, media_type=JSON)


@router.post(
    "/v1/sessions/batch",
    openapi_extra=list_body("sessions", session_schema(), SESSIONS_MAX, "agentName"),
    responses={
        200: {"model": wire.SessionsStored, "description": "What became of them."},
        **_REFUSED,
    },
)
async def record_session_batch(request: Request) -> Response:
    """Record whole sessions, as upstream's sync script sends them. Told again, a session is corrected."""
    ledger, caller = _asked(request)
    allow(caller, "use")
    signing = await signing_of(request, caller)
    sent = read_json(await request.body())
    sessions = list_in(sent, "sessions", SESSIONS_MAX)
    agent = cast("dict[str, Any]", sent).get("agentName") or _agent_of(caller)
    if not isinstance(agent, str):
        raise InvalidInput("agentName", "is required: say whose sessions these are")
    reports: list[Report] = []
    answers: list[MeterError | None] = []
    for session in sessions:
        try:
            report = session_report(session, agent, "self" if caller.role == "agent" else "import")
            signing.check(caller, report)
        except MeterError as error:
            answers.append(error.alone())
        else:
            answers.append(None)
            reports.append(report)
    recorded = iter(await record_sessions(ledger, caller, reports))
    found = [answer or next(recorded) for answer in answers]
    stored = [answer.status for answer in found if isinstance(answer, Recorded)]
    body = {
        "accepted": len(stored) - stored.count("duplicate"),
        "duplicatesIgnored": stored.count("duplicate"),
        "rejected": [
            {"index": index, "id": shown_id(id_in(sessions[index])), "error": str(answer)}
            for index, answer in enumerate(found)
            if isinstance(answer, MeterError)
        ],
    }
    return Response(to_json(body), headers=dict(signing.receipt()) if stored else {}, media_type=JSON)


@router.get("/v1/sessions/status")
async def sessions_status(request: Request) -> wire.SessionsStatus:
    """Whether the key is good: upstream's setup asks before it stores one."""
    _, caller = _asked(request)
    allow(caller, "use")
    return wire.SessionsStatus(ok=True, role=caller.role, agent=_agent_of(caller))


def _asked(request: Request) -> tuple[Ledger, Caller]:
    return request.app.state.ledger, request.scope[CALLER]


def _agent_of(caller: Caller) -> str | None:
    """Whose usage it is where nobody says so. What a service's key is bound to is no agent."""
    return caller.default_agent or (caller.bound_to if caller.role == "agent" else None)
