"""OpenTelemetry over HTTP, with what Claude Code 2.1.330, Codex 0.169 and Gemini CLI 0.61 really send."""

from __future__ import annotations

import copy
import gzip
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from anyio import to_thread
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.models import LimitKey, Subject
from agent_meter_mcp.core.queries import EventsQuery, UsageFilter
from agent_meter_mcp.faces.wire.otlp import Logs, Traces
from agent_meter_mcp.faces.wire.telemetry import RECORDS_MAX, Sender, log_reports, span_reports
from agent_meter_mcp.intake import Intake, Report
from agent_meter_mcp.ledger import Ledger
from agent_meter_mcp.prices import PriceBook
from agent_meter_mcp.runtime import new_id
from agent_meter_mcp.store.sqlite import open_store
from tests.clients.serving import running_server
from tests.faces.conftest import BOT, NOON_US, OPERATOR, SERVICE, VIEWER, ManualClock, Meter

from .conftest import Site, problem_in, use

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import StoredEvent
    from agent_meter_mcp.core.roles import Caller

NOON_NS = NOON_US * 1000
LOGS, TRACES, METRICS = "/v1/logs", "/v1/traces", "/v1/metrics"
CLAUDE_SESSION = "684568a8-9ac5-43ef-b35c-80355325604d"


def text_of(name: str) -> str:
    """A capture."""
    return (Path(__file__).parent / "captures" / f"{name}.json").read_text(encoding="utf-8")


def capture(name: str) -> dict[str, Any]:
    return json.loads(text_of(name))


def records_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    return body["resourceLogs"][0]["scopeLogs"][0]["logRecords"]


def attributes(**values: Any) -> list[dict[str, Any]]:
    """`gen_ai__usage` is gen_ai.usage: names have dots."""
    kinds = {bool: "boolValue", int: "intValue", float: "doubleValue", str: "stringValue"}
    return [
        {"key": key.replace("__", "."), "value": {kinds[type(value)]: value}} for key, value in values.items()
    ]


def set_attribute(record: dict[str, Any], key: str, value: Any) -> None:
    """None takes it out."""
    record["attributes"] = [one for one in record["attributes"] if one["key"] != key]
    if value is not None:
        record["attributes"] += attributes(**{key: value})


CHAT: dict[str, Any] = {
    "gen_ai__operation__name": "chat",
    "gen_ai__provider__name": "openai",
    "gen_ai__request__model": "gpt-5",
    "gen_ai__response__model": "gpt-5-2025-08-07",
    "gen_ai__usage__input_tokens": 1000,
    "gen_ai__usage__output_tokens": 50,
    "gen_ai__usage__cache_read__input_tokens": 600,
    "gen_ai__conversation__id": "conv-1",
}


def span(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A call of a model; an attribute that is None is left out."""
    values = {key: value for key, value in (CHAT | changes).items() if value is not None}
    return {
        "traceId": "5B8EFFF798038103D269B633813FC60C",
        "spanId": f"{number:016x}",
        "name": "chat gpt-5",
        "kind": 3,
        "startTimeUnixNano": str(NOON_NS - 2_500_000_000),
        "endTimeUnixNano": str(NOON_NS - 1_000_000_000),
        "attributes": attributes(**values),
        "status": {},
    }


def traces(*spans: Any, **resource: Any) -> dict[str, Any]:
    named = attributes(**({"service__name": "researcher"} | resource))
    return {"resourceSpans": [{"resource": {"attributes": named}, "scopeSpans": [{"spans": list(spans)}]}]}


async def export(
    site: Site, path: str, body: Any, caller: Caller = OPERATOR, **headers: str
) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with site.client(caller) as client:
        return await client.post(path, json=body, headers=named)


async def taken(site: Site, path: str, body: Any, caller: Caller = OPERATOR, **headers: str) -> None:
    """All of it."""
    answer = await export(site, path, body, caller, **headers)
    assert (answer.status_code, answer.text) == (200, "{}")
    assert answer.headers["content-type"] == "application/json"


async def rejected(site: Site, path: str, body: Any, caller: Caller = OPERATOR) -> tuple[str, str]:
    """How many, and why."""
    answer = await export(site, path, body, caller)
    assert answer.status_code == 200, answer.text
    (field,) = answer.json()
    assert field == "partialSuccess"
    count, message = answer.json()[field].items()
    assert count[0] == {LOGS: "rejectedLogRecords", TRACES: "rejectedSpans"}[path]
    return count[1], message[1]


async def events(site: Site) -> list[StoredEvent]:
    """Oldest first."""
    page = await site.meter.ledger.events(OPERATOR, EventsQuery(UsageFilter()))
    return list(reversed(page.events))


async def only_event(site: Site) -> StoredEvent:
    (found,) = await events(site)
    return found


# -- what the agents send ------------------------------------------------------------------------------------


async def test_a_call_of_claude_code_is_metered_under_the_id_of_its_request(site: Site) -> None:
    await taken(site, LOGS, capture("claude-code"))
    first, second = await events(site)
    event, usage = first.event, first.event.usage
    assert (event.id, event.source, event.operation, event.duration_ms) == (
        "req_011sim0001",
        "otlp",
        "sdk",
        235,
    )
    assert event.who == event.who.replace(
        agent="build-bot", service="anthropic", parent=None, project=None, session=CLAUDE_SESSION
    )
    assert event.occurred_at_us == 1_795_465_131_445_000
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == (12, 159, 15_555)
    assert (usage.cache_write_tokens, usage.cache_write_1h_tokens) == (400, 5000)
    assert (usage.model, usage.cost_nano_usd, usage.cost_source) == (
        "claude-opus-5-5",
        48_339_000,
        "reported",
    )
    assert (second.event.id, second.event.operation) == ("req_011sim0002", "agent:builtin:Explore")
    assert json.loads(second.event.metadata or "")["agent.name"] == "Explore"


async def test_what_a_subagent_says_at_its_end_is_no_call(site: Site) -> None:
    await taken(site, LOGS, capture("claude-code-subagent"))
    assert [stored.event.id for stored in await events(site)] == ["req_011sim0003", "req_011sim0004"]


async def test_without_its_own_figure_a_call_of_claude_code_costs_what_it_said_as_well(site: Site) -> None:
    body = capture("claude-code")
    for record in records_of(body):
        set_attribute(record, "cost_usd", None)
    await taken(site, LOGS, body)
    usage = (await events(site))[0].event.usage
    assert (usage.cost_nano_usd, usage.cost_source) == (48_339_000, "computed")


async def test_cache_writes_that_are_not_told_apart_are_those_for_5_minutes(site: Site) -> None:
    body = capture("claude-code")
    for key in ("cache_creation_5m_tokens", "cache_creation_1h_tokens"):
        set_attribute(records_of(body)[0], key, None)
    await taken(site, LOGS, body)
    usage = (await events(site))[0].event.usage
    assert (usage.cache_write_tokens, usage.cache_write_1h_tokens) == (5400, None)


async def test_the_input_of_codex_has_the_cached_tokens_in_it(site: Site) -> None:
    await taken(site, LOGS, capture("codex"))
    stored = await only_event(site)
    event, usage = stored.event, stored.event.usage
    assert (event.who.agent, event.who.service) == ("codex", "openai")
    assert event.who.session == "01a20a17-abf2-75e2-90f1-f73909853dbe"
    assert event.occurred_at_us == 1_795_465_654_712_439
    assert (usage.input_tokens, usage.cache_read_tokens, usage.output_tokens) == (1500, 500, 125)
    assert (usage.tokens, usage.model, usage.cost_source) == (2125, "gpt-5.2-codex", "computed")
    assert usage.cost_nano_usd


async def test_other_events_of_codex_are_passed_over(site: Site) -> None:
    body = capture("codex")
    set_attribute(records_of(body)[0], "event.kind", "response.created")
    await taken(site, LOGS, body)
    assert await events(site) == []


async def test_a_response_of_codex_that_is_told_twice_is_one_call(site: Site) -> None:
    """Codex 0.171 says first that it is completed, and how long it took, and then its tokens."""
    body = capture("codex")
    records = records_of(body)
    timed = copy.deepcopy(records[0])
    timed["attributes"] = [each for each in timed["attributes"] if not each["key"].endswith("_token_count")]
    timed["attributes"].append({"key": "duration_ms", "value": {"stringValue": "9"}})
    timed["observedTimeUnixNano"] = "1795465654712000000"
    records.insert(0, timed)
    await taken(site, LOGS, body)
    assert (await only_event(site)).event.usage.tokens == 2125


async def test_one_of_two_events_of_gemini_is_counted_and_thoughts_are_output(site: Site) -> None:
    body = capture("gemini")
    assert len(records_of(body)) == 2
    await taken(site, LOGS, body)
    stored = await only_event(site)
    event, usage = stored.event, stored.event.usage
    assert (event.who.agent, event.who.service) == ("gemini-cli", "google")
    assert event.who.session == "8279412f-19e6-4636-87e7-43c9b7bc2f87"
    assert (event.status_code, event.duration_ms) == (200, 57)
    assert (usage.input_tokens, usage.cache_read_tokens, usage.output_tokens) == (344, 890, 80)
    assert (usage.tokens, usage.model, usage.cost_source) == (1314, "gemini-2.5-pro", "computed")


@pytest.mark.parametrize(
    ("said", "duration_ms"),
    [(12.5, 12), ("61.7", 62), (-3, None), ("-0.6", None), ("soon", None), ("NaN", None), (1e300, None)],
)
@pytest.mark.parametrize("name", ["claude-code", "codex", "gemini"])
async def test_how_long_a_call_took_spoils_nothing(
    site: Site, name: str, said: Any, duration_ms: int | None
) -> None:
    """Where a clock is set back during a call, the difference of two times is below 0."""
    body = capture(name)
    for record in records_of(body):
        set_attribute(record, "duration_ms", said)
    await taken(site, LOGS, body)
    assert {stored.event.duration_ms for stored in await events(site)} == {duration_ms}


@pytest.mark.parametrize("name", ["claude-code", "claude-code-subagent", "codex", "gemini"])
async def test_what_comes_twice_counts_once(site: Site, name: str) -> None:
    await taken(site, LOGS, capture(name))
    before = await events(site)
    await taken(site, LOGS, capture(name))
    assert await events(site) == before


async def test_two_calls_of_one_session_are_two(site: Site) -> None:
    body = capture("codex")
    later = copy.deepcopy(records_of(body)[0])
    later["observedTimeUnixNano"] = "1795465655712439577"
    records_of(body).append(later)
    await taken(site, LOGS, body)
    assert len(await events(site)) == 2


async def tell_of_a_call(site: Site, **changes: Any) -> None:
    """The first call of the capture, as a transcript tells of it."""
    counts = {"input_tokens": 12, "output_tokens": 159, "cache_read_tokens": 15_555}
    written = {"cache_write_tokens": 400, "cache_write_1h_tokens": 5000}
    whose = {"agent": "build-bot", "service": "anthropic", "session": CLAUDE_SESSION}
    told = {"id": "req_011sim0001", "model": "claude-opus-5-5", "source": "transcript"}
    await use(site.meter, **(counts | written | whose | told | changes))


async def test_what_a_transcript_told_before_is_counted_already(site: Site) -> None:
    await tell_of_a_call(site)
    await taken(site, LOGS, capture("claude-code"))
    assert [stored.event.source for stored in await events(site)] == ["transcript", "otlp"]


@pytest.mark.parametrize("other", [{"output_tokens": 1}, {"agent": "ann"}])
async def test_what_was_told_otherwise_before_is_said(site: Site, other: dict[str, Any]) -> None:
    await tell_of_a_call(site, **other)
    count, message = await rejected(site, LOGS, capture("claude-code"))
    assert (count, "req_011sim0001" in message, next(iter(other)) in message) == ("1", True, True)
    assert len(await events(site)) == 2


async def test_metrics_are_taken_and_not_metered(site: Site) -> None:
    await taken(site, METRICS, capture("claude-code-metrics"))
    assert await events(site) == []


async def test_a_real_server_meters_what_claude_code_sends(tmp_path: Path) -> None:
    now = re.sub(r'"1795\d{15}"', f'"{time.time_ns()}"', text_of("claude-code")).encode()
    with running_server(tmp_path / "usage.db") as server:
        async with httpx2.AsyncClient(base_url=server.url) as client:
            headers = {"content-type": "application/json", "content-encoding": "gzip"}
            for _ in range(2):
                answer = await client.post(LOGS, content=gzip.compress(now), headers=headers)
                assert (answer.status_code, answer.text) == (200, "{}")
            query = {"window": "day", "group_by": ["agent", "session"]}
            (group,) = (await client.get("/v1/summary", params=query)).json()["groups"]
    assert group["key"] == {"agent": "build-bot", "session": CLAUDE_SESSION}
    assert (group["events"], group["cost_usd"]) == (2, 0.096678)
    assert (group["input_tokens"], group["output_tokens"]) == (24, 318)


# -- who it is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "header", "agent"),
    [("own", "header", "own"), (None, "header", "header"), (None, None, "claude-code")],
)
async def test_the_agent_is_whom_the_payload_names_or_else_the_header(
    site: Site, named: str | None, header: str | None, agent: str
) -> None:
    body = capture("claude-code")
    body["resourceLogs"][0]["resource"]["attributes"] = []
    for record in records_of(body):
        set_attribute(record, "agent.id", named)
    headers = {"x_agent_id": header} if header else {}
    await taken(site, LOGS, body, OPERATOR, **headers)
    assert {stored.event.who.agent for stored in await events(site)} == {agent}


@pytest.mark.parametrize(("path", "body"), [(LOGS, capture("claude-code")), (TRACES, traces(span()))])
async def test_an_agent_s_key_is_that_agent_whatever_the_payload_says(
    site: Site, path: str, body: Any
) -> None:
    await taken(site, path, body, BOT, x_agent_id="ann")
    found = await events(site)
    assert {(stored.event.who.agent, stored.event.source) for stored in found} == {("bot", "self")}


async def test_a_service_s_key_reports_that_service_only(site: Site) -> None:
    await taken(site, LOGS, capture("codex"), SERVICE)
    count, message = await rejected(site, LOGS, capture("claude-code"), SERVICE)
    assert (count, "bound to service 'openai'" in message) == ("2", True)
    assert len(await events(site)) == 1


@pytest.mark.parametrize("path", [LOGS, TRACES, METRICS])
async def test_a_viewer_reports_nothing(site: Site, path: str) -> None:
    problem_in(await export(site, path, {}, VIEWER), 403, "forbidden")


@pytest.mark.parametrize("wrong", ["*", "a\nb", "x" * 129])
async def test_a_name_that_nobody_can_have_spoils_its_record_only(site: Site, wrong: str) -> None:
    body = capture("claude-code")
    set_attribute(records_of(body)[0], "agent.id", wrong)
    count, message = await rejected(site, LOGS, body)
    assert (count, message.startswith("agent")) == ("1", True)
    assert (await only_event(site)).event.id == "req_011sim0002"


async def test_who_signs_what_it_reports_is_not_reported_by_others(site: Site, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets.toml"
    secrets.write_text('[agents]\nbuild-bot = "a long random text"\n', encoding="utf-8")
    secrets.chmod(0o600)
    site.api.state.secrets = type(site.api.state.secrets)(str(secrets))
    count, message = await rejected(site, LOGS, capture("claude-code"))
    assert (count, "signs what it reports" in message) == ("2", True)
    assert await events(site) == []


# -- spans ---------------------------------------------------------------------------------------------------


async def test_a_span_of_a_call_is_metered(site: Site) -> None:
    await taken(site, TRACES, traces(span()))
    await taken(site, TRACES, traces(span()))
    stored = await only_event(site)
    event, usage = stored.event, stored.event.usage
    assert event.id == "5b8efff798038103d269b633813fc60c-0000000000000001"
    assert (event.who.agent, event.who.service, event.who.session) == ("researcher", "openai", "conv-1")
    assert (event.operation, event.source, event.duration_ms, event.status_code) == (
        "chat",
        "otlp",
        1500,
        None,
    )
    assert event.occurred_at_us == NOON_US - 1_000_000
    assert (usage.input_tokens, usage.cache_read_tokens, usage.output_tokens) == (400, 600, 50)
    assert (usage.model, usage.cost_source) == ("gpt-5-2025-08-07", "computed")


@pytest.mark.parametrize(
    ("said", "agent"),
    [
        ({"gen_ai__agent__id": "asst-1", "gen_ai__agent__name": "planner"}, "asst-1"),
        ({"gen_ai__agent__name": "planner"}, "planner"),
        ({"agent__id": "mine", "gen_ai__agent__id": "asst-1"}, "mine"),
    ],
)
async def test_a_span_says_which_agent_it_is(site: Site, said: dict[str, Any], agent: str) -> None:
    await taken(site, TRACES, traces(span(**said)))
    assert (await only_event(site)).event.who.agent == agent


async def test_a_provider_has_one_name_however_it_is_written(site: Site) -> None:
    old = {"gen_ai__provider__name": None, "gen_ai__system": "gcp.vertex_ai"}
    await taken(site, TRACES, traces(span(1, **old), span(2, gen_ai__provider__name="gcp.gemini")))
    assert {stored.event.who.service for stored in await events(site)} == {"google"}


async def test_spans_around_calls_and_of_other_things_are_passed_over(site: Site) -> None:
    around = [
        span(number, gen_ai__operation__name=operation)
        for number, operation in enumerate(("invoke_agent", "execute_tool", "create_agent"), 1)
    ]
    plain = {**span(9), "attributes": attributes(http__request__method="GET")}
    unnamed = span(
        10, gen_ai__operation__name=None, gen_ai__request__model=None, gen_ai__response__model=None
    )
    await taken(site, TRACES, traces(*around, plain, unnamed))
    assert await events(site) == []


@pytest.mark.parametrize(
    ("status", "said", "code"),
    [
        ({"code": 2}, {}, 500),
        ({"code": 2}, {"error__type": "429"}, 429),
        ({"code": "STATUS_CODE_ERROR"}, {"error__type": "timeout"}, 500),
        ({"code": 1}, {}, None),
        ({}, {"http__response__status_code": 200}, 200),
    ],
)
async def test_a_span_says_how_it_went(
    site: Site, status: dict[str, Any], said: dict[str, Any], code: int | None
) -> None:
    await taken(site, TRACES, traces({**span(**said), "status": status}))
    assert (await only_event(site)).event.status_code == code


async def test_a_span_with_the_names_of_2024_is_metered(site: Site) -> None:
    older: dict[str, Any] = {
        "gen_ai__usage__input_tokens": None,
        "gen_ai__usage__output_tokens": None,
        "gen_ai__usage__cache_read__input_tokens": None,
        "gen_ai__usage__prompt_tokens": 1000,
        "gen_ai__usage__completion_tokens": 50,
    }
    await taken(site, TRACES, traces(span(**older)))
    usage = (await only_event(site)).event.usage
    assert (usage.input_tokens, usage.output_tokens) == (1000, 50)


async def test_cached_tokens_that_are_not_in_the_input_are_not_taken_off(site: Site) -> None:
    await taken(site, TRACES, traces(span(gen_ai__usage__input_tokens=10)))
    usage = (await only_event(site)).event.usage
    assert (usage.input_tokens, usage.cache_read_tokens) == (10, 600)


@pytest.mark.parametrize(
    ("field", "value", "about"),
    [
        ("traceId", "W47/95gDgQPSabYzgT/GDA==", "traceId"),
        ("traceId", "0" * 32, "traceId"),
        ("spanId", "", "spanId"),
        ("endTimeUnixNano", "tomorrow", "endTimeUnixNano"),
        ("endTimeUnixNano", str(NOON_NS + 301_000_000_000), "occurred_at"),
        ("attributes", 3, "attributes"),
        (
            "attributes",
            attributes(**(CHAT | {"gen_ai__usage__input_tokens": "many"})),
            "gen_ai.usage.input_tokens",
        ),
        ("attributes", attributes(**(CHAT | {"gen_ai__provider__name": ""})), "gen_ai.provider.name"),
    ],
)
async def test_a_span_that_is_wrong_is_told_and_the_others_are_stored(
    site: Site, field: str, value: Any, about: str
) -> None:
    count, message = await rejected(site, TRACES, traces(span(1), {**span(2), field: value}, span(3)))
    assert (count, message.partition(":")[0]) == ("1", about)
    assert len(await events(site)) == 2


# -- nulls ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [LOGS, TRACES])
async def test_a_null_in_an_envelope_spoils_nothing(site: Site, path: str) -> None:
    body = capture("codex") if path == LOGS else traces(span())
    resources, scopes, records = {
        LOGS: ("resourceLogs", "scopeLogs", "logRecords"),
        TRACES: ("resourceSpans", "scopeSpans", "spans"),
    }[path]
    (resource,) = body[resources]
    (scope,) = resource[scopes]
    resource["resource"]["attributes"].insert(0, None)
    scope[records][0]["attributes"].insert(0, None)
    resource[scopes] = [None, {records: None}, scope, None]
    body[resources] = [None, {"resource": None}, {scopes: None}, resource, None]
    await taken(site, path, body)
    assert (await only_event(site)).event.who.service == "openai"


@pytest.mark.parametrize("path", [LOGS, TRACES])
async def test_a_null_in_place_of_a_record_is_counted_and_the_others_are_stored(
    site: Site, path: str
) -> None:
    body = traces(None, span(), None)
    if path == LOGS:
        body = capture("codex")
        body["resourceLogs"][0]["scopeLogs"][0]["logRecords"] = [None, *records_of(body), None]
    count, message = await rejected(site, path, body)
    assert (count, message.startswith("record: ")) == ("2", True)
    assert (await only_event(site)).event.who.service == "openai"


# -- the rest ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ahead_s", "is_taken"),
    [(299, True), (301, False)],
)
async def test_a_record_from_the_future_is_rejected(site: Site, ahead_s: int, is_taken: bool) -> None:
    body = capture("codex")
    records_of(body)[0]["observedTimeUnixNano"] = NOON_NS + ahead_s * 1_000_000_000
    if is_taken:
        await taken(site, LOGS, body)
    else:
        count, message = await rejected(site, LOGS, body)
        assert (count, "in the future" in message) == ("1", True)
    assert len(await events(site)) == is_taken


async def test_half_a_character_spoils_what_it_is_in_and_no_more(site: Site) -> None:
    whole = text_of("claude-code")
    for place in (
        '"query_source", "value": {"stringValue": "',
        '"session.id", "value": {"stringValue": "',
        '"effort", "value": {"stringValue": "',
    ):
        assert place in whole
        whole = whole.replace(place, place + "\\ud83d")
    async with site.client() as client:
        sent = {"content-type": "application/json"}
        answer = await client.post(LOGS, content=whole.encode(), headers=sent)
    assert (answer.status_code, answer.text) == (200, "{}")
    first = (await events(site))[0].event
    assert (first.operation, first.who.session, first.usage.cost_nano_usd) == (None, None, 48_339_000)
    assert "effort" not in (first.metadata or "")


async def test_a_record_without_any_time_is_rejected(site: Site) -> None:
    body = capture("codex")
    records_of(body)[0]["observedTimeUnixNano"] = 0
    assert (await rejected(site, LOGS, body))[1].startswith("timeUnixNano: is required")


async def test_over_a_limit_it_is_stored_all_the_same(site: Site) -> None:
    key = LimitKey(Subject("agent", "build-bot"), None, "requests", "day")
    await site.meter.ledger.set_limit(OPERATOR, key, 1)
    site.meter.clock.advance(-12 * 3600)
    await taken(site, LOGS, capture("claude-code"))
    assert [stored.outcome for stored in await events(site)] == ["accepted", "over_limit"]


async def test_more_records_than_one_transaction_takes_are_stored(site: Site) -> None:
    spans = [span(number) for number in range(1, 2502)]
    await taken(site, TRACES, traces(*spans))
    async with site.client() as client:
        total = (await client.get("/v1/summary", params={"window": "day"})).json()["total"]
    assert (total["events"], total["input_tokens"]) == (2501, 2501 * 400)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (LOGS, {"resourceLogs": [{"scopeLogs": [{"logRecords": [0] * RECORDS_MAX}, {"logRecords": [0]}]}]}),
        (TRACES, traces(*[{}] * RECORDS_MAX, span())),
    ],
    ids=["logs", "spans"],
)
async def test_more_records_than_can_say_anything_are_refused(site: Site, path: str, body: Any) -> None:
    """A body of 4 MiB may have two million: they took everybody a quarter of a minute."""
    told = problem_in(await export(site, path, body), 422, "invalid_input")
    assert "more than 100,000 records" in told["detail"]
    assert await events(site) == []


EMPTY: list[dict[str, Any]] = [{}] * 200_001


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (LOGS, {"resourceLogs": EMPTY}),
        (LOGS, {"resourceLogs": [{"scopeLogs": EMPTY}]}),
        (LOGS, {"resourceLogs": [{"resource": {"attributes": EMPTY}}]}),
        (LOGS, {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"attributes": EMPTY}]}]}]}),
        (TRACES, {"resourceSpans": EMPTY}),
        (TRACES, {"resourceSpans": [{"scopeSpans": EMPTY[:100_000]}] * 3}),
        (TRACES, traces({"attributes": EMPTY})),
    ],
)
async def test_an_envelope_of_many_empty_parts_is_refused(site: Site, path: str, body: Any) -> None:
    """Of more than a million, to read them kept everybody waiting for five seconds."""
    told = problem_in(await export(site, path, body), 422, "invalid_input")
    assert "more than 200,000 resources, scopes, records and attributes" in told["detail"]


@pytest.mark.parametrize(
    "body",
    [
        '{"resourceLogs": 5}',
        '{"resourceLogs": [5]}',
        '{"resourceLogs": [{"resource": [], "scopeLogs": 7}]}',
        '{"resourceLogs": [{"scopeLogs": [[]]}]}',
        "[]",
    ],
)
async def test_an_envelope_that_is_none_is_told_what_is_wrong(site: Site, body: str) -> None:
    told = problem_in(await export(site, LOGS, json.loads(body)), 422, "invalid_input")
    assert "more than" not in told["detail"]


@pytest.mark.parametrize("path", [LOGS, TRACES, METRICS])
async def test_protobuf_is_refused_with_what_to_set(site: Site, path: str) -> None:
    async with site.client() as client:
        sent = {"content-type": "application/x-protobuf"}
        told = problem_in(
            await client.post(path, content=b"\n\x00", headers=sent), 415, "unsupported_media_type"
        )
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/json" in told["detail"]


NO_ENVELOPES: list[tuple[str, Any, str]] = [
    (LOGS, {"resourceLogs": 3}, "resourceLogs"),
    (
        LOGS,
        {"resourceLogs": [{"scopeLogs": [{"logRecords": {}}]}]},
        "resourceLogs.0.scopeLogs.0.logRecords",
    ),
    (TRACES, {"resourceSpans": ["x"]}, "resourceSpans.0"),
    (METRICS, {"resourceMetrics": "x"}, "resourceMetrics"),
    (METRICS, [], "body"),
]


@pytest.mark.parametrize(("path", "body", "field"), NO_ENVELOPES)
async def test_an_envelope_that_is_none_is_refused(site: Site, path: str, body: Any, field: str) -> None:
    assert problem_in(await export(site, path, body), 422, "invalid_input")["field"] == field


@pytest.mark.parametrize("path", [LOGS, TRACES, METRICS])
async def test_nothing_is_taken_as_well_and_what_is_no_json_is_not(site: Site, path: str) -> None:
    await taken(site, path, {})
    async with site.client() as client:
        sent = {"content-type": "application/json"}
        problem_in(await client.post(path, content=b"{", headers=sent), 400, "malformed")


@pytest.mark.parametrize(("path", "body"), [(LOGS, capture("codex")), (TRACES, traces(span()))])
async def test_a_ledger_that_is_away_lets_the_exporter_try_again(site: Site, path: str, body: Any) -> None:
    await site.meter.ledger.__aexit__(None, None, None)
    answer = await export(site, path, body)
    problem_in(answer, 503, "overloaded")
    assert int(answer.headers["retry-after"]) > 0


async def test_on_a_full_disk_the_exporter_tries_again_and_loses_nothing(tmp_path: Path) -> None:
    store = await to_thread.run_sync(open_store, str(tmp_path / "usage.db"))
    connection = store._writer.connection  # pyright: ignore[reportPrivateUsage]  the limit is the connection's
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count={pages + 8}")
    body = traces(*(span(number) for number in range(1, 501)))
    clock = ManualClock()
    async with Ledger(store, PriceBook(tmp_path / "prices.toml"), clock, new_id) as ledger:
        site = Site(Meter(ledger, clock))
        answer = await export(site, TRACES, body)
        problem_in(answer, 503, "store_full")
        assert answer.headers["retry-after"] == "30"
        connection.execute(f"PRAGMA max_page_count={pages + 10_000}")
        await taken(site, TRACES, body)
        async with site.client() as client:
            total = (await client.get("/v1/summary", params={"window": "day"})).json()["total"]
    assert total["events"] == 500


# -- any shape -----------------------------------------------------------------------------------------------

KEYS = sorted(
    {
        one["key"]
        for name in ("claude-code", "codex", "gemini")
        for record in records_of(capture(name))
        for one in record["attributes"]
    }
    | {key.replace("__", ".") for key in CHAT}
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
VALUES = (
    st.dictionaries(st.sampled_from(["stringValue", "intValue", "doubleValue", "boolValue", "x"]), JSON)
    | JSON
)
ATTRIBUTES = (
    st.lists(st.fixed_dictionaries({"key": st.sampled_from(KEYS), "value": VALUES}) | JSON, max_size=12)
    | JSON
)
NAMES = st.sampled_from(["claude_code.api_request", "codex.sse_event", "gemini_cli.api_response"])
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "timeUnixNano": st.integers(0, 2**70) | st.from_regex(r"[0-9]{1,25}", fullmatch=True) | JSON,
        "observedTimeUnixNano": JSON,
        "body": st.fixed_dictionaries({"stringValue": NAMES}) | JSON,
        "eventName": NAMES | JSON,
        "attributes": ATTRIBUTES,
    },
)
SPANS = st.fixed_dictionaries(
    {},
    optional={
        "traceId": st.just("5b8efff798038103d269b633813fc60c") | JSON,
        "spanId": st.just("00f067aa0ba902b7") | JSON,
        "startTimeUnixNano": st.integers(0, 2**65) | JSON,
        "endTimeUnixNano": st.integers(0, 2**65) | JSON,
        "status": st.fixed_dictionaries({"code": JSON}) | JSON,
        "attributes": ATTRIBUTES,
    },
)


INTAKE = Intake(PriceBook(None), new_id, lambda agent: ())


def checked(reports: list[Report | InvalidInput]) -> None:
    """Each is an event, or its field is named."""
    for report in reports:
        if isinstance(report, InvalidInput):
            assert report.field
            continue
        try:
            event = INTAKE.record(OPERATOR, report, NOON_US).event
        except InvalidInput as error:
            assert error.field
        else:
            assert event.id and event.who.agent and event.who.service and event.occurred_at_us is not None


@settings(max_examples=200)
@given(st.lists(RECORDS | JSON, max_size=3), ATTRIBUTES)
def test_no_log_record_is_more_than_wrong(records: list[Any], resource: Any) -> None:
    try:
        logs = Logs.model_validate(
            {"resourceLogs": [{"resource": {"attributes": resource}, "scopeLogs": [{"logRecords": records}]}]}
        )
    except ValueError:
        return
    checked(log_reports(logs, Sender("otlp")))


@settings(max_examples=200)
@given(st.lists(SPANS | JSON, max_size=3))
def test_no_span_is_more_than_wrong(spans: list[Any]) -> None:
    checked(span_reports(Traces.model_validate(traces(*spans)), Sender("otlp")))
