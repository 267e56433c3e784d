"""Each route: what it takes and gives, and what it says when something is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from agent_meter_mcp.faces.errors import QUOTA_EXCEEDED
from tests.faces.conftest import BOT, VIEWER

from .conftest import As, Site, problem_in, use

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send


async def ok(answer: httpx2.Response, status: int = 200) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


async def test_a_limit_is_set_listed_and_removed(client: httpx2.AsyncClient) -> None:
    key = {"agent": "bot", "metric": "cost_usd", "window": "day"}
    made = await ok(await client.put("/v1/limits", json={**key, "max": 5}))
    assert (made["status"], made["limit"]["max"]) == ("created", 5)
    assert (await ok(await client.put("/v1/limits", json={**key, "max": 6})))["status"] == "changed"
    (listed,) = (await ok(await client.get("/v1/limits", params={"agent": "bot"})))["limits"]
    assert (listed["max"], listed["binds"]) == (6, True)
    removed = await ok(await client.delete("/v1/limits", params={"limit_id": listed["limit_id"]}))
    assert removed["removed"]["limit_id"] == listed["limit_id"]
    problem_in(await client.delete("/v1/limits", params=key), 404, "not_found")


async def test_an_agent_is_set_by_its_path_whatever_its_name(client: httpx2.AsyncClient) -> None:
    for name, path in (("bot", "bot"), ("a/b", "a%2Fb"), ("a b?", "a%20b%3F"), ("ä", "%C3%A4")):
        told = await ok(await client.put(f"/v1/agents/{path}", json={"tier": "gold", "name": "Bot"}))
        assert (told["agent"], told["tier"]) == (name, "gold")
    assert (await ok(await client.put("/v1/agents/bot", json={"name": None})))["name"] is None
    problem_in(await client.put("/v1/agents/bot", json={}), 422, "invalid_input")
    agent = problem_in(
        await client.put("/v1/agents/bot", json={"agent": "bot", "tier": "x"}), 422, "invalid_input"
    )
    assert agent["field"] == "agent"


async def test_a_reservation_is_held_listed_and_settled(client: httpx2.AsyncClient) -> None:
    await client.put("/v1/limits", json={"agent": "bot", "metric": "cost_usd", "window": "day", "max": 5})
    step = {"service": "openai", "agent": "bot", "cost_usd": 2, "id": "one"}
    answer = await client.post("/v1/reservations", json=step)
    held = await ok(answer, 201)
    assert answer.headers["ratelimit"].endswith(";r=3000000;t=43200")
    again = await ok(await client.post("/v1/reservations", json=step))
    assert again["reservation_id"] == held["reservation_id"]
    (listed,) = (await ok(await client.get("/v1/reservations")))["reservations"]
    assert (listed["reservation_id"], listed["cost_usd"]) == (held["reservation_id"], 2)
    where = f"/v1/reservations/{held['reservation_id']}/settle"
    assert (await ok(await client.post(where, json={"action": "extend", "ttl": "5m"})))["status"] == "open"
    told = await ok(await client.post(where, json={"cost_usd": 1.5, "status_code": 200}))
    assert (told["status"], told["cost_usd"], told["late"]) == ("recorded", 1.5, False)
    problem_in(await client.post(where, json={"action": "release"}), 409, "conflict")
    problem_in(await client.post("/v1/reservations/none/settle", json={}), 404, "not_found")
    assert problem_in(await client.post(where, json={"reservation_id": "x"}), 422, "invalid_input")[
        "field"
    ] == ("reservation_id")


async def test_a_check_without_a_service_says_at_which_one_it_would_be_refused(
    client: httpx2.AsyncClient,
) -> None:
    """As the tool does: who asked here was told that no limit applies."""
    await client.put(
        "/v1/limits",
        json={"agent": "bot", "service": "openai", "metric": "requests", "window": "day", "max": 0},
    )
    told = await ok(await client.post("/v1/check", json={"agent": "bot"}))
    assert told["allowed"] is True
    assert " But not at 'openai': 0 of 0 requests used today" in told["message"]
    told = await ok(await client.post("/v1/check", json={"agent": "bot", "service": "exa"}))
    assert "But not at" not in told["message"]


async def test_a_denied_reservation_is_429_with_the_reason_and_the_time(client: httpx2.AsyncClient) -> None:
    limit = {"agent": "bot", "metric": "requests", "window": "1h", "max": 1}
    limit_id = (await ok(await client.put("/v1/limits", json=limit)))["limit"]["limit_id"]
    step = {"service": "openai", "agent": "bot"}
    await ok(await client.post("/v1/reservations", json=step), 201)
    answer = await client.post("/v1/reservations", json=step)
    told = problem_in(answer, 429, "quota_exceeded")
    assert told["type"] == QUOTA_EXCEEDED
    (policy,) = told["violated-policies"]
    assert (policy["name"], policy["max"], policy["held"], policy["remaining"]) == (limit_id, 1, 1, 0)
    assert told["allowed"] is False
    assert told["reasons"][0]["limit_id"] == limit_id
    assert told["detail"] == told["message"]
    assert answer.headers["ratelimit-policy"] == f'"{limit_id}";q=1;qu="requests";w=3600'
    assert answer.headers["ratelimit"].startswith(f'"{limit_id}";r=0')
    assert answer.headers["retry-after"] == str(told["retry_after_s"])
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_kill_switch_is_403_and_a_check_is_a_question(client: httpx2.AsyncClient) -> None:
    switch = {"engaged": True, "agent": "bot", "reason": "it loops"}
    told = await ok(await client.put("/v1/kill-switch", json=switch))
    assert (told["engaged"], told["changed"], told["reason"]) == (True, True, "it loops")
    assert told["message"].endswith("No usage of this agent is known yet: is the name right?")
    step = {"service": "openai", "agent": "bot"}
    refused = await client.post("/v1/reservations", json=step)
    assert "it loops" in problem_in(refused, 403, "kill_switch")["detail"]
    assert "retry-after" not in refused.headers
    assert (await ok(await client.post("/v1/check", json=step)))["allowed"] is False
    await ok(await client.put("/v1/kill-switch", json={"engaged": False, "agent": "bot"}))
    assert (await ok(await client.post("/v1/check", json=step)))["allowed"] is True


async def test_usage_is_read_page_by_page(site: Site, client: httpx2.AsyncClient) -> None:
    for number in range(5):
        await use(site.meter, id=str(number), metadata={"n": number})
    seen: list[str] = []
    at = "/v1/usage?limit=2&service=openai"
    while at:
        answer = await client.get(at)
        page = await ok(answer)
        seen += [event["id"] for event in page["events"]]
        at = answer.links.get("next", {}).get("url", "")
        assert bool(at) == (page["next_cursor"] is not None)
        at = at and answer.url.join(at)
    assert seen == ["4", "3", "2", "1", "0"]
    agents = await client.get("/v1/agents", params={"limit": 1})
    assert [agent["agent"] for agent in (await ok(agents))["agents"]] == ["bot"]


def taken_off(app: ASGIApp) -> ASGIApp:
    """A proxy in front of it takes its prefix off, and says nothing of that."""

    async def without_prefix(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix("/meter")
        await app({**scope, "path": path, "raw_path": path.encode()}, receive, send)

    return without_prefix


def mounted(app: ASGIApp) -> ASGIApp:
    return Starlette(routes=[Mount("/meter", app)])


@pytest.mark.parametrize("behind", [taken_off, mounted])
@pytest.mark.parametrize("path", ["/v1/usage", "/v1/usage/me"])
async def test_the_next_page_is_found_behind_a_prefix(
    site: Site, behind: Callable[[ASGIApp], ASGIApp], path: str
) -> None:
    for number in range(3):
        await use(site.meter, id=str(number))
    transport = httpx2.ASGITransport(app=behind(As(site.api, BOT)))
    async with httpx2.AsyncClient(transport=transport, base_url="http://meter") as client:
        answer = await client.get(f"/meter{path}", params={"limit": 2})
        older = await client.get(answer.url.join(answer.links["next"]["url"]))
        found = (await ok(older))["events"] if path == "/v1/usage" else older.json()
    assert [event["id"] for event in found] == ["0"]


async def test_a_plus_in_a_query_may_be_written_as_one(site: Site, client: httpx2.AsyncClient) -> None:
    await use(site.meter)
    for since, found in (("2026-11-24T12:30:00+01:00", 1), ("2026-11-24T14:30:00%2B01:00", 0)):
        page = await ok(await client.get(f"/v1/usage?since={since}"))
        assert len(page["events"]) == found


async def test_a_summary_groups_by_what_is_asked(site: Site, client: httpx2.AsyncClient) -> None:
    await use(site.meter, cost_usd=1)
    await use(site.meter, service="exa", cost_usd=2)
    query = "group_by=agent&group_by=service&window=24h&order_by=cost_usd&include_children=true&agent=bot"
    told = await ok(await client.get(f"/v1/summary?{query}"))
    assert told["total"]["cost_usd"] == 3
    assert [group["key"]["service"] for group in told["groups"]] == ["exa", "openai"]


async def test_alerts_and_control_actions_are_listed(site: Site, client: httpx2.AsyncClient) -> None:
    await client.put("/v1/limits", json={"agent": "bot", "metric": "cost_usd", "window": "day", "max": 1})
    await client.put("/v1/agents/bot", json={"tier": "gold"})
    await use(site.meter, cost_usd=0.9)
    alerts = (await ok(await client.get("/v1/alerts")))["alerts"]
    assert [alert["threshold"] for alert in alerts] == [80, 50]
    assert (await ok(await client.get("/v1/alerts", params={"after": alerts[0]["number"]})))["alerts"] == []
    answer = await client.get("/v1/audit", params={"limit": 1})
    (entry,) = (await ok(answer))["entries"]
    assert (entry["action"], entry["after"]["tier"]) == ("set_agent", "gold")
    (older,) = (await ok(await client.get(answer.url.join(answer.links["next"]["url"]))))["entries"]
    assert (older["action"], older["after"]["max"]) == ("set_limit", 1)


async def test_the_status_says_what_is_stopped_and_whether_anything_was_written(
    site: Site, client: httpx2.AsyncClient
) -> None:
    before = await ok(await client.get("/v1/status"))
    assert (before["switches"], before["role"], before["at"]) == ([], "operator", "2026-11-24T12:00:00Z")
    assert await ok(await client.get("/v1/status")) == before
    await client.put("/v1/kill-switch", json={"engaged": True, "service": "exa", "reason": "costs"})
    async with site.client(VIEWER) as viewer:
        after = await ok(await viewer.get("/v1/status"))
    assert after["changes"] != before["changes"]
    assert (after["role"], after["message"]) == ("viewer", "Kill switches that are engaged: 1.")
    (switch,) = after["switches"]
    assert (switch["kind"], switch["name"], switch["reason"]) == ("service", "exa", "costs")
    assert switch["engaged_by"] == "olga"


async def test_an_agent_reads_its_own_and_no_audit_log(site: Site, client: httpx2.AsyncClient) -> None:
    await use(site.meter)
    await use(site.meter, agent="ann")
    async with site.client(BOT) as bot:
        assert {e["agent"] for e in (await ok(await bot.get("/v1/usage")))["events"]} == {"bot"}
        problem_in(await bot.get("/v1/usage", params={"agent": "ann"}), 403, "forbidden")
        problem_in(await bot.get("/v1/audit"), 403, "forbidden")


MISTAKES: list[tuple[str, str, Any, int, str, str]] = [
    ("GET", "/v1/usage?agnet=x", None, 422, "agnet", "use agent"),
    ("GET", "/v1/usage?limit=many", None, 422, "limit", "whole number"),
    ("GET", "/v1/usage?limit=0", None, 422, "limit", "between 1 and 500"),
    ("GET", "/v1/usage?limit=1&limit=2", None, 422, "limit", "given twice"),
    ("GET", "/v1/usage?cursor=x", None, 422, "cursor", "start again"),
    ("GET", "/v1/usage?since=yesterday", None, 422, "since", "ISO 8601"),
    ("GET", "/v1/summary?group_by=colour", None, 422, "group_by.0", "must be"),
    ("GET", "/v1/summary?timezone=Mars", None, 422, "timezone", "IANA"),
    ("GET", "/v1/reservations?all=1", None, 422, "all", "not an argument"),
    ("DELETE", "/v1/limits", None, 422, "metric", "limit_id"),
    ("POST", "/v1/check", {"servce": "x"}, 422, "servce", "use service"),
    ("POST", "/v1/check", {"agent": "bot", "requests": "1"}, 422, "requests", "whole number"),
    ("POST", "/v1/reservations", {"agent": "bot"}, 422, "service", "required"),
    ("POST", "/v1/reservations", {"agent": "bot", "service": "x", "ttl": "2h"}, 422, "ttl", "1h"),
    ("PUT", "/v1/limits", {"max": 1, "metric": "cost", "window": "day"}, 422, "metric", "cost_usd"),
    ("PUT", "/v1/kill-switch", {"engaged": True, "agent": "bot"}, 422, "reason", ""),
    ("POST", "/v1/attestations", [], 422, "body", "body: must be an object."),
    ("POST", "/v1/logs", "x", 422, "body", "body: must be an object."),
    ("POST", "/v1/logs", {"resourceLogs": [5]}, 422, "resourceLogs.0", "resourceLogs.0: must be an object."),
    ("POST", "/hooks/claude", [], 422, "harness", "'gemini'. Nothing"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "field", "says"), MISTAKES)
async def test_a_mistake_is_named(
    client: httpx2.AsyncClient, method: str, path: str, body: Any, status: int, field: str, says: str
) -> None:
    told = problem_in(await client.request(method, path, json=body), status, "invalid_input")
    assert told["field"] == field
    assert says in told["detail"]


async def test_what_is_not_there_is_said_in_the_same_shape(client: httpx2.AsyncClient) -> None:
    assert "/openapi.json" in problem_in(await client.get("/v1/nothing"), 404, "not_found")["detail"]
    answer = await client.patch("/v1/limits")
    assert "use GET, HEAD, PUT, DELETE" in problem_in(answer, 405, "method_not_allowed")["detail"]
    assert answer.headers["allow"] == "GET, HEAD, PUT, DELETE"
    problem_in(await client.get("/docs"), 404, "not_found")


async def test_head_is_get_without_the_body(client: httpx2.AsyncClient) -> None:
    for path, status in (("/healthz", 200), ("/metrics", 200), ("/v1/usage?limit=0", 422), ("/v1/no", 404)):
        wanted, head = await client.get(path), await client.head(path)
        assert (wanted.status_code, head.status_code, head.content) == (status, status, b""), path
        assert head.headers["content-type"] == wanted.headers["content-type"]
    assert (await client.head("/v1/check")).headers["allow"] == "POST"
    assert (await client.head("/v1/stream")).headers["content-type"].startswith("text/event-stream")


async def test_a_failure_nobody_expected_tells_nothing_of_itself(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @site.api.get("/broken")
    async def broken() -> None:
        raise RuntimeError("secret detail")

    async with site.client() as client:
        answer = await client.get("/broken")
        problem_in(answer, 500, "internal_error")
        assert "secret" not in answer.text
    assert "secret detail" in caplog.text


async def test_health_needs_nobody_and_readiness_reads_the_ledger(site: Site) -> None:
    transport = httpx2.ASGITransport(app=site.api)
    async with httpx2.AsyncClient(transport=transport, base_url="http://meter") as nobody:
        assert (await ok(await nobody.get("/healthz"))) == {"status": "ok"}
        assert (await ok(await nobody.get("/readyz"))) == {"status": "ready"}
        await site.meter.ledger.__aexit__(None, None, None)
        assert (await nobody.get("/healthz")).status_code == 200
        assert (await nobody.get("/readyz")).headers["retry-after"] == "1"
        problem_in(await nobody.get("/readyz"), 503, "overloaded")


async def test_metrics_name_nobody(site: Site, client: httpx2.AsyncClient) -> None:
    await use(site.meter, agent="secret-agent", service="secret-service", input_tokens=7, cost_usd=0.5)
    await client.put(
        "/v1/limits", json={"agent": "secret-agent", "metric": "cost_usd", "window": "day", "max": 1}
    )
    await client.get("/v1/nothing")
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "secret" not in answer.text
    for line in (
        'agent_meter_events_total{outcome="accepted"} 1.0',
        'agent_meter_tokens_total{kind="input"} 7.0',
        "agent_meter_cost_usd_total 0.5",
        "agent_meter_limits 1.0",
        'agent_meter_http_responses_total{role="operator",status="404"} 1.0',
    ):
        assert line in answer.text
    assert 'metric="cost_usd",window="day"' in answer.text
    open_metrics = await client.get("/metrics", headers={"accept": "application/openmetrics-text"})
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
    assert open_metrics.text.endswith("# EOF\n")
    async with site.client(VIEWER) as viewer:
        assert (await viewer.get("/metrics")).status_code == 200
