"""The door: where a request may come from, who it is from, and what those are told who are not let in."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx2
import pytest
from starlette.responses import PlainTextResponse

from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.faces.auth import CALLER, REMEMBERED_MAX, WAITING_MAX, Authentication, Failures, place_of
from agent_meter_mcp.faces.http import CALLER as CALLER_OF_THE_ROUTES

from .conftest import OPERATOR, Meter
from .door import HERE, SECONDS, browser, living, site_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from agent_meter_mcp.ledger import Ledger

OWNER = Caller("operator", "olga")
WRONG_KEYS = ("am_" + "x" * 43, "", "am_", "x", "am_" + "x" * 20_000, "\x7f", "é")


async def told_caller(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers with who asks."""
    caller: Caller | None = scope.get(CALLER)
    await PlainTextResponse("nobody" if caller is None else caller.name)(scope, receive, send)


class Sleeps:
    """Waits for nobody, and remembers for how long it should have."""

    def __init__(self) -> None:
        self.waited: list[float] = []
        self.now_s = 0.0
        self.held = False
        self.go = anyio.Event()

    async def __call__(self, seconds: float) -> None:
        self.waited.append(seconds)
        if self.held:
            await self.go.wait()

    def clock(self) -> float:
        return self.now_s


def door(ledger: Ledger, owner: Caller | None = OWNER, sleeps: Sleeps | None = None) -> httpx2.AsyncClient:
    sleeps = sleeps or Sleeps()
    return browser(Authentication(told_caller, ledger, owner, sleep=sleeps, clock=sleeps.clock))


def bearing(token: str) -> dict[bytes, bytes]:
    return {b"Authorization": b"Bearer " + token.encode()}


# Who


async def test_without_a_key_in_the_ledger_every_caller_is_the_owner(meter: Meter) -> None:
    async with door(meter.ledger) as web:
        assert (await web.get("/x")).text == "olga"
        wrong = await web.get("/x", headers=bearing(WRONG_KEYS[0]))
        assert wrong.status_code == 401, "who shows a key wants to be its holder, and nobody else"


async def test_where_others_can_reach_it_there_is_no_owner(meter: Meter) -> None:
    async with door(meter.ledger, None) as web:
        assert (await web.get("/x")).status_code == 401


async def test_from_the_first_key_on_nobody_is_let_in_without_one(meter: Meter) -> None:
    async with door(meter.ledger) as web:
        assert (await web.get("/x")).status_code == 200
        key, token = await meter.ledger.create_key(OPERATOR, "agent", "bot")
        assert (await web.get("/x")).status_code == 401
        assert (await web.get("/x", headers=bearing(token))).text == f"agent bot ({key.prefix})"
        await meter.ledger.revoke_key(OPERATOR, key.key_id)
        assert (await web.get("/x")).status_code == 401, "revoking the last key opens nothing"


async def test_the_key_may_be_written_as_clients_do(meter: Meter) -> None:
    _, token = await meter.ledger.create_key(OPERATOR, "viewer", name="v")
    async with door(meter.ledger) as web:
        for scheme in ("Bearer ", "bearer ", "BEARER  "):
            answer = await web.get("/x", headers={"authorization": scheme + token})
            assert answer.status_code == 200
        for scheme in ("", "Basic ", "Token ", "Bearer"):
            answer = await web.get("/x", headers={"authorization": scheme + token})
            assert answer.status_code == 401
        twice = [("authorization", f"Bearer {token}"), ("authorization", f"Bearer {token}")]
        assert (await web.get("/x", headers=twice)).status_code == 401
        assert (await web.get(f"/x?key={token}&access_token={token}")).status_code == 401


async def test_every_wrong_key_gets_the_same_answer(meter: Meter) -> None:
    revoked, of_revoked = await meter.ledger.create_key(OPERATOR, "viewer")
    await meter.ledger.revoke_key(OPERATOR, revoked.prefix)
    _, expired = await meter.ledger.create_key(
        OPERATOR, "viewer", expires_at_us=meter.clock.now_us + 1_000_000
    )
    _, valid = await meter.ledger.create_key(OPERATOR, "viewer")
    meter.clock.advance(1)
    answers: set[tuple[int, bytes, tuple[tuple[str, str], ...]]] = set()
    async with door(meter.ledger) as web:
        assert (await web.get("/x", headers=bearing(valid))).status_code == 200
        for token in (of_revoked, expired, valid[:-1], valid.swapcase(), *WRONG_KEYS):
            answer = await web.get("/x", headers=bearing(token))
            answers.add((answer.status_code, answer.content, tuple(answer.headers.items())))
        missing = await web.get("/x")
    ((status, body, headers),) = answers
    assert status == missing.status_code == 401
    assert dict(headers)["www-authenticate"] == missing.headers["www-authenticate"] == "Bearer"
    assert dict(headers)["content-type"] == "application/problem+json"
    assert b'"code": "unauthorized"' in body
    assert missing.json() == {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "detail": "this needs a key: send it as `Authorization: Bearer am_...`. "
        "`agent-meter keys create` makes one. Nothing was changed.",
        "code": "unauthorized",
    }


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_whether_it_lives_may_be_asked_by_anybody(meter: Meter, path: str) -> None:
    async with door(meter.ledger, None) as web:
        assert (await web.get(path)).text == "nobody"
        for near in (path + "/", path + "x", "/" + path, path.upper()):
            assert (await web.get(HERE + near)).status_code == 401


async def test_no_socket_is_opened_for_a_web_page(meter: Meter) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/healthz", "headers": [(b"host", b"127.0.0.1")]}
    await site_of(meter.ledger)(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_a_ledger_that_cannot_be_asked_is_no_wrong_key(meter: Meter) -> None:
    await meter.ledger.__aexit__(None, None, None)
    async with door(meter.ledger) as web:
        for headers in (bearing("am_x"), {}):
            answer = await web.get("/x", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
            assert answer.headers["retry-after"] == "1"


async def test_a_ledger_that_is_gone_is_said_in_the_log(
    meter: Meter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every request with a key failed, and only its client was told why."""
    token = (await meter.ledger.create_key(OPERATOR, "operator"))[1]
    async with door(meter.ledger) as web:
        (tmp_path / "usage.db").rename(tmp_path / "gone")
        answer = await web.get("/x", headers=bearing(token))
        (tmp_path / "gone").rename(tmp_path / "usage.db")
    assert (answer.status_code, answer.json()["code"]) == (500, "store_unusable")
    assert f"nobody can be let in: {tmp_path / 'usage.db'} was moved" in caplog.text
    assert token not in caplog.text


async def test_with_a_proxy_before_it_nobody_is_the_owner(meter: Meter) -> None:
    """Who has given it another name lets others in from elsewhere."""
    async with browser(site_of(meter.ledger, AGENT_METER_ALLOWED_HOSTS="meter.example.com")) as web:
        for host in ("meter.example.com", "127.0.0.1"):
            assert (await web.get("/x", headers={"host": host})).status_code == 401


# Those who guess


async def test_wrong_keys_wait_longer_and_longer_and_right_ones_never(meter: Meter) -> None:
    _, token = await meter.ledger.create_key(OPERATOR, "viewer")
    sleeps = Sleeps()
    async with door(meter.ledger, sleeps=sleeps) as web:
        for _ in range(9):
            assert (await web.get("/x", headers=bearing("am_wrong"))).status_code == 401
            assert (await web.get("/x", headers=bearing(token))).status_code == 200
            assert (await web.get("/x")).status_code == 401
        assert sleeps.waited == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]
        sleeps.now_s = 61
        await web.get("/x", headers=bearing("am_wrong"))
        assert sleeps.waited[-1] == 0


async def test_so_many_wait_at_once_and_others_are_served_meanwhile(meter: Meter) -> None:
    _, token = await meter.ledger.create_key(OPERATOR, "viewer")
    sleeps = Sleeps()
    sleeps.held = True
    statuses: list[int] = []
    async with door(meter.ledger, sleeps=sleeps) as web:

        async def guess() -> None:
            statuses.append((await web.get("/x", headers=bearing("am_wrong"))).status_code)

        with anyio.fail_after(SECONDS):
            async with anyio.create_task_group() as tasks:
                for _ in range(WAITING_MAX):
                    tasks.start_soon(guess)
                while len(sleeps.waited) < WAITING_MAX:
                    await anyio.lowlevel.checkpoint()
                refused = await web.get("/x", headers=bearing("am_wrong"))
                assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
                assert (await web.get("/x", headers=bearing(token))).status_code == 200
                sleeps.go.set()
    assert statuses == [401] * WAITING_MAX


def test_so_many_addresses_are_remembered_the_latest_ones() -> None:
    failures = Failures(lambda: 0.0)
    for number in range(REMEMBERED_MAX + 10):
        failures.note(f"10.0.{number // 256}.{number % 256}")
    assert len(failures) == REMEMBERED_MAX
    assert failures.note("10.0.0.1") == 0
    assert failures.note("10.0.3.200") > 0


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("a\nsocket", "a\\nsocket"),
    ],
)
def test_an_ipv6_address_is_as_good_as_any_other_of_its_network(address: str, place: str) -> None:
    assert place_of(address) == place


async def test_who_is_not_let_in_is_counted(meter: Meter) -> None:
    token = (await meter.ledger.create_key(OPERATOR, "operator"))[1]
    site = site_of(meter.ledger)
    async with living(site), browser(site) as web:
        await web.get("/v1/usage")
        await web.post("/mcp", json={})
        await web.get("/v1/usage", headers=bearing("am_wrong"))
        await web.get("/v1/usage", headers={"Host": "evil.example"})
        await web.get("/v1/usage", headers={"Origin": "http://evil.example"})
        told = (await web.get("/metrics", headers=bearing(token))).text
    for status, times in ((401, 3), (421, 1), (403, 1)):
        assert f'agent_meter_http_responses_total{{role="none",status="{status}"}} {times}.0' in told


async def test_wrong_keys_are_logged_now_and_then_and_without_themselves(
    meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "agent_meter_mcp")
    async with door(meter.ledger) as web:
        for _ in range(9):
            await web.get("/x", headers=bearing("am_hunter2hunter2"))
    assert [record.getMessage() for record in caplog.records] == [
        f"a key that is not valid came from 127.0.0.1 ({times} lately)" for times in (1, 2, 4, 8)
    ]


async def test_answers_of_mcp_are_counted_too(meter: Meter) -> None:
    """Whoever watches for failures watches all that this port answers."""
    site = site_of(meter.ledger)
    async with living(site), browser(site) as web:
        assert (await web.put("/mcp", json={})).status_code == 405
        told = (await web.get("/metrics")).text
    assert 'agent_meter_http_responses_total{role="operator",status="405"} 1.0' in told


# From where


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"host": "localhost"}, 401),
        ({"host": "LOCALHOST:1"}, 401),
        ({"host": "[::1]:8787"}, 401),
        ({"host": "meter.example.com"}, 401),
        ({"host": "[::2]"}, 401),
        ({"host": "10.0.0.5:8787"}, 401),
        ({"origin": "http://localhost:3000"}, 401),
        ({"origin": "https://meter.example.com"}, 401),
        ({"host": "evil.example"}, 421),
        ({"host": "localhost.evil.example"}, 421),
        ({"host": "evil.example:8787"}, 421),
        ({"host": "127.0.0.1@evil.example"}, 421),
        ({"host": "127.0.0.1:80@evil.example"}, 421),
        ({"host": "127.0.0.1:x"}, 421),
        ({"host": "::1"}, 421),
        ({"host": ""}, 421),
        ({"host": "[::1"}, 421),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://localhost.evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "file://"}, 403),
        ({"origin": "localhost"}, 403),
        ({"origin": "ftp://localhost"}, 403),
        ({"origin": ""}, 403),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/mcp", "/v1/summary", "/nowhere"])
async def test_every_route_looks_at_host_and_origin(
    meter: Meter, path: str, headers: dict[str, str], status: int
) -> None:
    """In front of the key: whoever is let through here is asked for one."""
    site = site_of(meter.ledger, "10.0.0.5", AGENT_METER_ALLOWED_HOSTS="meter.example.com,::2")
    async with browser(site) as web:
        answer = await web.get(path, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status


async def test_health_is_told_to_known_hosts_only(meter: Meter) -> None:
    async with browser(site_of(meter.ledger)) as web:
        assert (await web.get("/healthz", headers={"host": "evil.example"})).status_code == 421


async def said_to(site: ASGIApp, path: str, *hosts: str, kind: str = "http") -> Message:
    """How the answer to a request begins whose target and Host headers are not those of a browser."""
    told: list[Message] = []

    async def send(message: Message) -> None:
        told.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    headers = [(b"host", host.encode()) for host in hosts]
    scope: dict[str, Any] = {
        "type": kind, "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": headers,
    }  # fmt: skip
    await site(scope, receive, send)
    return told[0]


@pytest.mark.parametrize("hosts", [[], ["127.0.0.1", "evil.example"], ["127.0.0.1", "127.0.0.1"]])
async def test_a_request_names_one_host(meter: Meter, hosts: list[str]) -> None:
    assert (await said_to(site_of(meter.ledger), "/x", *hosts))["status"] == 421


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://localhost/healthz", "evil.example", 200),
        ("HTTPS://[::1]:80/healthz", "localhost", 200),
        ("http://evil.example/healthz", "localhost", 421),
        ("http://localhost@evil.example/healthz", "localhost", 421),
        ("http:///healthz", "localhost", 400),
        ("ftp://localhost/healthz", "localhost", 400),
        ("localhost:80", "localhost", 400),
        ("*", "localhost", 400),
    ],
)
async def test_a_request_for_a_whole_url_is_for_the_host_in_it(
    meter: Meter, target: str, host: str, status: int
) -> None:
    """Whatever the Host header says: so HTTP has it, and a proxy that decides by the URL."""
    assert (await said_to(site_of(meter.ledger), target, host))["status"] == status


async def test_a_websocket_is_for_nobody(meter: Meter) -> None:
    """A page of any site may open one, and KnownHosts does not look at it."""
    told = await said_to(site_of(meter.ledger), "/v1/stream", "evil.example", kind="websocket")
    assert told == {"type": "websocket.close", "code": 1008, "reason": "not served here"}


async def test_no_page_of_another_site_may_read_anything(meter: Meter) -> None:
    """CORS is off: an allowed site is not told that its pages may read the answer."""
    site = site_of(meter.ledger)
    async with living(site), browser(site) as web:
        asked = {"origin": "http://localhost:3000", "access-control-request-method": "POST"}
        for answer in (
            await web.options("/mcp", headers=asked),
            await web.get("/v1/summary", headers={"origin": "http://localhost:3000"}),
        ):
            assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_what_is_not_there_is_a_problem(meter: Meter) -> None:
    site: ASGIApp = site_of(meter.ledger)
    async with living(site), browser(site) as web:
        answer = await web.get("/nowhere")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_the_routes_find_the_caller_where_the_door_puts_it() -> None:
    assert CALLER_OF_THE_ROUTES == CALLER
