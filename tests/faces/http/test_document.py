"""The OpenAPI document: that it is true, and that every route keeps to it whatever it is sent."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

import agent_meter_mcp
from agent_meter_mcp.faces.http.app import build_api

from .conftest import PROBLEM, Site, problem_in

DOCUMENT: dict[str, Any] = build_api(None).openapi()  # pyright: ignore[reportArgumentType]  it is not asked for anything
OPERATIONS = [(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods]
OWN = [
    (method, path)
    for method, path in OPERATIONS
    if not {"upstream", "hooks", "otlp"}.intersection(DOCUMENT["paths"][path][method]["tags"])
]
"""Those that take the tools' arguments. Upstream's clients, agent harnesses and exporters send what they
like."""
WRITTEN = {
    "/v1/agents/{agent}": {"tier": "gold"},
    "/v1/limits": {"max": 1, "metric": "requests", "window": "day"},
    "/v1/kill-switch": {"engaged": False, "agent": "bot"},
    "/v1/check": {"agent": "bot"},
    "/v1/reservations": {"agent": "bot", "service": "openai"},
    "/v1/reservations/{reservation_id}/settle": {},
    "/v1/usage/batch": {"records": [{"agent": "bot", "service": "openai"}]},
    "/v1/receipts/verify": {"requestSignature": "0" * 64, "receipt": "0" * 64},
    "/v1/attestations": {"service": "openai", "day": "2026-11-24"},
    "/v1/sessions/batch": {
        "agentName": "bot",
        "sessions": [{"id": "s", "ts": "2026-11-24T10:00:00Z", "api": "openai"}],
    },
}
OF_UPSTREAM = [
    path for method, path in OPERATIONS if "upstream" in DOCUMENT["paths"][path][method].get("tags", ())
]
"""Its clients may send more than we know, and do."""
WITHOUT_LEDGER = ["/healthz", "/v1/receipts/verify", "/v1/sessions/status", "/v1/attestations"]


async def test_it_is_served_and_says_which_version_it_is_of(site: Site) -> None:
    transport = httpx2.ASGITransport(app=site.api)
    async with httpx2.AsyncClient(transport=transport, base_url="http://meter") as nobody:
        told = (await nobody.get("/openapi.json")).json()
    assert told == json.loads(json.dumps(DOCUMENT))
    assert (told["openapi"][:3], told["info"]["version"]) == ("3.1", agent_meter_mcp.__version__)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_route_says_what_it_takes_gives_and_refuses(method: str, path: str) -> None:
    operation = DOCUMENT["paths"][path][method]
    assert operation["description"] and operation["operationId"]
    assert ("requestBody" in operation) == (method in ("put", "post"))
    succeeds = [status for status in operation["responses"] if status.startswith("2")]
    assert succeeds and all(operation["responses"][status]["content"] for status in succeeds)
    for status, told in operation["responses"].items():
        if not status.startswith("2"):
            assert list(told["content"]) == [PROBLEM] and told["description"]
            assert told["content"][PROBLEM]["schema"] == {"$ref": "#/components/schemas/Problem"}


def test_no_two_routes_have_one_name_and_no_part_is_vague() -> None:
    names = [DOCUMENT["paths"][path][method]["operationId"] for method, path in OPERATIONS]
    assert len(set(names)) == len(names)
    parts = DOCUMENT["components"]["schemas"]
    assert "HTTPValidationError" not in parts
    assert '{"type": "object"}' not in json.dumps(DOCUMENT), "clients would be made that send nothing in it"
    assert parts["UsageEvents"]["properties"]["events"]["items"] == {"$ref": "#/components/schemas/Event"}
    assert parts["BudgetReserved"]["properties"]["limits"]["items"] == {
        "$ref": "#/components/schemas/LimitState"
    }


def _sent(path: str) -> str:
    return path.replace("{agent}", "bot").replace("{reservation_id}", "r-1")


@pytest.mark.parametrize(("method", "path"), OWN)
async def test_an_error_has_one_shape_on_every_route(
    client: httpx2.AsyncClient, method: str, path: str
) -> None:
    if path not in OF_UPSTREAM:
        unknown = await client.request(method, f"{_sent(path)}?nonsense=1", json=WRITTEN.get(path))
        assert problem_in(unknown, 422, "invalid_input")["field"] == "nonsense"
    if method in ("put", "post"):
        broken = await client.request(
            method, _sent(path), content=b"{", headers={"content-type": "application/json"}
        )
        problem_in(broken, 400, "malformed")
    if method in ("put", "post") and path not in OF_UPSTREAM:
        body = {**WRITTEN[path], "nonsense": 1}
        told = problem_in(await client.request(method, _sent(path), json=body), 422, "invalid_input")
        assert told["field"] == "nonsense"
    problem_in(await client.request("trace", _sent(path)), 405, "method_not_allowed")


@pytest.mark.parametrize(("method", "path"), OWN)
async def test_a_ledger_that_is_away_is_503_on_every_route(site: Site, method: str, path: str) -> None:
    if path in WITHOUT_LEDGER:
        return
    await site.meter.ledger.__aexit__(None, None, None)
    async with site.client() as client:
        query = {"/v1/usage/me": {"agent_id": "bot"}, "/v1/limits": {"limit_id": "x"}}.get(path)
        query = None if path == "/v1/limits" and method != "delete" else query
        body = WRITTEN.get(path) if method in ("put", "post") else None
        answer = await client.request(method, _sent(path), json=body, params=query)
        problem_in(answer, 503, "overloaded")
        assert answer.headers["retry-after"] == "1"
