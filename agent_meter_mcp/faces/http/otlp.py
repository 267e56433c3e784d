"""OpenTelemetry over HTTP, with JSON: what agents and their programs export of themselves.

An exporter tries again after a 503, and drops what gets any other error. So usage is stored whether or not
it is over a limit, and a record that is wrong is told beside the others, which are stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Response
from pydantic_core import to_json
from starlette.requests import Request

from agent_meter_mcp.core.errors import Conflict, InvalidInput, MeterError, StoreFull
from agent_meter_mcp.core.roles import allow
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.faces.errors import text_of
from agent_meter_mcp.faces.wire.otlp import Logs, LogsTaken, MeterReadings, MetricsTaken, Traces, TracesTaken
from agent_meter_mcp.faces.wire.problems import Refused, problem
from agent_meter_mcp.faces.wire.telemetry import Sender, log_reports, span_reports
from agent_meter_mcp.intake import Report

from .answers import JSON
from .asking import Asked
from .batches import RECORDS_MAX, M, read_as
from .openapi_bodies import body_of
from .signing import agent_in, signing_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.faces.wire.calls import Call

    from .signing import Signing

router = APIRouter(tags=["otlp"])
MESSAGE_WIDTH = 500
STORE_FULL_RETRY_S = "30"
_USED = frozenset(
    (
        "agent", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens",
        "cache_write_1h_tokens",
    )
)  # fmt: skip
"""Two ways to tell of a call differ in other things."""


@router.post("/v1/logs", response_model=LogsTaken, openapi_extra=body_of(Logs))
async def take_logs(call: Asked, request: Request) -> Response:
    """OTLP log records as JSON. The events of Claude Code, Codex and Gemini CLI about their calls of a model
    are metered, all others are passed over."""
    allow(call.caller, "use")
    signing = await signing_of(request, call.caller)
    reports = log_reports(await _read(Logs, request), _sender(call.caller, request))
    return await _recorded(call, signing, reports, "rejectedLogRecords")


@router.post("/v1/traces", response_model=TracesTaken, openapi_extra=body_of(Traces))
async def take_traces(call: Asked, request: Request) -> Response:
    """OTLP spans as JSON. Those that tell of tokens by the semantic conventions for generative AI are
    metered, all others are passed over."""
    allow(call.caller, "use")
    signing = await signing_of(request, call.caller)
    reports = span_reports(await _read(Traces, request), _sender(call.caller, request))
    return await _recorded(call, signing, reports, "rejectedSpans")


@router.post("/v1/metrics", response_model=MetricsTaken, openapi_extra=body_of(MeterReadings))
async def take_metrics(call: Asked, request: Request) -> Response:
    """OTLP metrics as JSON are taken and not metered: they are sums of the calls that the same programs tell
    in their logs, without the ids by which a call counts once."""
    allow(call.caller, "use")
    await _read(MeterReadings, request)
    return Response(b"{}", media_type=JSON)


async def _read(kind: type[M], request: Request) -> M:
    """Raises Refused, InvalidInput."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != JSON:
        raise Refused(
            problem(
                415,
                "Unsupported media type",
                "Content-Type must be application/json: set OTEL_EXPORTER_OTLP_PROTOCOL=http/json where the"
                " telemetry comes from. Nothing was written.",
                headers={"Accept": JSON},
                code="unsupported_media_type",
            )
        )
    return read_as(kind, await request.body())


def _sender(caller: Caller, request: Request) -> Sender:
    if caller.role == "agent":
        return Sender("self", caller.bound_to)
    return Sender("otlp", usual=agent_in(request) or caller.default_agent)


async def _recorded(
    call: Call, signing: Signing, reports: Sequence[Report | InvalidInput], field: str
) -> Response:
    """The answer, once all that can be is stored. Raises Refused, and what the store raises."""
    rejected: list[MeterError] = []
    good: list[Report] = []
    for report in reports:
        try:
            if isinstance(report, InvalidInput):
                raise report
            signing.check(call.caller, report)
        except MeterError as error:
            rejected.append(error.alone())
        else:
            good.append(report)
    try:
        for start in range(0, len(good), RECORDS_MAX):
            answers = await call.ledger.record_many(call.caller, good[start : start + RECORDS_MAX])
            rejected += [
                answer for answer in answers if isinstance(answer, MeterError) and not _is_known(answer)
            ]
    except StoreFull as error:
        # What it is elsewhere, 507, makes an exporter drop all of it.
        headers = {"Retry-After": STORE_FULL_RETRY_S}
        raise Refused(problem(503, "Store full", text_of(error), headers=headers, code=error.code)) from None
    answer: dict[str, Any] = {}
    if rejected:
        message = shown(str(rejected[0]), width=MESSAGE_WIDTH)
        answer["partialSuccess"] = {field: str(len(rejected)), "errorMessage": message}
    return Response(to_json(answer), headers=dict(signing.receipt()) if good else {}, media_type=JSON)


def _is_known(error: MeterError) -> bool:
    """Whether the same usage was told before by another way, such as a transcript: then it has been
    counted."""
    return isinstance(error, Conflict) and "source" in error.fields and _USED.isdisjoint(error.fields)
