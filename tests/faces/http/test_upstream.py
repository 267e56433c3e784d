"""Upstream's clients, unchanged: what they send is stored once, whatever else happens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from agent_meter_mcp.core.models import Subject
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.faces.errors import QUOTA_EXCEEDED

from .upstream_app import OPERATOR, Service, record, serving

# Bodies as the SDKs put them on the wire.
TYPESCRIPT = (
    b'{"records":[{"id":"b1346fed063e4f3747d707ec9a01b4f1","timestamp":"2026-11-23T20:04:49.651Z",'
    b'"serviceId":"my-api","agent":{"agentId":"bot-123","name":"TestBot"},"operation":"POST /api/generate",'
    b'"units":1234.5,"unitType":"token","pricingModel":"per-unit","method":"POST","path":"/api/generate",'
    b'"statusCode":200,"durationMs":0,"requestSignature":"abc","metadata":{"model":"claude-sonnet-4-5"}},'
    b'{"id":"e865f3be46aed7b73d7314d6962ed5ad","timestamp":"2026-11-23T20:04:49.651Z","serviceId":"my-api",'
    b'"agent":{"agentId":"bot-123"},"operation":"GET /x","units":1,"unitType":"request",'
    b'"pricingModel":"per-call","method":"GET","path":"/x","statusCode":200,"durationMs":0}]}'
)
RUST = (
    b'{"records":[{"id":"0c3f2c5e-8a55-4f0e-9f7e-0d7f1f9a2b11","timestamp":"2026-11-23T20:04:49.651Z",'
    b'"serviceId":"my-api","agent":{"agentId":"bot-123","name":"TestBot"},"operation":"POST /api/generate",'
    b'"units":1.0,"unitType":"request","pricingModel":"per-call","method":"POST","path":"/api/generate",'
    b'"statusCode":200,"durationMs":12,"requestSignature":'
    b'"88aab3ede8d3adf94d26ab90d3bafd4a2083070c3bcce9c014ee04a443847c0b"}]}'
)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncGenerator[Service]:
    async with serving(tmp_path) as service:
        yield service


@pytest.fixture
def quick(service: Service, nothing_blocks: None) -> Service:
    """Whoever blocks the event loop fails."""
    return service


async def test_what_the_typescript_client_sends_is_stored_and_given_back_as_it_was(quick: Service) -> None:
    answer = await quick.post("/v1/usage/batch", TYPESCRIPT)
    assert answer.status_code == 200
    assert {**answer.json(), "results": None} == {
        "accepted": 2, "duplicatesIgnored": 0, "rejected": [], "results": None,
    }  # fmt: skip
    (first, second) = await quick.events()
    assert (first.event.who.agent, first.event.who.service) == ("bot-123", "my-api")
    assert (first.event.usage.units_micro, first.event.usage.unit_type) == (1_234_500_000, "token")
    assert (first.event.source, second.event.operation) == ("sdk", "GET /x")
    given = await quick.get("/v1/usage/me", agent_id="bot-123")
    assert given.content == TYPESCRIPT.removeprefix(b'{"records":').removesuffix(b"}")


async def test_what_the_rust_client_sends_is_stored_and_its_integers_stay_integers(quick: Service) -> None:
    assert (await quick.post("/v1/usage/batch", RUST)).json()["accepted"] == 1
    given = (await quick.get("/v1/usage/me", agent_id="bot-123")).content
    assert given == RUST.removeprefix(b'{"records":').removesuffix(b"}").replace(b"1.0", b"1")


async def test_our_own_records_may_stand_beside_them(quick: Service) -> None:
    answer = await quick.batch(
        record(1),
        {"agent": "bot-123", "service": "maps", "units": 2, "id": "mine"},
        {"agent": "bot-123", "service": "maps", "source": "proxy"},
    )
    assert [result["status"] for result in answer.json()["results"]] == ["recorded"] * 3
    assert [stored.event.source for stored in await quick.events()] == ["sdk", "sdk", "proxy"]
    given = (await quick.get("/v1/usage/me", agent_id="bot-123")).json()
    assert [(one["serviceId"], one["units"], one["unitType"]) for one in given] == [
        ("my-api", 1, "request"), ("maps", 2, "unit"), ("maps", 1, "request"),
    ]  # fmt: skip


async def test_a_batch_that_is_sent_again_changes_nothing(service: Service) -> None:
    first = await service.post("/v1/usage/batch", TYPESCRIPT)
    again = await service.post("/v1/usage/batch", TYPESCRIPT)
    assert (again.status_code, again.json()["accepted"], again.json()["duplicatesIgnored"]) == (200, 0, 2)
    assert [one["outcome"] for one in first.json()["results"]] == ["accepted", "accepted"]
    assert len(await service.events()) == 2


async def test_maps_without_an_order_are_the_same_in_any_order(service: Service) -> None:
    await service.batch(record(1, metadata={"b": {"y": 1, "x": 2}, "a": 3}))
    again = await service.batch(record(1, metadata={"a": 3, "b": {"x": 2, "y": 1}}))
    assert again.json()["duplicatesIgnored"] == 1


async def test_two_clients_that_send_the_same_at_once_store_it_once(service: Service) -> None:
    records = [record(number) for number in range(200)]
    answers = await asyncio.gather(*(service.batch(*records) for _ in range(4)))
    assert sum(answer.json()["accepted"] for answer in answers) == 200
    assert sum(answer.json()["duplicatesIgnored"] for answer in answers) == 600
    assert len(await service.events()) == 200


@pytest.mark.parametrize("end", [1, 12, 200, len(TYPESCRIPT) - 1])
async def test_a_batch_that_is_cut_off_is_refused_as_a_whole(service: Service, end: int) -> None:
    answer = await service.post("/v1/usage/batch", TYPESCRIPT[:end])
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    assert answer.headers["content-type"] == "application/problem+json"
    assert await service.events() == []


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"\xff\xfe{}", b'{"records":' + b"[" * 100_000, b"[" * 100_000], ids=len
)
async def test_what_is_no_json_is_refused(service: Service, body: bytes) -> None:
    assert (await service.post("/v1/usage/batch", body)).status_code == 400


@pytest.mark.parametrize(
    "body", [{}, [], 5, {"records": {}}, {"records": []}, {"records": [0] * 1001}, {"records": None}], ids=str
)
async def test_a_body_without_1_to_1000_records_is_refused(service: Service, body: Any) -> None:
    answer = await service.post("/v1/usage/batch", body)
    assert (answer.status_code, answer.json()["field"]) == (422, "records")


BAD: list[tuple[Any, str]] = [
    (5, "record"),
    (None, "record"),
    ({}, "service"),
    ({"serviceId": "s"}, "id"),
    ({"service": "s", "agent": "a", "oops": 1}, "oops"),
    ({"service": "s", "agent": "a", "units": -1}, "units"),
    ({"service": "s"}, "agent"),
    (record(9, units="1"), "units"),
    (record(9, units=True), "units"),
    (record(9, units=-1), "units"),
    (record(9, units=1e10), "units"),
    (record(9, units=10**400), "units"),
    (record(9, timestamp="yesterday"), "timestamp"),
    (record(9, timestamp="2026-11-24T11:59:00"), "timestamp"),
    (record(9, timestamp="2026-11-25T11:59:00Z"), "timestamp"),
    (record(9, serviceId=""), "serviceId"),
    (record(9, serviceId="\u202e"), "serviceId"),
    (record(9, agent="bot"), "agent.agentId"),
    (record(9, agent={"agentId": "\x1b[31m"}), "agent.agentId"),
    (record(9, agent={"agentId": 5}), "agent.agentId"),
    (record(9, agent={"agentId": "*"}), "agent.agentId"),
    (record(9, statusCode=70_000), "statusCode"),
    (record(9, statusCode="200"), "statusCode"),
    (record(9, durationMs=-1), "durationMs"),
    (record(9, pricingModel="free"), "pricingModel"),
    (record(9, unitType="x" * 65), "unitType"),
    (record(9, operation=None), "operation"),
    (record(9, metadata={"big": "x" * 9000}), "metadata"),
    (record(9, metadata={"half": "\ud800"}), "metadata"),
    (record(9, metadata={"n": 10**400}), "metadata"),
    (record(9, metadata=[]), "metadata"),
    (record(9, newField="x" * 9000), "metadata"),
    (record(9, id="x" * 300), "id"),
]


@pytest.mark.parametrize(
    ("bad", "field"), BAD, ids=[f"{number} {field}" for number, (_, field) in enumerate(BAD)]
)
async def test_a_record_that_cannot_be_is_named_and_the_others_are_stored(
    service: Service, bad: Any, field: str
) -> None:
    answer = (await service.batch(record(1), bad, record(2))).json()
    assert (answer["accepted"], len(answer["rejected"])) == (2, 1)
    (refused,) = answer["rejected"]
    assert refused["index"] == 1
    assert refused["error"].startswith(f"{field}: ")
    assert answer["results"][1]["status"] == "rejected"
    assert answer["results"][1]["field"] == field
    assert [stored.event.id for stored in await service.events()] == [f"{1:032x}", f"{2:032x}"]


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e999"])
async def test_a_number_that_is_none_costs_its_record_only(service: Service, number: bytes) -> None:
    records = [record(1), record(2, units="?"), record(3, durationMs="?"), record(4, metadata={"a": "?"})]
    body = json.dumps({"records": records}).encode().replace(b'"?"', number)
    answer = (await service.post("/v1/usage/batch", body)).json()
    assert answer["accepted"] == 1
    assert [one["error"].partition(":")[0] for one in answer["rejected"]] == [
        "units",
        "durationMs",
        "metadata",
    ]


async def test_an_id_that_comes_with_other_content_is_a_conflict_and_changes_nothing(
    service: Service,
) -> None:
    await service.batch(record(1))
    answer = (await service.batch(record(1, agent={"agentId": "other"}), record(2))).json()
    assert (answer["accepted"], answer["results"][0]["code"]) == (1, "conflict")
    assert "agent, metadata differ" in answer["rejected"][0]["error"]
    assert [stored.event.who.agent for stored in await service.events()] == ["bot-123", "bot-123"]


async def test_usage_that_has_grown_is_corrected(service: Service) -> None:
    await service.batch(record(1, units=5))
    answer = (await service.batch(record(1, units=8))).json()
    assert (answer["accepted"], answer["results"][0]["status"]) == (1, "corrected")


async def test_what_a_newer_client_adds_is_given_back(service: Service) -> None:
    sent = record(
        1,
        agent={"agentId": "bot-123", "name": "T", "shepherdId": "ann", "tier": "gold", "wallet": "0x1"},
        units=0.1234567,
        durationMs=12.5,
        timestamp="2026-11-24T12:59:00+01:00",
        metadata={"10": 1e-7, "9": 1e21, "é": None},
        region={"b": 1, "a": [True, 2.5]},
    )
    assert (await service.batch(sent)).json()["accepted"] == 1
    assert (await service.get("/v1/usage/me", agent_id="bot-123")).json() == [sent]
    assert (await service.batch(sent)).json()["duplicatesIgnored"] == 1


# Over a limit


async def test_an_agent_over_its_limit_gets_429_and_everything_is_stored(service: Service) -> None:
    await service.limit(3)
    records = [record(number, timestamp="2026-11-24T11:59:59.000Z") for number in range(10)]
    answer = await service.batch(*records)
    assert answer.status_code == 429
    told = answer.json()
    assert told["type"] == QUOTA_EXCEEDED
    assert (told["code"], told["accepted"]) == ("quota_exceeded", 10)
    assert [one["outcome"] for one in told["results"]] == ["accepted"] * 3 + ["over_limit"] * 7
    assert len(told["violated-policies"]) == 1
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert len(await service.events()) == 10
    again = await service.batch(*records)
    assert (again.status_code, again.json()["duplicatesIgnored"]) == (429, 10)
    service.now_us += (int(answer.headers["retry-after"]) + 1) * 1_000_000
    later = await service.batch(*records)
    assert (later.status_code, later.json()["duplicatesIgnored"]) == (200, 10)


@pytest.mark.parametrize(("maximum", "window"), [(0, "total"), (1, "7d"), (1, "year")])
async def test_a_limit_that_comes_back_late_or_never_says_a_minute(
    service: Service, maximum: int, window: str
) -> None:
    """Upstream's clients sleep for as long as they are told, and then send what was used meanwhile."""
    await service.limit(maximum, window, Subject())
    await service.batch(record(0))
    answer = await service.batch(record(1))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")


async def test_usage_of_last_week_is_no_reason_to_stop_now(service: Service) -> None:
    await service.limit(1)
    old = [record(number, timestamp="2026-11-17T12:00:00.000Z") for number in range(3)]
    answer = await service.batch(*old)
    assert (answer.status_code, answer.json()["accepted"]) == (200, 3)


async def test_a_kill_switch_never_prevents_recording(service: Service) -> None:
    await service.ledger.set_switch(OPERATOR, "everything", None, True, "stop")
    answer = await service.batch(record(1))
    assert (answer.status_code, answer.json()["accepted"]) == (200, 1)


# Roles


async def test_an_agent_reports_about_itself_only(service: Service) -> None:
    bot = Caller("agent", "bot", bound_to="bot-123", default_agent="bot-123")
    other = record(2, agent={"agentId": "other"})
    answer = await service.batch(record(1), other, {"service": "maps", "source": "sdk"}, caller=bot)
    assert [one.get("code") for one in answer.json()["results"]] == [None, "forbidden", "invalid_input"]
    assert [stored.event.source for stored in await service.events()] == ["self"]
    own = await service.get("/v1/usage/me", bot)
    assert [one["id"] for one in own.json()] == [f"{1:032x}"]
    assert (await service.get("/v1/usage/me", bot, agent_id="other")).status_code == 403
    nobody = await service.get("/v1/usage/me", bot, agent_id="")  # such as a variable that was not set
    assert (nobody.status_code, nobody.json()["field"]) == (422, "agent_id")


async def test_a_service_reports_for_anybody_at_itself_only(service: Service) -> None:
    key = Caller("service", "k", bound_to="my-api")
    answer = await service.batch(record(1), record(2, serviceId="other"), caller=key)
    assert [one.get("code") for one in answer.json()["results"]] == [None, "forbidden"]
    assert (await service.get("/v1/usage/me", key, agent_id="bot-123")).status_code == 403


async def test_a_viewer_reads_and_records_nothing(service: Service) -> None:
    viewer = Caller("viewer", "vera")
    assert (await service.batch(record(1), caller=viewer)).status_code == 403
    assert (await service.post("/v1/sessions/batch", {}, viewer)).status_code == 403
    assert (await service.get("/v1/sessions/status", viewer)).status_code == 403
    assert (await service.get("/v1/usage/me", viewer, agent_id="bot-123")).json() == []
    assert (await service.get("/v1/usage/me", viewer)).status_code == 422


# What an agent has used


async def test_usage_comes_in_pages_the_newest_last(service: Service) -> None:
    await service.batch(*(record(number, serviceId=f"s{number % 2}") for number in range(7)))
    newest = await service.get("/v1/usage/me", agent_id="bot-123", limit=3)
    assert [int(one["id"], 16) for one in newest.json()] == [4, 5, 6]
    async with service.client() as client:
        older = await client.get(newest.url.join(newest.links["next"]["url"]))
        oldest = await client.get(older.url.join(older.links["next"]["url"]))
    assert [int(one["id"], 16) for one in older.json()] == [1, 2, 3]
    assert [int(one["id"], 16) for one in oldest.json()] == [0]
    assert "link" not in oldest.headers
    there = await service.get("/v1/usage/me", agent_id="bot-123", service_id="s1", limit=2)
    assert [int(one["id"], 16) for one in there.json()] == [3, 5]
    async with service.client() as client:
        first = await client.get(there.url.join(there.links["next"]["url"]))
    assert [int(one["id"], 16) for one in first.json()] == [1]


@pytest.mark.parametrize(
    "query", [{"cursor": "x"}, {"limit": 0}, {"agent_id": ""}, {"agent_id": "\x00"}], ids=str
)
async def test_what_cannot_be_asked_is_refused(service: Service, query: dict[str, Any]) -> None:
    assert (await service.get("/v1/usage/me", OPERATOR, **({"agent_id": "a"} | query))).status_code == 422


async def test_the_routes_are_in_the_openapi_document(service: Service) -> None:
    document = service.api.openapi()
    batch = document["paths"]["/v1/usage/batch"]["post"]
    shapes = batch["requestBody"]["content"]["application/json"]["schema"]["properties"]["records"]["items"]
    assert [len(shape["properties"]) for shape in shapes["anyOf"]] == [14, 22]
    assert "$ref" not in json.dumps(shapes)
    assert {"200", "400", "401", "403", "422", "429", "503"} <= batch["responses"].keys()
