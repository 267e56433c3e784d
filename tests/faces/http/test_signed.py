"""Signed requests, receipts, attestations and whole sessions."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from agent_meter_mcp.core import attest
from agent_meter_mcp.core.roles import Caller

from .upstream_app import Service, record, serving

SECRETS = (
    'receipt = "receipts-secret"\n[agents]\nbot-123 = "bots-secret"\n[services]\nmy-api = "apis-secret"\n'
)
BODY = json.dumps({"records": [record(1), record(2, agent={"agentId": "other"})]}).encode()
SIGNATURE = attest.signature_of("bots-secret", BODY)
SIGNED = {"X-Agent-Id": "bot-123", "X-Agent-Signature": SIGNATURE}
SESSION = {
    "id": "19892553-0dfa-49e8-abac-46bff76248c4",
    "ts": "2026-11-23T20:12:25.000Z",
    "api": "api.anthropic.com",
    "model": "claude-opus-5-5",
    "project": "proj",
    "totalCalls": 3,
    "tokensIn": 36,
    "tokensOut": 477,
    "cacheCreation": 16200,
    "cacheRead": 46665,
    "costUsd": 0.410063,
    "source": "hook",
    "purpose": None,
    "intent": None,
}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncGenerator[Service]:
    async with serving(tmp_path) as service:
        service.secrets(SECRETS)
        yield service


async def test_a_signed_request_is_stored_and_gets_a_receipt(service: Service) -> None:
    answer = await service.post("/v1/usage/batch", BODY, headers=SIGNED)
    assert (answer.status_code, answer.json()["accepted"]) == (200, 2)
    receipt = answer.headers["x-usage-receipt"]
    assert receipt == attest.receipt_of("receipts-secret", SIGNATURE)
    for sent, valid in (
        ({"receipt": receipt, "requestSignature": SIGNATURE}, True),
        ({"receipt": receipt, "request_signature": SIGNATURE}, True),
        ({"receipt": receipt, "requestSignature": "0" * 64}, False),
        ({"receipt": "é", "requestSignature": SIGNATURE}, False),
    ):
        assert (await service.post("/v1/receipts/verify", sent)).json() == {"valid": valid}


async def test_a_signed_request_that_is_replayed_is_found_by_its_ids(service: Service) -> None:
    await service.post("/v1/usage/batch", BODY, headers=SIGNED)
    again = await service.post("/v1/usage/batch", BODY, headers=SIGNED)
    assert (again.json()["accepted"], again.json()["duplicatesIgnored"]) == (0, 2)
    body = json.dumps({"records": [{"service": "maps", "agent": "bot-123"}]}).encode()
    headers = {"X-Agent-Id": "bot-123", "X-Agent-Signature": attest.signature_of("bots-secret", body)}
    answer = await service.post("/v1/usage/batch", body, headers=headers)
    assert answer.json()["rejected"][0]["error"].startswith("id: is required in a signed request")
    assert "x-usage-receipt" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Agent-Id": "bot-123"},
        {"X-Agent-Id": "bot-123", "X-Agent-Signature": ""},
        {"X-Agent-Id": "bot-123", "X-Agent-Signature": "0" * 64},
        {"X-Agent-Id": "bot-123", "X-Agent-Signature": SIGNATURE.upper()},
    ],
    ids=str,
)
async def test_a_request_that_its_agent_has_not_signed_is_refused_and_logged_without_the_secret(
    service: Service, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        answer = await service.post("/v1/usage/batch", BODY, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert "www-authenticate" in answer.headers
    assert await service.events() == []
    assert "bot-123" in caplog.text
    assert "bots-secret" not in caplog.text + answer.text


async def test_usage_of_an_agent_that_signs_is_refused_without_its_signature(service: Service) -> None:
    answer = (await service.post("/v1/usage/batch", BODY)).json()
    assert (answer["accepted"], answer["results"][0]["code"]) == (1, "forbidden")
    assert "X-Agent-Signature" in answer["rejected"][0]["error"]
    assert [stored.event.who.agent for stored in await service.events()] == ["other"]
    own = {"service": "maps", "agent": "bot-123"}
    assert (await service.batch(own)).json()["accepted"] == 0
    other = json.dumps({"records": [record(3)]}).encode()
    by = {"X-Agent-Id": "nobody", "X-Agent-Signature": attest.signature_of("bots-secret", other)}
    assert (await service.post("/v1/usage/batch", other, headers=by)).json()["accepted"] == 0


async def test_a_services_key_vouches_for_requests_whose_signature_it_names(service: Service) -> None:
    key = Caller("service", "k", bound_to="my-api")
    answer = await service.batch(
        record(1, requestSignature=SIGNATURE), record(2), record(3, requestSignature="abc"), caller=key
    )
    assert [one["status"] for one in answer.json()["results"]] == ["recorded", "rejected", "rejected"]


async def test_who_has_signed_reports_nothing_of_another_agent_that_signs(service: Service) -> None:
    service.secrets(SECRETS.replace("[agents]", '[agents]\nann = "anns-secret"'))
    body = json.dumps({"records": [record(1), record(2, agent={"agentId": "ann"})]}).encode()
    signed = {"X-Agent-Id": "ann", "X-Agent-Signature": attest.signature_of("anns-secret", body)}
    answer = (await service.post("/v1/usage/batch", body, headers=signed)).json()
    assert [one["status"] for one in answer["results"]] == ["rejected", "recorded"]
    assert [stored.event.who.agent for stored in await service.events()] == ["ann"]


@pytest.mark.parametrize(
    "caller", [Caller("operator", "olga"), Caller("agent", "ann", bound_to="ann")], ids=lambda one: one.role
)
async def test_nobody_but_a_service_vouches_for_a_signature(service: Service, caller: Caller) -> None:
    answer = await service.batch(record(1, requestSignature=SIGNATURE), caller=caller)
    assert answer.json()["results"][0]["code"] == "forbidden"
    assert await service.events() == []


async def test_an_agents_key_alone_is_not_its_signature(service: Service) -> None:
    bot = Caller("agent", "bot", bound_to="bot-123")
    body = json.dumps({"records": [record(1)]}).encode()
    assert (await service.post("/v1/usage/batch", body, bot)).status_code == 401
    signed = {"X-Agent-Signature": attest.signature_of("bots-secret", body)}
    assert (await service.post("/v1/usage/batch", body, bot, signed)).json()["accepted"] == 1


# The file of secrets


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        (SECRETS, 0o640),
        (SECRETS, 0o604),
        ("agents = 5", 0o600),
        ("[agents]\na = 5", 0o600),
        ('[agents]\na = "short"', 0o600),
        ('[agents]\n"" = "long-enough"', 0o600),
        ("[oops]", 0o600),
        ('receipt = "very-secret', 0o600),
    ],
)
async def test_without_usable_secrets_nothing_is_let_through(
    service: Service, text: str, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    service.secrets(text, mode)
    for path in ("/v1/usage/batch", "/v1/sessions/batch"):
        answer = await service.post(path, BODY)
        assert (answer.status_code, answer.json()["code"]) == (503, "secrets_unusable")
        assert answer.headers["retry-after"]
    sent = {"receipt": "x", "requestSignature": "y"}
    assert (await service.post("/v1/receipts/verify", sent)).status_code == 503
    assert (
        await service.post("/v1/attestations", {"service": "my-api", "day": "2026-11-24"})
    ).status_code == 503
    assert "secrets.toml" in caplog.text
    assert "very-secret" not in caplog.text + answer.text
    assert "bots-secret" not in caplog.text + answer.text
    assert await service.events() == []


async def test_the_file_is_read_again_when_it_has_changed(service: Service) -> None:
    assert (await service.batch(record(1))).json()["accepted"] == 0
    service.secrets("")
    assert (await service.batch(record(1))).json()["accepted"] == 1
    service.secrets('[agents]\nbot-123 = "new-secret"')
    assert (await service.batch(record(2))).json()["accepted"] == 0
    (service.folder / "secrets.toml").unlink()
    assert (await service.batch(record(2))).json()["accepted"] == 1


async def test_without_a_secret_there_are_no_receipts_and_no_attestations(service: Service) -> None:
    service.secrets("")
    sent = {"receipt": "x", "requestSignature": "y"}
    assert (await service.post("/v1/receipts/verify", sent)).status_code == 404
    asked = {"service": "my-api", "day": "2026-11-24"}
    assert (await service.post("/v1/attestations", asked)).status_code == 404
    curious = Caller("service", "k", bound_to="other")  # is not told which services have a secret
    assert (await service.post("/v1/attestations", asked, curious)).status_code == 403


# Attestations


async def test_a_day_of_a_service_is_attested_in_the_order_in_which_it_was_recorded(service: Service) -> None:
    service.secrets(SECRETS.replace("bot-123", "another"))
    await service.batch(
        record(1, metadata={"tiny": 1e-7, "big": 1e21, "10": "é\u2028", "9": [0.00001]}),
        record(2, timestamp="2026-11-23T23:59:59.999Z"),
        record(3, serviceId="other"),
        record(4, units=2.5),
        {"service": "my-api", "agent": "a", "input_tokens": 5, "output_tokens": 7, "id": "ours"},
    )
    answer = await service.post("/v1/attestations", {"service": "my-api", "day": "2026-11-24"})
    assert answer.status_code == 200
    assert attest.verify("apis-secret", answer.content) == attest.Checked("my-api", 3, ())
    made = answer.json()
    assert [one["id"] for one in made["records"]] == [f"{1:032x}", f"{4:032x}", "ours"]
    assert (made["records"][2]["units"], made["records"][2]["unitType"]) == (12, "token")
    assert made["timestamp"] == "2026-11-24T12:00:00.000Z"
    since = {"service": "my-api", "since": "2026-11-23T00:00:00Z", "until": "2026-11-24T00:00:00Z"}
    assert (await service.post("/v1/attestations", since)).json()["recordCount"] == 1
    zone = {"service": "my-api", "day": "2026-11-24", "timezone": "Pacific/Auckland"}
    assert (await service.post("/v1/attestations", zone)).json()["recordCount"] == 1


async def test_a_batch_is_attested_by_its_ids(service: Service) -> None:
    service.secrets(SECRETS.replace("bot-123", "another"))
    await service.batch(*(record(number) for number in range(5)), record(9, serviceId="other"))
    ids = [f"{number:032x}" for number in (3, 1)]
    answer = await service.post("/v1/attestations", {"service": "my-api", "ids": ids})
    assert [int(one["id"], 16) for one in answer.json()["records"]] == [1, 3]
    missing = await service.post("/v1/attestations", {"service": "my-api", "ids": [*ids, f"{9:032x}"]})
    assert (missing.status_code, missing.json()["field"]) == (422, "ids")


@pytest.mark.parametrize(
    "sent",
    [
        {}, [], {"service": "my-api"}, {"service": "my-api", "day": "today"},
        {"service": "my-api", "day": "2026-02-30"}, {"service": "my-api", "day": "9999-12-31"},
        {"service": "my-api", "day": "2026-11-24", "timezone": "Mars"},
        {"service": "my-api", "day": "2026-11-24", "ids": ["a"]}, {"service": "my-api", "ids": []},
        {"service": "my-api", "ids": [""]}, {"service": "my-api", "until": "2026-11-24T00:00:00Z"},
        {"service": "my-api", "since": "2026-11-24T00:00:00Z", "until": "2026-11-23T00:00:00Z"},
        {"service": "my-api", "day": "2026-11-24", "oops": 1}, {"service": "my-api", "day": "2020-01-01"},
    ],
    ids=str,
)  # fmt: skip
async def test_an_attestation_that_cannot_be_is_refused(service: Service, sent: Any) -> None:
    answer = await service.post("/v1/attestations", sent)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


async def test_who_does_not_see_all_of_it_attests_nothing(service: Service) -> None:
    asked = {"service": "my-api", "day": "2026-11-24"}
    for caller in (Caller("agent", "bot", bound_to="bot-123"), Caller("service", "k", bound_to="my-api")):
        assert (await service.post("/v1/attestations", asked, caller)).status_code == 403


# Sessions


async def test_what_the_sync_script_sends_is_stored_once(service: Service) -> None:
    body = {"agentName": "macbook-claude-code", "sessions": [SESSION]}
    assert (await service.get("/v1/sessions/status")).json() == {
        "ok": True,
        "role": "operator",
        "agent": None,
    }
    answer = await service.post("/v1/sessions/batch", body)
    assert (answer.status_code, answer.json()) == (
        200,
        {"accepted": 1, "duplicatesIgnored": 0, "rejected": []},
    )
    assert (await service.post("/v1/sessions/batch", body)).json()["duplicatesIgnored"] == 1
    (stored,) = await service.events()
    usage, who = stored.event.usage, stored.event.who
    assert (who.agent, who.service, who.project) == ("macbook-claude-code", "api.anthropic.com", "proj")
    assert (usage.requests, usage.tokens, usage.cost_nano_usd) == (3, 63_378, 410_063_000)
    assert (stored.event.source, usage.cost_source) == ("import", "reported")


@pytest.mark.parametrize("role", ["operator", "agent", "service"])
async def test_a_session_that_has_gone_on_is_corrected(service: Service, role: Any) -> None:
    """By whoever may record it: a service's key reads nothing."""
    bound_to = {"operator": None, "agent": "lap", "service": str(SESSION["api"])}[role]
    caller = Caller(role, "k", bound_to=bound_to)
    later = {**SESSION, "ts": "2026-11-23T21:00:00.000Z", "totalCalls": 5, "tokensOut": 900, "costUsd": 0.5}
    for sent, accepted in (
        (SESSION, 1),
        (later, 1),
        (later, 0),
        ({**later, "ts": "2026-11-23T22:00:00Z"}, 0),
    ):
        answer = await service.post("/v1/sessions/batch", {"agentName": "lap", "sessions": [sent]}, caller)
        assert (answer.json()["accepted"], answer.json()["rejected"]) == (accepted, [])
    (stored,) = await service.events()
    assert (stored.event.usage.requests, stored.event.usage.cost_nano_usd) == (5, 500_000_000)
    shrunk = await service.post("/v1/sessions/batch", {"agentName": "lap", "sessions": [SESSION]}, caller)
    assert len(shrunk.json()["rejected"]) == 1


async def test_a_session_of_no_project_is_stored(service: Service) -> None:
    """Upstream's hook writes "" where it was not told the folder."""
    sent = {**SESSION, "project": "", "model": ""}
    answer = await service.post("/v1/sessions/batch", {"agentName": "lap", "sessions": [sent]})
    assert (answer.json()["accepted"], answer.json()["rejected"]) == (1, [])
    (stored,) = await service.events()
    assert (stored.event.who.project, stored.event.usage.model) == (None, None)


async def test_a_session_that_goes_on_in_another_folder_stays_where_it_began(service: Service) -> None:
    """Upstream's hook names the folder in which Claude Code is at that moment, and `cd` changes it: what was
    used from then on was refused."""
    key = Caller("service", "k", bound_to=str(SESSION["api"]))
    later = {**SESSION, "project": "tests", "totalCalls": 5, "tokensOut": 900, "costUsd": 0.5}
    for sent in (SESSION, later, {**later, "ts": "2026-11-23T21:00:00.000Z", "totalCalls": 6}):
        answer = await service.post("/v1/sessions/batch", {"agentName": "lap", "sessions": [sent]}, key)
        assert (answer.json()["accepted"], answer.json()["rejected"]) == (1, [])
    (stored,) = await service.events()
    assert (stored.event.usage.requests, stored.event.who.project) == (6, "proj")
    again = await service.post("/v1/sessions/batch", {"agentName": "other", "sessions": [later]}, key)
    assert len(again.json()["rejected"]) == 1


async def test_sessions_that_cannot_be_are_named_and_the_others_are_stored(service: Service) -> None:
    bad = [5, {}, {**SESSION, "tokensIn": -1}, {**SESSION, "tokensIn": 1.5}, {**SESSION, "ts": "x"}]
    answer = await service.post("/v1/sessions/batch", {"agentName": "lap", "sessions": [*bad, SESSION]})
    assert answer.json()["accepted"] == 1
    assert [one["index"] for one in answer.json()["rejected"]] == [0, 1, 2, 3, 4]
    bodies: list[dict[str, Any]] = [
        {},
        {"sessions": [SESSION]},
        {"agentName": "lap", "sessions": []},
        {"agentName": 5, "sessions": [1]},
    ]
    for body in bodies:
        assert (await service.post("/v1/sessions/batch", body)).status_code == 422
    assert (await service.post("/v1/sessions/batch", b"{")).status_code == 400


async def test_a_services_key_says_whose_sessions_it_syncs(service: Service) -> None:
    """It is bound to a service, and that is nobody who could have used anything."""
    key = Caller("service", "k", bound_to=str(SESSION["api"]))
    answer = await service.post("/v1/sessions/batch", {"sessions": [SESSION]}, key)
    assert (answer.status_code, answer.json()["field"]) == (422, "agentName")
    answer = await service.post("/v1/sessions/batch", {"agentName": "lap", "sessions": [SESSION]}, key)
    assert answer.json()["accepted"] == 1
    assert [stored.event.who.agent for stored in await service.events()] == ["lap"]
    assert (await service.get("/v1/sessions/status", key)).json() == {
        "ok": True, "role": "service", "agent": None,
    }  # fmt: skip


async def test_an_agents_key_may_sync_its_own_sessions(service: Service) -> None:
    lap = Caller("agent", "lap", bound_to="lap", default_agent="lap")
    answer = await service.post("/v1/sessions/batch", {"agentName": "lap", "sessions": [SESSION]}, lap)
    assert answer.json()["accepted"] == 1
    other = await service.post("/v1/sessions/batch", {"agentName": "other", "sessions": [SESSION]}, lap)
    assert other.json()["accepted"] == 0
