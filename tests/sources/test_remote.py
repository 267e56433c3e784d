"""A meter elsewhere: how news of it gets here, what is said when it cannot be asked, what stays secret."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from mcp.types import CallToolResult, TextContent

from agent_meter_mcp import (
    Ledger,
    LimitKey,
    Report,
    Settings,
    Subject,
    Usage,
    Who,
    load_settings,
    open_ledger,
)
from agent_meter_mcp.core.errors import (
    Forbidden,
    InvalidInput,
    MeterError,
    NotFound,
    Unauthorized,
    Unreachable,
)
from agent_meter_mcp.core.money import amount_of, number_of
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.faces.errors import META
from agent_meter_mcp.faces.serve import Tls
from agent_meter_mcp.sources import remote, remote_link
from agent_meter_mcp.sources.base import RANGES
from agent_meter_mcp.sources.remote import RemoteSource
from agent_meter_mcp.sources.remote_link import Key
from tests.faces.door import listening, site_of
from tests.faces.test_serve import pem as pem
from tests.faces.test_serve import serving as serving_tls

from .serving import answering, dripping, http, serving, until

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from agent_meter_mcp.core.models import Metric
    from agent_meter_mcp.core.roles import Role

OPERATOR = Caller("operator", "olga")
ALL = RANGES[-1]
WAIT_S = 30


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(
        {"AGENT_METER_DB": str(tmp_path / "meter.db"), "AGENT_METER_PRICES": str(tmp_path / "p")}
    )


@pytest.fixture
async def ledger(settings: Settings) -> AsyncGenerator[Ledger]:
    async with open_ledger(settings) as opened:
        yield opened


async def use(ledger: Ledger, agent: str) -> None:
    usage = Usage(cost_nano_usd=10_000_000, cost_source="reported")
    await ledger.record(OPERATOR, Report(Who(agent, "api"), usage))


async def key_of(ledger: Ledger, role: Role, bound_to: str | None = None) -> Key:
    return Key((await ledger.create_key(OPERATOR, role, bound_to))[1])


@asynccontextmanager
async def looking(url: str, key: Key | None = None) -> AsyncGenerator[RemoteSource]:
    source = RemoteSource(url, key, "UTC")
    try:
        yield source
    finally:
        with anyio.fail_after(30):
            await source.close()


async def until_changed(source: RemoteSource) -> None:
    with anyio.fail_after(WAIT_S):
        while not await source.changed():  # noqa: ASYNC110 - it is what is tested
            await anyio.sleep(0.01)


class Listened:
    """ASGI: counts requests, and remembers where streams were to be resumed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.paths: list[str] = []
        self.resumed: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.paths.append(scope["path"])
            if scope["path"] == "/v1/stream":
                self.resumed.append(dict(scope["headers"]).get(b"last-event-id", b"").decode())
        await self._app(scope, receive, send)


class NeverEnding:
    """ASGI: whoever reads a page is told of another one, each time by a new cursor."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.pages = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def tell(message: Message) -> None:
            last = b'"next_cursor":null'
            if last in message.get("body", b"") and b'"agents":' in message["body"]:
                self.pages += 1
                # As long as the null, for the length of the body was told before.
                message["body"] = message["body"].replace(last, b'"next_cursor":"%02d"' % (self.pages % 100))
            await send(message)

        await self._app(scope, receive, tell)


# News


async def test_what_happens_is_heard_at_once_and_nothing_is_asked_meanwhile(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "ASK_S", 1000.0)
    app = Listened(site_of(ledger))
    async with listening(app) as url, looking(url) as source:
        assert await source.changed()
        assert (await source.snapshot(ALL)).agents == ()
        await until(lambda: source._news)  # pyright: ignore[reportPrivateUsage]  that the stream has begun
        assert not await source.changed()
        asked = len(app.paths)
        for _ in range(100):
            assert not await source.changed()
        assert len(app.paths) == asked
        await use(ledger, "ann")
        await until_changed(source)
        (view,) = (await source.snapshot(ALL)).agents
        assert view.agent.agent_id == "ann"


async def test_what_another_process_writes_is_found_by_asking(
    ledger: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "ASK_S", 0.05)
    async with listening(site_of(ledger)) as url, looking(url) as source:
        await source.snapshot(ALL)
        async with open_ledger(settings) as other:
            await use(other, "bob")
        await until_changed(source)
        (view,) = (await source.snapshot(ALL)).agents
        assert view.agent.agent_id == "bob"


async def test_a_connection_that_breaks_while_it_ends_is_a_meter_that_cannot_be_reached(
    ledger: Ledger,
) -> None:
    """What the SDK's streams say then has no cause of the network."""
    broke = ExceptionGroup("unhandled errors in a TaskGroup", [anyio.BrokenResourceError()])
    async with listening(site_of(ledger)) as url, looking(url) as source:
        error = await source._link._failed(broke)  # pyright: ignore[reportPrivateUsage]  it happens one time in many
    assert isinstance(error, Unreachable)
    assert str(error).endswith("cannot be reached: it broke off.")
    async with looking("http://127.0.0.1:1") as source:
        error = await source._link._failed(broke)  # pyright: ignore[reportPrivateUsage]  as above
    assert "nothing listens there" in str(error)


@pytest.mark.parametrize(("metric", "most"), [("cost_usd", 2**23 * 10**9), ("units", 2**33 * 10**6)])
def test_amounts_come_over_exactly_up_to_what_is_said(metric: Metric, most: int) -> None:
    for value in (*range(most - 20_000, most), *range(most // 2, most // 2 + 20_000), most * 10**6):
        assert amount_of(metric, json.loads(json.dumps(number_of(metric, value)))) == value


async def test_a_stream_that_broke_is_resumed_where_it_broke(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PAUSES_S", (0.01,))
    app = Listened(site_of(ledger))
    async with listening(app) as url, looking(url) as source:
        await source.changed()
        await until(lambda: app.resumed != [])
        await use(ledger, "ann")
        await until(lambda: source._last_id is not None)  # pyright: ignore[reportPrivateUsage]  what it will resume by
        heard = source._last_id  # pyright: ignore[reportPrivateUsage]  as above
        await source._link._http.aclose()  # pyright: ignore[reportPrivateUsage, reportOptionalMemberAccess]  as a network does
        source._link._http = None  # pyright: ignore[reportPrivateUsage]  the next request connects anew
        await until(lambda: len(app.resumed) == 2)
        assert app.resumed == ["", heard]


async def test_a_stream_whose_ids_are_strange_is_resumed_by_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was never listened to again, and leaving the dashboard raised why."""
    monkeypatch.setattr(remote, "PAUSES_S", (0.01,))
    messages = "id: é\ndata: x\n\n".encode()
    with answering(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + messages) as (url, heard):
        async with looking(url) as source:
            await source.changed()
            await until(lambda: len(heard) > 2)
    assert "last-event-id: é\r\n" in heard[1].decode().lower()


async def test_a_cookie_that_cannot_be_sent_back_is_told_in_a_sentence() -> None:
    """A proxy before the meter may set one."""
    with answering(b"HTTP/1.1 502 X\r\nset-cookie: place=\xe9\r\ncontent-length: 0\r\n\r\n") as (url, _):
        async with looking(url) as source:
            for _ in range(2):
                with pytest.raises(Unreachable):
                    await source.snapshot(ALL)


# Who may what


async def test_a_viewer_sees_all_and_changes_nothing(ledger: Ledger) -> None:
    await use(ledger, "ann")
    key = await key_of(ledger, "viewer")
    async with listening(site_of(ledger)) as url, looking(url, key) as source:
        assert source.refusal == ""
        assert len((await source.snapshot(ALL)).agents) == 1
        assert len(await source.audit()) == 1
        assert "role viewer" in source.refusal
        with pytest.raises(Forbidden, match=r"^this needs the role operator; you have the role viewer"):
            await source.stop("agent", "ann", "loops")
        assert (await source.snapshot(ALL)).switches == ()


async def test_an_operator_does_all_that_can_be_done_at_a_file(ledger: Ledger) -> None:
    await use(ledger, "ann")
    key = await key_of(ledger, "operator")
    held = (await ledger.reserve(OPERATOR, Report(Who("ann", "api"), Usage()))).reservation
    assert held is not None
    limit = LimitKey(Subject("agent", "ann"), "api", "cost_usd", "day")
    async with listening(site_of(ledger)) as url, looking(url, key) as source:
        await source.stop("agent", "ann", "loops")
        await source.stop("everything", None, "fire")
        await source.stop("service", "api", "costs")
        stopped = (await source.snapshot(ALL)).switches
        assert {(one.kind, one.name, one.reason) for one in stopped} == {
            ("agent", "ann", "loops"), ("everything", None, "fire"), ("service", "api", "costs")
        }  # fmt: skip
        await source.resume("everything", None)
        await source.resume("service", "api")
        await source.resume("agent", "ann")
        assert (await source.snapshot(ALL)).switches == ()
        await source.set_limit(limit, 1_250_000_001, action="warn", zone="Europe/Berlin", thresholds=(90,))
        await source.set_limit(LimitKey(Subject(), None, "requests", "total"), 7)
        first, second = await source.limits()
        assert (first.limit.key, first.limit.max, first.limit.action) == (limit, 1_250_000_001, "warn")
        assert (first.limit.zone, first.limit.thresholds) == ("Europe/Berlin", (90,))
        assert (second.limit.key.subject, second.limit.max) == (Subject(), 7)
        await source.remove_limit(first.limit.limit_id)
        assert [view.limit.limit_id for view in await source.limits()] == [second.limit.limit_id]
        with pytest.raises(MeterError, match=r"^there is no such limit"):
            await source.remove_limit(first.limit.limit_id)
        await source.set_agent("ann", {"tier": "gold", "name": "Ann"})
        await source.set_agent("ann", {"name": None})
        detail = await source.detail("ann", ALL)
        assert [one.reservation_id for one in detail.held] == [held.reservation_id]
        await source.release(held.reservation_id)
        assert (await source.detail("ann", ALL)).held == ()
        (ann,) = (await source.snapshot(ALL)).agents
        assert (ann.agent.tier, ann.agent.name) == ("gold", None)


async def test_what_went_wrong_is_known_by_its_code_and_not_by_its_words(ledger: Ledger) -> None:
    limit = LimitKey(Subject("agent", "ann"), "api", "cost_usd", "day")
    async with listening(site_of(ledger)) as url, looking(url) as source:
        with pytest.raises(InvalidInput, match=r"^timezone: ") as told:
            await source.set_limit(limit, 1, zone="Mars/Phobos")
        assert told.value.field == "timezone"
        with pytest.raises(NotFound, match=r"^there is no such limit"):
            await source.remove_limit("x")


@pytest.mark.parametrize("meta", [None, {}, {META: "forbidden"}, {META: {"code": "of-tomorrow"}}])
def test_an_error_whose_code_is_not_told_or_not_known_is_told_all_the_same(meta: Any) -> None:
    text = TextContent(type="text", text="set_limit: this needs the role operator.")
    with pytest.raises(MeterError, match=r"^this needs the role operator\.$") as told:
        remote_link._told("set_limit", CallToolResult(content=[text], is_error=True, _meta=meta))  # pyright: ignore[reportPrivateUsage]  what a meter of another version answers
    assert type(told.value) is MeterError


async def test_a_key_that_is_not_taken_is_not_sent_again_and_again(ledger: Ledger) -> None:
    key, made = Key("am_wrong"), await ledger.create_key(OPERATOR, "operator")
    app = Listened(site_of(ledger))
    async with listening(app) as url, looking(url, key) as source:
        for _ in range(20):
            with pytest.raises(Unauthorized, match=r"^this key is not valid.*those that are\.$"):
                await source.snapshot(ALL)
        assert app.paths == ["/v1/status"]
    async with listening(site_of(ledger)) as url, looking(url, Key(made[1])) as source:
        await source.snapshot(ALL)
        await ledger.revoke_key(OPERATOR, made[0].key_id)
        with pytest.raises(Unauthorized):
            await source.snapshot(ALL)
        with pytest.raises(Unauthorized):
            await source.stop("agent", "ann", "loops")


async def test_a_key_of_the_wrong_kind_is_told_what_it_lacks(ledger: Ledger) -> None:
    key = await key_of(ledger, "service", "api")
    app = Listened(site_of(ledger))
    async with listening(app) as url, looking(url, key) as source:
        for _ in range(5):
            with pytest.raises(Forbidden, match="you have the role service"):
                await source.snapshot(ALL)
        assert app.paths == ["/v1/status"]


async def test_without_a_key_it_says_that_it_takes_one(ledger: Ledger) -> None:
    await ledger.create_key(OPERATOR, "viewer")
    async with listening(site_of(ledger)) as url, looking(url) as source:
        with pytest.raises(Unauthorized, match="this needs a key"):
            await source.snapshot(ALL)


# When it cannot be asked

NO_METER = "does not answer like a meter, or like one that is older"
ANSWERS = [
    (http(404, '{"detail": "Not Found"}'), NO_METER),
    (http(200, "<html>hello</html>", kind="text/html"), NO_METER),
    (http(200, "[]", kind="application/json"), NO_METER),
    (http(200, '{"at": "never"}', kind="application/json"), "it is of another version"),
    (http(302, "", "Location: http://127.0.0.1:1/login"), r"sends elsewhere \(HTTP 302\)"),
    (http(429, "{}", "Retry-After: 7"), "wants to be asked again in 7 s, not before"),
    (http(503, '{"code": "overloaded", "detail": "busy"}', "Retry-After: 1"), "^busy$"),
    (b"SSH-2.0-OpenSSH_9.2\r\n", "it broke off, or it speaks TLS"),
    (b"", "it broke off, or it speaks TLS"),
]


@pytest.mark.parametrize(("answer", "said"), ANSWERS)
async def test_each_strange_answer_is_told_in_a_sentence(answer: bytes, said: str) -> None:
    with answering(answer) as (url, _):
        async with looking(url, Key("am_secret")) as source:
            with pytest.raises(MeterError, match=said) as told:
                await source.snapshot(ALL)
            assert "am_secret" not in str(told.value)
            assert "\n" not in str(told.value)


async def test_whoever_wants_to_be_left_alone_is() -> None:
    with answering(http(429, "{}", "Retry-After: 1")) as (url, heard):
        async with looking(url) as source:
            for _ in range(10):
                with pytest.raises(Unreachable, match="in 1 s"):
                    await source.snapshot(ALL)
            assert len(heard) == 1
            began = time.monotonic()
            with anyio.fail_after(WAIT_S):
                while len(heard) == 1:
                    with pytest.raises(Unreachable):
                        await source.snapshot(ALL)
                    await anyio.sleep(0.01)
            assert time.monotonic() - began > 0.5


async def test_a_place_without_a_server_and_a_name_without_a_place() -> None:
    for url, said in (
        ("http://127.0.0.1:1", "nothing listens there. Is it running?"),
        ("http://nowhere.invalid", r"its name is not known \(DNS\)"),
    ):
        async with looking(url) as source:
            with pytest.raises(Unreachable, match=said):
                await source.snapshot(ALL)


async def test_whoever_does_not_answer_is_not_waited_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_link, "TIMEOUT_S", 0.1)
    with answering(None) as (url, _):
        async with looking(url) as source:
            with pytest.raises(Unreachable, match="it does not answer in time"):
                await source.snapshot(ALL)


async def test_who_answers_letter_by_letter_is_not_waited_for_forever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The dashboard said that it was live, and never looked again."""
    monkeypatch.setattr(remote_link, "ANSWER_S", 0.3)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000000\r\n\r\n"
    async with dripping(head) as url, looking(url) as source:
        with anyio.fail_after(WAIT_S), pytest.raises(Unreachable, match="it does not answer in time"):
            await source.snapshot(ALL)


async def test_who_has_another_page_for_ever_is_not_followed_for_ever(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "AGENTS_PAGES_MAX", 5)
    await use(ledger, "ann")
    site = NeverEnding(site_of(ledger))
    async with listening(site) as url, looking(url) as source:
        with anyio.fail_after(WAIT_S), pytest.raises(Unreachable, match="after 5 pages of 200 it is not"):
            await source.snapshot(ALL)
    assert site.pages == 5


async def test_a_certificate_must_be_trusted_and_tls_be_spoken(tmp_path: Path, pem: Tls) -> None:
    with serving_tls(tmp_path, "127.0.0.1", pem.cert, pem.key) as (told, _):
        url = told.removesuffix("/mcp")
        async with looking(url) as source:
            with pytest.raises(Unreachable, match=r"not to be trusted .*set SSL_CERT_FILE"):
                await source.snapshot(ALL)
        async with looking(url.replace("https:", "http:")) as source:
            with pytest.raises(Unreachable, match="is it https, not http"):
                await source.snapshot(ALL)
    with serving_tls(tmp_path) as (told, _):
        async with looking(told.replace("http:", "https:")) as source:
            with pytest.raises(Unreachable, match="Is it http, not https"):
                await source.snapshot(ALL)


async def test_it_is_left_at_once_when_nobody_answers_any_more(tmp_path: Path) -> None:
    with serving(tmp_path) as meter:
        source = RemoteSource(meter.url, None, "UTC")
        await source.changed()
        await source.snapshot(ALL)
        assert meter.process is not None
        meter.process.send_signal(signal.SIGSTOP)
        with anyio.move_on_after(0.2):
            await source.snapshot(ALL)
        began = time.monotonic()
        await source.close()
        assert time.monotonic() - began < 2
        meter.process.send_signal(signal.SIGCONT)


# Where it is, and its key


@pytest.mark.parametrize(
    "url",
    [
        "",
        "meter",
        "ftp://x",
        "http://",
        "http://a:99999",
        "http://u:p@x",
        "http://x?key=am_s",
        "http://[::1",
        "http://x\x1b[0m",
        "http://a\nb",
        "http://x/\x00",
        "http://a\u202eb",
    ],
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"^url: ") as told:
        RemoteSource(url, None, "UTC")
    assert "am_s" not in str(told.value) and "u:p" not in str(told.value)


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("http://127.0.0.1:8787/mcp", "http://127.0.0.1:8787"),
        ("https://meter.example/", "https://meter.example"),
        ("http://[::1]:1/base/", "http://[::1]:1/base"),
    ],
)
def test_a_url_may_be_that_of_the_tools(url: str, where: str) -> None:
    assert RemoteSource(url, None, "UTC").where == where


@pytest.mark.parametrize("text", ["", "am_ä", "am_a b", "am_a\nX: y", "am_\x1b[31m"])
def test_a_key_that_no_header_can_hold_is_refused_without_a_word_of_it(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^key: is no key") as told:
        Key(text)
    assert "am_" not in str(told.value)


async def test_a_key_is_printed_by_nothing(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = (await ledger.create_key(OPERATOR, "viewer"))[1]
    key = Key(secret)
    async with listening(site_of(ledger)) as url, looking(url, key) as source:
        await source.snapshot(ALL)
        with pytest.raises(Forbidden) as told:
            await source.resume("everything", None)
        held = vars(source) | vars(source._link) | vars(key)  # pyright: ignore[reportPrivateUsage]  all that it knows
        said = f"{source!r} {source._link!r} {source._link._http!r} {key!r} {source.where} {told.value!r}"  # pyright: ignore[reportPrivateUsage]  as above
        assert secret not in said + caplog.text
        assert [name for name, value in held.items() if secret in repr(value)] == ["_header"]
    for text in (repr(key), str(key)):
        assert re.fullmatch(r"Key\(\.\.\.\)", text)


def test_a_local_dashboard_does_not_pay_for_the_way_to_others(tmp_path: Path) -> None:
    """Neither for MCP nor for the browser's server."""
    code = (
        "import sys, agent_meter_mcp.cli.program, agent_meter_mcp.cli.dashboard as d, anyio\n"
        "from agent_meter_mcp import load_settings\n"
        "from agent_meter_mcp.core.roles import Caller\n"
        "from agent_meter_mcp.sources.base import RANGES\n"
        "from agent_meter_mcp.sources.local import LocalSource\n"
        "async def main():\n"
        "    source = LocalSource(load_settings(), Caller('operator', 'o'), 'UTC')\n"
        '    app = d.tui("app").Dashboard(source, source)\n'
        "    async with app.run_test() as pilot:\n"
        "        await source.snapshot(RANGES[0])\n"
        "    await source.close()\n"
        "anyio.run(main)\n"
        "print(sorted({'mcp', 'httpx2', 'aiohttp', 'starlette', 'pydantic'} & set(sys.modules)))\n"
    )
    environment = {**os.environ, "AGENT_METER_DB": str(tmp_path / "meter.db")}
    record = [sys.executable, "-m", "agent_meter_mcp", "record", "--agent", "a", "--service", "s"]
    subprocess.run(record, env=environment, check=True, capture_output=True)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
