"""Who may use which route: each cell of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.faces.conftest import BOT, OPERATOR, SERVICE, VIEWER

from .conftest import Site, problem_in

if TYPE_CHECKING:
    from agent_meter_mcp.core.roles import Caller

STEP = {"agent": "bot", "service": "openai"}
LIMIT = {"metric": "requests", "window": "day"}
ROUTES: list[tuple[str, str, Any, str, int]] = [
    ("GET", "/v1/status", None, "operator viewer agent", 200),
    ("GET", "/v1/summary", None, "operator viewer agent", 200),
    ("GET", "/v1/usage", None, "operator viewer agent", 200),
    ("GET", "/v1/agents", None, "operator viewer agent", 200),
    ("GET", "/v1/alerts", None, "operator viewer agent", 200),
    ("GET", "/v1/limits", None, "operator viewer agent", 200),
    ("GET", "/v1/reservations", None, "operator viewer agent", 200),
    ("GET", "/metrics", None, "operator viewer agent", 200),
    ("GET", "/v1/audit", None, "operator viewer", 200),
    ("PUT", "/v1/agents/bot", {"tier": "gold"}, "operator", 200),
    ("PUT", "/v1/limits", {**LIMIT, "max": 99}, "operator", 200),
    ("DELETE", "/v1/limits?metric=requests&window=month", None, "operator", 200),
    ("PUT", "/v1/kill-switch", {"engaged": True, "agent": "ann", "reason": "x"}, "operator", 200),
    ("PUT", "/v1/kill-switch", {"engaged": True, "agent": "bot", "reason": "x"}, "operator agent", 200),
    ("PUT", "/v1/kill-switch", {"engaged": False, "agent": "bot"}, "operator", 200),
    ("POST", "/v1/check", STEP, "operator agent service", 200),
    ("POST", "/v1/check", {**STEP, "agent": "ann"}, "operator service", 200),
    ("POST", "/v1/check", {**STEP, "service": "exa"}, "operator agent", 200),
    ("POST", "/hooks/codex", {"hook_event_name": "UserPromptSubmit"}, "operator agent", 200),
    ("POST", "/v1/logs", {"resourceLogs": []}, "operator agent service", 200),
    ("POST", "/v1/traces", {"resourceSpans": []}, "operator agent service", 200),
    ("POST", "/v1/metrics", {"resourceMetrics": []}, "operator agent service", 200),
    ("POST", "/v1/reservations", STEP, "operator agent service", 201),
    ("POST", "/v1/reservations", {**STEP, "agent": "ann"}, "operator service", 201),
    ("POST", "/v1/reservations/HELD/settle", {}, "operator agent service", 200),
    ("POST", "/v1/reservations/HELD/settle", {"action": "release"}, "operator agent service", 200),
    ("POST", "/v1/reservations/HELD/settle", {"action": "extend"}, "operator agent service", 200),
]


@pytest.mark.parametrize("caller", [OPERATOR, VIEWER, BOT, SERVICE], ids=lambda caller: caller.role)
async def test_each_role_may_use_the_routes_that_are_for_it(site: Site, caller: Caller) -> None:
    async with site.client() as operator, site.client(caller) as client:
        for agent in ("bot", "ann"):
            await operator.put(f"/v1/agents/{agent}", json={"name": agent})
        for method, path, body, may, status in ROUTES:
            await operator.put("/v1/kill-switch", json={"engaged": False, "agent": "bot"})
            await operator.put("/v1/kill-switch", json={"engaged": False, "agent": "ann"})
            await operator.put("/v1/limits", json={"metric": "requests", "window": "month", "max": 99})
            held = (await operator.post("/v1/reservations", json=STEP)).json()["reservation_id"]
            answer = await client.request(method, path.replace("HELD", held), json=body)
            if caller.role in may.split():
                assert answer.status_code == status, (method, path, answer.text)
            else:
                told = problem_in(answer, 403, "forbidden")
                assert "role" in told["detail"] or "bound to" in told["detail"] or "only" in told["detail"]


async def test_the_stream_is_for_those_who_read(site: Site) -> None:
    async with site.client(SERVICE) as service:
        problem_in(await service.get("/v1/stream"), 403, "forbidden")


async def test_who_measured_what_was_held(site: Site) -> None:
    step = {"agent": "bot", "service": "openai"}
    for caller, sent, source in (
        (OPERATOR, {}, "sdk"),
        (OPERATOR, {"source": "middleware"}, "middleware"),
        (SERVICE, {}, "sdk"),
        (BOT, {}, "self"),
    ):
        async with site.client(caller) as client:
            held = (await client.post("/v1/reservations", json=step | sent)).json()["reservation_id"]
            assert (await client.post(f"/v1/reservations/{held}/settle", json={})).status_code == 200
        async with site.client() as client:
            newest = (await client.get("/v1/usage", params={"limit": 1})).json()["events"][0]
            assert newest["source"] == source
    async with site.client(BOT) as client:
        refused = await client.post("/v1/reservations", json=step | {"source": "sdk"})
        assert problem_in(refused, 422, "invalid_input")["field"] == "source"
