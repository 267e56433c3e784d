"""An API whose agents sign their requests."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from anyio import to_thread
from fastapi import FastAPI, Request

from agent_meter_mcp import MeterMiddleware
from agent_meter_mcp.core.attest import receipt_of, signature_of
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.faces.middleware import signatures
from agent_meter_mcp.faces.wire.upstream import record_text

from .conftest import Books, Exchange, client_of

SECRET = "bots-secret"
BODY = b'{"text": "J\xc3\xbcrgen"}'
SIGNED = {"X-Agent-Signature": signature_of(SECRET, BODY)}


def api(books: Books, secrets: Any = None, **options: Any) -> MeterMiddleware:
    app = FastAPI()
    given = {"bot": SECRET} if secrets is None else secrets

    @app.post("/echo")
    async def echo(request: Request) -> str:
        return (await request.body()).decode()

    @app.get("/items")
    async def items() -> list[str]:
        return []

    return MeterMiddleware(app, "my-api", meter=books.meter, secrets=given, **options)


def always_bot(_: object) -> str:
    return "bot"


def refused(answer: httpx2.Response, status: int, code: str) -> str:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    told = answer.json()
    assert (told["status"], told["code"]) == (status, code)
    return told["detail"]


async def test_a_signed_request_reaches_the_app_as_it_was(books: Books) -> None:
    async with client_of(api(books)) as client:
        answer = await client.post("/echo", content=BODY, headers={**SIGNED, "X-Agent-Name": "Bot"})
    assert answer.json() == BODY.decode()
    assert "x-usage-receipt" not in answer.headers
    (stored,) = await books.settled()
    assert stored.event.who.agent == "bot"
    record = json.loads(record_text(stored))
    assert record["requestSignature"] == SIGNED["X-Agent-Signature"]
    assert record["agent"] == {"agentId": "bot", "name": "Bot"}


@pytest.mark.parametrize(
    ("headers", "how"),
    [
        ([], "unsigned"),
        ([("X-Agent-Signature", "")], "unsigned"),
        ([("X-Agent-Signature", "0" * 64)], "wrongly signed"),
        ([("X-Agent-Signature", SIGNED["X-Agent-Signature"].upper())], "wrongly signed"),
        ([("X-Agent-Signature", signature_of("another-secret", BODY))], "wrongly signed"),
        ([("X-Agent-Signature", signature_of(SECRET, BODY + b" "))], "wrongly signed"),
        ([("X-Agent-Signature", SIGNED["X-Agent-Signature"]), ("X-Agent-Signature", "0" * 64)], "unsigned"),
    ],
)
async def test_who_has_a_secret_and_has_not_signed_is_refused(
    books: Books, caplog: pytest.LogCaptureFixture, headers: list[tuple[str, str]], how: str
) -> None:
    app = api(books)
    with caplog.at_level(logging.WARNING):
        async with client_of(app) as client:
            answer = await client.post("/echo", content=BODY, headers=[("X-Agent-Id", "bot"), *headers])
    assert refused(answer, 401, "unauthorized").startswith(f"The request is {how}: ")
    assert answer.headers["www-authenticate"].startswith("HMAC-SHA256")
    assert "of agent bot" in caplog.text
    assert SECRET not in caplog.text + answer.text
    assert not await books.events()
    assert await books.holds() == 0


async def test_nothing_is_signed_by_signing_nothing(books: Books) -> None:
    async with client_of(api(books)) as client:
        assert (await client.get("/items")).status_code == 401
        for nothing in (b"", b'""'):  # in Rust, and in TypeScript
            signed = {"X-Agent-Signature": signature_of(SECRET, nothing)}
            assert (await client.get("/items", headers=signed)).status_code == 200
    assert len(await books.settled(2)) == 2


async def test_who_has_no_secret_need_not_sign_unless_all_must(books: Books) -> None:
    async with client_of(api(books), "ann") as client:
        assert (await client.post("/echo", content=BODY)).status_code == 200
    app = api(books, {"*": "everybodys-secret", "bot": SECRET})
    for agent in ("ann", None):
        async with client_of(app, agent) as client:
            assert (await client.post("/echo", content=BODY)).status_code == 401
            signed = {"X-Agent-Signature": signature_of("everybodys-secret", BODY)}
            assert (await client.post("/echo", content=BODY, headers=signed)).status_code == 200
    async with client_of(app) as client:
        assert (await client.post("/echo", content=BODY, headers=signed)).status_code == 401
        assert (await client.post("/echo", content=BODY, headers=SIGNED)).status_code == 200


async def test_whom_the_app_identifies_signs_too(books: Books) -> None:
    async with client_of(api(books, identify=always_bot), "ann") as client:
        assert (await client.post("/echo", content=BODY)).status_code == 401
        assert (await client.post("/echo", content=BODY, headers=SIGNED)).status_code == 200


async def test_the_secrets_are_in_a_file_that_may_change(books: Books, tmp_path: Path) -> None:
    file = tmp_path / "secrets.toml"
    with pytest.raises(InvalidInput, match="is not there"):
        await to_thread.run_sync(api, books, file)
    file.touch(0o600)
    file.write_text(f'receipt = "receipts-secret"\n[agents]\nbot = "{SECRET}"\n')
    async with client_of(await to_thread.run_sync(api, books, file)) as client:
        answer = await client.post("/echo", content=BODY, headers=SIGNED)
        receipt = receipt_of("receipts-secret", SIGNED["X-Agent-Signature"])
        assert (answer.status_code, answer.headers["x-usage-receipt"]) == (200, receipt)
        file.write_text('[agents]\nbot = "another secret"\n')
        assert (await client.post("/echo", content=BODY, headers=SIGNED)).status_code == 401
        file.write_text("[agents")
        refused(await client.post("/echo", content=BODY, headers=SIGNED), 503, "secrets_unusable")
        file.unlink()
        refused(await client.post("/echo", content=BODY, headers=SIGNED), 503, "secrets_unusable")
        file.touch(0o644)
        refused(await client.post("/echo", content=BODY, headers=SIGNED), 503, "secrets_unusable")


@pytest.mark.parametrize("given", [{"bot": ""}, {"bot": "short"}, {"bot": None}])
async def test_a_secret_that_is_none_is_found_at_once(books: Books, given: Any) -> None:
    with pytest.raises(InvalidInput, match="bot"):
        MeterMiddleware(FastAPI(), "my-api", meter=books.meter, secrets=given)


async def test_a_body_that_must_be_signed_is_bounded(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signatures, "BODY_MAX", 1000)
    taken = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(100)

    async with client_of(api(books)) as client:
        answer = await client.post("/echo", content=pieces(), headers=SIGNED)
    refused(answer, 413, "body_too_large")
    assert taken <= 11
    monkeypatch.setattr(signatures, "DEADLINE_S", 0.01)
    slow = Exchange(path="/echo", method="POST")
    slow.scope["headers"].append((b"x-agent-signature", SIGNED["X-Agent-Signature"].encode()))
    await slow.run(api(books))
    assert slow.sent[0]["status"] == 408


async def test_who_leaves_before_the_body_is_whole_is_not_answered(books: Books) -> None:
    gone = Exchange(path="/echo", method="POST")
    gone.scope["headers"].append((b"x-agent-signature", SIGNED["X-Agent-Signature"].encode()))
    gone.incoming.put_nowait({"type": "http.request", "body": b"{", "more_body": True})
    gone.incoming.put_nowait({"type": "http.disconnect"})
    await gone.run(api(books))
    assert gone.sent == []


async def test_a_websocket_is_signed_as_a_request_without_a_body(books: Books) -> None:
    app = api(books)
    unsigned = Exchange("websocket", "/ws")
    unsigned.incoming.put_nowait({"type": "websocket.connect"})
    await unsigned.run(app)
    assert (unsigned.sent[0]["type"], unsigned.sent[0]["code"]) == ("websocket.close", 1008)
    signed = Exchange("websocket", "/ws")
    signed.scope["headers"].append((b"x-agent-signature", signature_of(SECRET, b"").encode()))
    signed.incoming.put_nowait({"type": "websocket.connect"})
    await signed.run(app)
    (stored,) = await books.settled()
    assert stored.event.operation == "WEBSOCKET /ws"
