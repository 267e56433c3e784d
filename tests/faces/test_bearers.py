"""The tools over HTTP: whose key it is decides what they do, as `--agent` does on stdio."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx2
import pytest
from mcp import MCPError
from mcp.client.subscriptions import SubscriptionLost
from mcp.types import CallToolResult, ResourceTemplateReference

from agent_meter_mcp import Meter as Program
from agent_meter_mcp.core.commands import Reserved
from agent_meter_mcp.core.models import Usage, Who
from agent_meter_mcp.intake import Report

from .conftest import OPERATOR, Meter, text_of
from .door import SECONDS, browser, listening, living, site_of, tools_client
from .test_rights import CALLS, READING, USING

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from agent_meter_mcp.core.roles import Role

BOUND_TO: dict[Role, str | None] = {"agent": "bot", "service": "openai", "viewer": None, "operator": None}
MAY: dict[Role, set[str]] = {
    "agent": READING | USING,
    "service": USING - {"gate"},
    "viewer": READING,
    "operator": set(CALLS),
}
POST = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
HELLO: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "raw", "version": "1"},
    },
}
LIST: dict[str, Any] = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}


async def token_of(meter: Meter, role: Role) -> str:
    return (await meter.ledger.create_key(OPERATOR, role, BOUND_TO[role], f"the {role}"))[1]


@pytest.fixture
async def site(meter: Meter) -> AsyncGenerator[ASGIApp]:
    """`bot` and `ann` have used something, and there is a limit that can be removed."""
    async with meter.tools() as operator:
        for agent in ("bot", "ann"):
            await operator("record_usage", agent=agent, service="openai", cost_usd=1)
        await operator("set_limit", metric="requests", window="day", max=9)
    made = site_of(meter.ledger)
    async with living(made):
        yield made


async def called(site: ASGIApp, token: str, tool: str, arguments: dict[str, Any]) -> CallToolResult:
    async with browser(site, token) as web, tools_client(web) as client:
        result = await client.call_tool(tool, arguments)
        assert isinstance(result, CallToolResult)
        return result


@pytest.mark.parametrize("tool", CALLS)
@pytest.mark.parametrize("role", MAY)
async def test_a_key_may_do_what_its_role_may(meter: Meter, site: ASGIApp, role: Role, tool: str) -> None:
    held = await meter.ledger.reserve(OPERATOR, Report(Who("bot", "openai"), Usage()))
    assert isinstance(held, Reserved)
    assert held.reservation is not None
    reservation = {"reservation_id": held.reservation.reservation_id}
    token = await token_of(meter, role)
    before = await meter.ledger.audit(OPERATOR)

    arguments = reservation if tool == "settle_reservation" else CALLS[tool]
    result = await called(site, token, tool, arguments)

    if tool in MAY[role]:
        assert not result.is_error, text_of(result)
    else:
        assert result.is_error
        assert role in text_of(result) or "bound to" in text_of(result)
        assert "Nothing was changed" in text_of(result)
        assert await meter.ledger.audit(OPERATOR) == before


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_key_of_an_agent_is_that_agent(meter: Meter, mode: Any) -> None:
    """Whatever the client calls itself, and whatever the call says."""
    token = await token_of(meter, "agent")
    async with (
        listening(site_of(meter.ledger)) as url,
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as web,
        tools_client(web, url, mode) as client,
    ):
        mine = await client.call_tool("record_usage", {"service": "openai"})
        assert not mine.is_error
        theirs = await client.call_tool("record_usage", {"service": "openai", "agent": "ann"})
        assert isinstance(theirs, CallToolResult)
        assert "you are bound to agent 'bot'" in text_of(theirs)
        stopped = await client.call_tool(
            "set_kill_switch", {"engaged": True, "agent": "bot", "reason": "enough"}
        )
        assert not stopped.is_error
    async with meter.tools() as operator:
        events = (await operator("list_usage_events"))["events"]
        assert [event["agent"] for event in events] == ["bot"]
    (entry, _) = await meter.ledger.audit(OPERATOR)
    assert entry.actor == f"the agent ({token[:11]}) via mcp"


async def test_the_key_of_an_agent_need_not_say_whose_it_is(meter: Meter, tmp_path: Path) -> None:
    """On the routes and through the client as well as at /mcp."""
    token = await token_of(meter, "agent")
    async with (
        listening(site_of(meter.ledger)) as url,
        httpx2.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {token}"}) as web,
        Program(url=url, key=token, spool=tmp_path) as program,
    ):
        batch = (await web.post("/v1/usage/batch", json={"records": [{"service": "openai"}]})).json()
        assert batch["rejected"] == []
        assert (await web.post("/v1/check", json={})).json()["allowed"] is True
        assert (await web.post("/v1/reservations", json={"service": "openai"})).status_code == 201
        assert (await program.check()).allowed
        assert (await program.record(service="openai")).status == "recorded"
        async with program.reserve(service="openai") as hold:
            assert hold.reservation_id is not None
    async with meter.tools() as operator:
        events = (await operator("list_usage_events"))["events"]
        assert [event["agent"] for event in events] == ["bot"] * 3


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_key_of_an_agent_reads_and_completes_its_own(meter: Meter, mode: Any) -> None:
    async with meter.tools() as operator:
        for agent in ("bot", "ann"):
            await operator("record_usage", agent=agent, service="openai")
    token = await token_of(meter, "agent")
    async with (
        listening(site_of(meter.ledger)) as url,
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as web,
        tools_client(web, url, mode) as client,
    ):
        await client.read_resource("meter://agents/bot")
        with pytest.raises(MCPError, match="you are bound to agent 'bot'"):
            await client.read_resource("meter://agents/ann")
        template = ResourceTemplateReference(uri="meter://agents/{agent_id}")
        found = await client.complete(template, {"name": "agent_id", "value": ""})
        assert found.completion.values == ["bot"]


async def test_the_key_of_a_service_reports_for_any_agent_there_and_is_none_itself(
    meter: Meter, site: ASGIApp
) -> None:
    token = await token_of(meter, "service")
    named = await called(site, token, "record_usage", {"service": "openai", "agent": "cy"})
    unnamed = await called(site, token, "record_usage", {"service": "openai"})
    elsewhere = await called(site, token, "record_usage", {"service": "other", "agent": "cy"})
    assert not named.is_error
    assert not unnamed.is_error
    assert "you are bound to service 'openai'" in text_of(elsewhere)
    assert await meter.ledger.names(OPERATOR, "agent", "") == ["ann", "bot", "cy", "mcp"]


@pytest.mark.parametrize("other", ["agent", "operator", None])
async def test_a_session_answers_only_to_the_key_that_began_it(meter: Meter, other: Role | None) -> None:
    first = await token_of(meter, "agent")
    second = None if other is None else await token_of(meter, other)
    async with listening(site_of(meter.ledger)) as url, httpx2.AsyncClient(base_url=url) as web:

        async def posted(body: Any, token: str | None, **headers: str) -> httpx2.Response:
            bearer = {} if token is None else {"authorization": f"Bearer {token}"}
            return await web.post("/mcp", json=body, headers={**POST, **bearer, **headers})

        begun = await posted(HELLO, first)
        session = {"mcp-session-id": begun.headers["mcp-session-id"]}
        assert (await posted(LIST, first, **session)).status_code == 200
        assert (await posted(LIST, second, **session)).status_code == (401 if second is None else 404)
        for method in ("GET", "DELETE"):
            bearer = {} if second is None else {"authorization": f"Bearer {second}"}
            refused = await web.request(method, "/mcp", headers={**POST, **bearer, **session})
            assert refused.status_code == (401 if second is None else 404)
        assert (await posted(LIST, first, **session)).status_code == 200


async def test_a_session_without_a_key_is_over_when_there_is_one(meter: Meter) -> None:
    async with listening(site_of(meter.ledger)) as url, httpx2.AsyncClient(base_url=url, headers=POST) as web:
        begun = await web.post("/mcp", json=HELLO)
        session = {"mcp-session-id": begun.headers["mcp-session-id"]}
        assert (await web.post("/mcp", json=LIST, headers=session)).status_code == 200
        token = await token_of(meter, "operator")
        assert (await web.post("/mcp", json=LIST, headers=session)).status_code == 401
        bearer = {"authorization": f"Bearer {token}"}
        assert (await web.post("/mcp", json=LIST, headers={**session, **bearer})).status_code == 404


@pytest.mark.parametrize("end", ["revoked", "expired"])
async def test_a_stream_ends_with_its_key(meter: Meter, end: str) -> None:
    expires_at_us = meter.clock.now_us + 1_000_000 if end == "expired" else None
    key, token = await meter.ledger.create_key(OPERATOR, "viewer", expires_at_us=expires_at_us)
    async with (
        listening(site_of(meter.ledger)) as url,
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as web,
        tools_client(web, url) as watcher,
        meter.tools() as operator,
    ):
        async with watcher.listen(resource_subscriptions=["meter://alerts"]) as heard:
            if end == "revoked":
                await meter.ledger.revoke_key(OPERATOR, key.key_id)
            else:
                meter.clock.advance(1)
            lost = anyio.Event()

            async def watch() -> None:
                try:
                    async for _ in heard:
                        pass
                finally:
                    lost.set()

            async def alert() -> None:
                number = 0
                while not lost.is_set():
                    number += 1
                    await operator("set_limit", agent=f"a{number}", max=1, metric="requests", window="day")
                    await operator("record_usage", agent=f"a{number}", service="openai")

            with anyio.fail_after(SECONDS):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(alert)
                    with pytest.raises(SubscriptionLost):
                        await watch()
