"""The hooks of agent harnesses over HTTP, with what those really send (Claude Code 2.1.330, Codex 0.169)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agent_meter_mcp.core.models import LimitKey, Subject
from agent_meter_mcp.core.queries import EventsQuery, UsageFilter
from tests.faces.conftest import BOT, OPERATOR, SERVICE, VIEWER

from .conftest import Site, problem_in, use

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import StoredEvent

PROMPT: dict[str, Any] = {
    "session_id": "684568a8-9ac5-43ef-b35c-80355325604d",
    "transcript_path": "~/.claude/projects/-srv-proj/684568a8-9ac5-43ef-b35c-80355325604d.jsonl",
    "cwd": "/srv/proj",
    "prompt_id": "f389903f-00b7-42ee-b8a8-c8d9203b0e37",
    "permission_mode": "default",
    "hook_event_name": "UserPromptSubmit",
    "prompt": "say hi using bash",
}
BATCH: dict[str, Any] = {
    **PROMPT,
    "hook_event_name": "PostToolBatch",
    "effort": {"level": "medium"},
    "tool_calls": [],
}


async def exhaust(site: Site, agent: str) -> None:
    """The agent has used its one request."""
    await site.meter.ledger.set_limit(OPERATOR, LimitKey(Subject("agent", agent), None, "requests", "day"), 1)
    await use(site.meter, agent=agent)


async def refused(site: Site) -> list[StoredEvent]:
    page = await site.meter.ledger.events(OPERATOR, EventsQuery(UsageFilter(outcome="rejected")))
    return list(page.events)


async def test_who_has_budget_hears_nothing(site: Site) -> None:
    async with site.client() as client:
        for harness in ("claude-code", "codex", "gemini"):
            answer = await client.post(f"/hooks/{harness}", json=PROMPT)
            assert (answer.status_code, answer.json()) == (200, {})
    assert await refused(site) == []


@pytest.mark.parametrize(
    ("harness", "agent", "event", "said"),
    [
        ("claude-code", "claude-code", "UserPromptSubmit", {"decision": "block"}),
        ("claude-code", "claude-code", "PostToolBatch", {"continue": False}),
        ("codex", "codex", "UserPromptSubmit", {"decision": "block"}),
        ("gemini", "gemini-cli", "BeforeModel", {"decision": "deny"}),
    ],
)
async def test_who_is_over_is_ended_in_the_words_of_its_harness(
    site: Site, harness: str, agent: str, event: str, said: dict[str, Any]
) -> None:
    await exhaust(site, agent)
    async with site.client() as client:
        answer = await client.post(f"/hooks/{harness}", json={**PROMPT, "hook_event_name": event})
    told = answer.json()
    assert answer.status_code == 200
    assert {name: told[name] for name in said} == said
    (reason,) = (value for name, value in told.items() if name not in said)
    assert "1 of 1" in reason
    (kept,) = await refused(site)
    who = kept.event.who
    assert (who.agent, who.project, who.session) == (agent, PROMPT["cwd"], PROMPT["session_id"])


async def test_an_event_that_stops_nothing_tells_the_user_and_keeps_nothing(site: Site) -> None:
    await exhaust(site, "claude-code")
    async with site.client() as client:
        told = (await client.post("/hooks/claude-code", json={**PROMPT, "hook_event_name": "Stop"})).json()
    assert list(told) == ["systemMessage"]
    assert await refused(site) == []


async def test_the_header_says_who_it_is_and_a_key_more(site: Site) -> None:
    await exhaust(site, "bot")
    async with site.client() as operator, site.client(BOT) as bot, site.client(SERVICE) as service:
        assert (await operator.post("/hooks/claude-code", json=BATCH)).json() == {}
        told = await operator.post("/hooks/claude-code", json=BATCH, headers={"X-Agent-Id": "bot"})
        assert told.json()["continue"] is False
        problem_in(await service.post("/hooks/claude-code", json=BATCH), 403, "forbidden")
        assert (await bot.post("/hooks/claude-code", json=BATCH)).json()["continue"] is False
        another = await bot.post("/hooks/claude-code", json=BATCH, headers={"X-Agent-Id": "ann"})
        problem_in(another, 403, "forbidden")


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
async def test_a_name_in_a_header_is_the_agent_s_however_it_is_encoded(site: Site, encoding: str) -> None:
    await exhaust(site, "Zoë")
    async with site.client() as client:
        sent = {b"X-Agent-Id": "Zoë".encode(encoding)}
        told = await client.post("/hooks/claude-code", json=BATCH, headers=sent)
    assert told.json()["continue"] is False


async def test_who_only_looks_is_refused_and_so_is_what_is_no_hook(site: Site) -> None:
    async with site.client() as client, site.client(VIEWER) as viewer:
        problem_in(await viewer.post("/hooks/codex", json=PROMPT), 403, "forbidden")
        problem_in(await client.post("/hooks/cursor", json=PROMPT), 422, "invalid_input")
        nameless = await client.post("/hooks/codex", json={"session_id": "s"})
        assert problem_in(nameless, 422, "invalid_input")["field"] == "hook_event_name"
        broken = await client.post("/hooks/codex", json={**PROMPT, "hook_event_name": "a\nb"})
        assert problem_in(broken, 422, "invalid_input")["field"] == "hook_event_name"
        star = await client.post("/hooks/codex", json=PROMPT, headers={"X-Agent-Id": "*"})
        assert problem_in(star, 422, "invalid_input")["field"] == "agent"


async def test_a_session_or_folder_that_can_be_no_name_is_not_looked_at(site: Site) -> None:
    await exhaust(site, "codex")
    odd = {**PROMPT, "cwd": "x" * 5000, "session_id": 7}
    async with site.client() as client:
        assert (await client.post("/hooks/codex", json=odd)).json()["decision"] == "block"
    (kept,) = await refused(site)
    assert (kept.event.who.project, kept.event.who.session) == (None, None)
