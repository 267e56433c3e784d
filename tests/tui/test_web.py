"""The dashboard in a browser: what nobody gets in by, and what whoever may see it sees. Real processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp
import anyio
import pytest

from agent_meter_mcp import Settings, open_ledger
from tests.sources.serving import until

from .watching import use

WAIT_S = 30
CODES = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]")
PAGES = ["/", "/keys.js", "/static/js/textual.js", "/static/css/xterm.css", "/download/x", "/ws", "/nothing"]
SAFE = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Site(NamedTuple):
    """`place` is its host and port, `link` what was printed."""

    process: subprocess.Popen[str]
    link: str
    place: str

    @property
    def origin(self) -> str:
        return f"http://{self.place}"


def environment(settings: Settings) -> dict[str, str]:
    """In which nobody's own home is written to."""
    return {**os.environ, "AGENT_METER_DB": settings.db, "HOME": str(Path(settings.db).parent)}


@contextmanager
def serving(settings: Settings, *arguments: str, **variables: str) -> Generator[Site]:
    process = subprocess.Popen(
        [sys.executable, "-m", "agent_meter_mcp", "dashboard", "--web", "--port", "0", *arguments],
        env=environment(settings) | variables,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        link = next(word for word in process.stdout.readline().split() if word.startswith("http://"))
        yield Site(process, link, link.split("/")[2])
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def site(settings: Settings) -> Generator[Site]:
    with serving(settings) as served:
        yield served


def test_a_theme_that_there_is_not_is_said_at_once(settings: Settings) -> None:
    """It was served, and every tab ended as it began."""
    ran = subprocess.run(
        [sys.executable, "-m", "agent_meter_mcp", "dashboard", "--web", "--port", "0", "--theme", "nonsense"],
        env={**os.environ, "AGENT_METER_DB": settings.db}, capture_output=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "--theme: must be auto or one of" in ran.stderr


@asynccontextmanager
async def browser(site: Site, *, admitted: bool = True) -> AsyncGenerator[aiohttp.ClientSession]:
    """One that was given the link, or one that was not."""
    jar = aiohttp.CookieJar(unsafe=True)  # of addresses without a name
    timeout = aiohttp.ClientTimeout(total=WAIT_S)
    async with aiohttp.ClientSession(site.origin, cookie_jar=jar, timeout=timeout) as session:
        if admitted:
            async with session.get(site.link) as page:
                assert (page.status, str(page.url)) == (200, f"{site.origin}/")
        yield session


def tabs(site: Site) -> list[int]:
    """The processes that the server has started."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = [line.split() for line in listed.stdout.splitlines()]
    return [int(pid) for pid, parent in pairs if int(parent) == site.process.pid]


def command_lines(site: Site) -> str:
    """Of the server and its tabs, as everybody on the machine can read them."""
    ours = ",".join(str(pid) for pid in (site.process.pid, *tabs(site)))
    asked = ["ps", "-ww", "-o", "args=", "-p", ours]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout


def lives(pid: int) -> bool:
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return listed.stdout.strip()[:1] not in ("", "Z")


async def seen(socket: aiohttp.ClientWebSocketResponse, wanted: bytes) -> None:
    """Reads what is painted until it is there. Colours change also within a word."""
    painted = b""
    with anyio.fail_after(WAIT_S):
        while wanted not in CODES.sub(b"", painted):
            message = await socket.receive()
            assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), message
            painted += message.data if isinstance(message.data, bytes) else b""


@asynccontextmanager
async def tab(site: Site, session: aiohttp.ClientSession) -> AsyncGenerator[aiohttp.ClientWebSocketResponse]:
    headers = {"Origin": site.origin}
    async with session.ws_connect("/ws?width=110&height=30", headers=headers) as socket:
        yield socket


@pytest.mark.parametrize("path", PAGES)
async def test_nothing_is_shown_to_whoever_was_not_given_the_link(site: Site, path: str) -> None:
    ours = {"Origin": site.origin}
    async with browser(site, admitted=False) as stranger:
        for cookie in ("", f"agent-meter-{urlsplit(site.origin).port}=guessed"):
            async with stranger.get(path, headers={**ours, "Cookie": cookie}) as page:
                assert page.status == 403
                assert "textual" not in await page.text()
                for name, value in SAFE.items():
                    assert page.headers[name] == value
                assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
        for token in ("", "guessed", "é"):
            async with stranger.get(path, params={"token": token}, headers=ours) as page:
                assert page.status == 403
                assert "Set-Cookie" not in page.headers


@pytest.mark.parametrize("path", PAGES)
async def test_a_request_for_another_host_or_from_another_page_is_refused_even_with_the_cookie(
    site: Site, path: str
) -> None:
    port = urlsplit(site.origin).port
    async with browser(site) as admitted:
        for headers in (
            {"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}"},
            {"Host": "127.0.0.1:1", "Origin": "http://127.0.0.1:1"},
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": f"https://{site.place}"},
            {"Origin": "http://127.0.0.1:1"},
        ):
            async with admitted.get(path, headers=headers) as page:
                assert page.status == 403, headers


async def test_the_link_does_not_work_for_another_host(site: Site) -> None:
    async with browser(site, admitted=False) as stranger:
        async with stranger.get(site.link, headers={"Host": "evil.example"}) as page:
            assert page.status == 403


async def test_a_socket_must_say_which_page_opens_it(site: Site) -> None:
    async with browser(site) as admitted:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await admitted.ws_connect("/ws")
        assert refused.value.status == 403
    assert tabs(site) == []


async def test_the_token_becomes_a_cookie_and_leaves_the_address(site: Site) -> None:
    async with browser(site, admitted=False) as session:
        async with session.get(site.link, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/")
            cookie = answer.headers["Set-Cookie"]
            assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
            token = site.link.rpartition("=")[2]
            assert len(token) >= 43
            assert token not in cookie
        async with session.get("/") as page:
            text = await page.text()
            assert page.status == 200
            assert token not in text and "https://" not in text
            assert page.headers["Cache-Control"] == "no-store"


async def test_a_page_has_all_that_it_asks_for(site: Site) -> None:
    """Whoever looked in a real browser had to click before keys did anything, and rows were cut off below."""
    async with browser(site) as session:
        async with session.get("/") as page:
            asked = re.findall(r'(?:src|href)="(/[^"]+)"|url\("(/[^"]+)"\)', await page.text())
        paths = [one or other for one, other in asked]
        assert {"/keys.js", "/static/js/textual.js"} < set(paths)
        assert any(path.endswith(".ttf") for path in paths)
        for path in paths:
            async with session.get(path) as part:
                assert part.status == 200, path
                assert not path.endswith(".js") or part.content_type.endswith("/javascript")


async def test_the_link_shows_the_dashboard_which_only_shows(settings: Settings, site: Site) -> None:
    async with open_ledger(settings) as ledger:
        await use(ledger, "researcher")
    async with browser(site) as session, tab(site, session) as socket:
        await seen(socket, b"researcher")
        assert "--read-only" in command_lines(site)
        assert site.link.rpartition("=")[2] not in command_lines(site)
        await socket.send_json(["stdin", "x"])
        await seen(socket, b"only shows")


async def test_actions_are_possible_where_they_are_allowed(settings: Settings) -> None:
    async with open_ledger(settings) as ledger:
        await use(ledger, "researcher")
        with serving(settings, "--allow-actions") as site:
            async with browser(site) as session, tab(site, session) as socket:
                await seen(socket, b"researcher")
                await socket.send_json(["stdin", "x"])
                await seen(socket, b"Cancel")


async def test_each_tab_has_a_process_that_ends_with_it(site: Site) -> None:
    async with browser(site) as session:
        async with tab(site, session) as first, tab(site, session) as second:
            await seen(first, b"meter")
            await seen(second, b"meter")
            assert len(tabs(site)) == 2
        await until(lambda: tabs(site) == [])
        async with tab(site, session) as socket:
            await seen(socket, b"meter")
            await socket.send_str('{"no": "message"}')
            while not socket.closed:
                await socket.receive()
        await until(lambda: tabs(site) == [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_all_end_when_the_server_ends(settings: Settings, site: Site, number: signal.Signals) -> None:
    async with browser(site) as session, tab(site, session) as socket:
        await seen(socket, b"meter")
        (process,) = tabs(site)
        site.process.send_signal(number)
        with anyio.fail_after(WAIT_S):
            code = await anyio.to_thread.run_sync(site.process.wait)
        assert code == (-number if number == signal.SIGKILL else 0)
        await until(lambda: not lives(process))
    log = anyio.Path(settings.db).parent / ".agent-meter" / "dashboard.log"
    assert not await log.exists(), "that its server is gone is no failure of a tab"


async def test_a_key_is_on_no_command_line(settings: Settings) -> None:
    secret = "am_not-a-key-that-is-in-force"
    with serving(settings, "--url", "http://127.0.0.1:1", AGENT_METER_KEY=secret) as site:
        async with browser(site) as session, tab(site, session) as socket:
            await seen(socket, b"nothing listens there")
            assert command_lines(site).count("--url http://127.0.0.1:1") == 2
            assert secret not in command_lines(site)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "1234"], "--port: is for a browser"),
        (["--allow-actions"], "--allow-actions: is for a browser"),
        (["--web", "--allow-actions", "--read-only"], "--allow-actions: give either"),
        (["--web", "--port", "99999"], "--port: 99999 cannot be listened on"),
        (["--key", "am_x"], "--key: is for a meter elsewhere"),
    ],
)
def test_what_does_not_go_together_is_said(settings: Settings, arguments: list[str], said: str) -> None:
    done = dashboard(settings, *arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_without_the_extra_it_says_what_is_missing(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "textual_serve.py").write_text("raise ImportError('not installed')\n")
    done = dashboard(settings, "--web", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "pip install 'agent-meter-mcp[web]'" in done.stderr


def dashboard(settings: Settings, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent_meter_mcp", "dashboard", *arguments],
        env=environment(settings) | variables,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
