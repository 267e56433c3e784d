"""The routes of upstream's clients over a real ledger, and requests to them as those clients make them."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
from anyio import to_thread
from fastapi import FastAPI

from agent_meter_mcp.core.models import LimitKey, StoredEvent, Subject
from agent_meter_mcp.core.queries import EventsQuery, UsageFilter
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.faces.http import CALLER
from agent_meter_mcp.faces.http.failures import tell_failures
from agent_meter_mcp.faces.http.upstream import router
from agent_meter_mcp.ledger import Ledger
from agent_meter_mcp.prices import PriceBook
from agent_meter_mcp.runtime import new_id
from agent_meter_mcp.secrets import SecretsFile
from agent_meter_mcp.store.sqlite import open_store

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

NOON_US = 1_795_521_600_000_000
"""2026-11-24T12:00:00Z, the day after upstream's records were captured."""
OPERATOR = Caller("operator", "olga")


class As:
    """Requests come from this caller."""

    def __init__(self, app: ASGIApp, caller: Caller) -> None:
        self.app = app
        self.caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[CALLER] = self.caller
        await self.app(scope, receive, send)


class Service:
    """A server with upstream's routes. `now_us` is its clock."""

    def __init__(self, folder: Path) -> None:
        self.now_us = NOON_US
        self.folder = folder
        self.ledger: Ledger
        self.api = FastAPI()
        self.api.include_router(router)
        self.api.state.timezone = "UTC"
        self.api.state.secrets = SecretsFile(str(folder / "secrets.toml"))
        tell_failures(self.api)

    @asynccontextmanager
    async def client(self, caller: Caller = OPERATOR) -> AsyncGenerator[httpx2.AsyncClient]:
        transport = httpx2.ASGITransport(As(self.api, caller))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield client

    async def post(
        self,
        path: str,
        body: Any,
        caller: Caller = OPERATOR,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """`body` is JSON, or bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.client(caller) as client:
            sent = {"content-type": "application/json", "user-agent": "node", **(headers or {})}
            return await client.post(path, content=content, headers=sent)

    async def batch(self, *records: Any, caller: Caller = OPERATOR, **headers: str) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.post("/v1/usage/batch", {"records": records}, caller, named)

    async def get(self, path: str, caller: Caller = OPERATOR, **query: Any) -> httpx2.Response:
        async with self.client(caller) as client:
            return await client.get(path, params=query)

    async def events(self) -> list[StoredEvent]:
        """The oldest first."""
        page = await self.ledger.events(OPERATOR, EventsQuery(UsageFilter(), 500))
        return [*page.events][::-1]

    async def limit(self, maximum: int, window: str = "60s", subject: Subject | None = None) -> None:
        key = LimitKey(subject or Subject("agent", "*"), None, "requests", window)
        await self.ledger.set_limit(OPERATOR, key, maximum)

    def secrets(self, text: str, mode: int = 0o600) -> None:
        path = self.folder / "secrets.toml"
        path.write_text(text, encoding="utf-8")
        os.chmod(path, mode)


@asynccontextmanager
async def serving(folder: Path) -> AsyncGenerator[Service]:
    service = Service(folder)
    store = await to_thread.run_sync(open_store, str(folder / "usage.db"))
    prices = PriceBook(folder / "prices.toml")
    async with Ledger(store, prices, lambda: service.now_us, new_id, poll_s=0.02) as ledger:
        service.ledger = service.api.state.ledger = ledger
        yield service


def record(number: int = 1, **fields: Any) -> dict[str, Any]:
    """One of upstream's records, of a minute before noon."""
    return {
        "id": f"{number:032x}",
        "timestamp": "2026-11-24T11:59:00.250Z",
        "serviceId": "my-api",
        "agent": {"agentId": "bot-123", "name": "TestBot"},
        "operation": "POST /api/generate",
        "units": 1,
        "unitType": "request",
        "pricingModel": "per-call",
        "method": "POST",
        "path": "/api/generate",
        "statusCode": 200,
        "durationMs": 12,
        **fields,
    }
