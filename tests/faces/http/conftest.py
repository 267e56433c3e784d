"""The routes over a ledger in a file. Who asks is put into the scope, as the authentication does it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from agent_meter_mcp.faces.http import CALLER
from agent_meter_mcp.faces.http.app import build_api
from agent_meter_mcp.faces.wire.arguments import RecordUsage
from tests.faces.conftest import OPERATOR, Meter

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from agent_meter_mcp.core.roles import Caller

PROBLEM = "application/problem+json"


class As:
    """ASGI: every request is this caller's."""

    def __init__(self, app: ASGIApp, caller: Caller) -> None:
        self._app = app
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, CALLER: self._caller}, receive, send)


class Site:
    """The routes, and a client for each caller."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.api = build_api(meter.ledger)

    @asynccontextmanager
    async def client(self, caller: Caller = OPERATOR) -> AsyncGenerator[httpx2.AsyncClient]:
        transport = httpx2.ASGITransport(app=As(self.api, caller))
        async with httpx2.AsyncClient(transport=transport, base_url="http://meter") as client:
            yield client


async def use(meter: Meter, **usage: Any) -> None:
    """Usage of `bot` at `openai`, unless it says otherwise."""
    report = RecordUsage.model_validate({"agent": "bot", "service": "openai", **usage}).report(OPERATOR)
    await meter.ledger.record(OPERATOR, report)


def problem_in(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The problem that an answer is."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    told = answer.json()
    assert (told["status"], told["code"]) == (status, code), told
    assert told["title"] and told["detail"] and told["type"]
    assert "Traceback" not in answer.text
    return told


@pytest.fixture
async def site(meter: Meter) -> AsyncGenerator[Site]:
    yield Site(meter)


@pytest.fixture
async def client(site: Site, request: pytest.FixtureRequest) -> AsyncGenerator[httpx2.AsyncClient]:
    """The operator's. Whoever blocks the event loop fails."""
    async with site.client() as client:
        request.getfixturevalue("nothing_blocks")  # now that all is imported and built
        yield client
