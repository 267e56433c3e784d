"""The process that serves HTTP, as a process on a loopback port."""

from __future__ import annotations

import gzip
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat
from cryptography.x509.oid import NameOID
from mcp import Client
from mcp.types import CallToolResult

from agent_meter_mcp.core.errors import Forbidden, InvalidInput, StoreUnusable
from agent_meter_mcp.faces.serve import Tls, listening_at, serve
from agent_meter_mcp.settings import load_settings

SECONDS = 30
PROGRAM = """
import sys
from agent_meter_mcp.faces.serve import Tls, serve
from agent_meter_mcp.settings import load_settings
serve(load_settings(), sys.argv[1], 0, tls=Tls(*sys.argv[2:]) if sys.argv[2:] else None)
"""
POST = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
HELLO: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "raw", "version": "1"},
    },
}


def environment(folder: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_METER_")}
    return {**kept, "AGENT_METER_DB": str(folder / "usage.db"), **more}


@contextmanager
def serving(
    folder: Path, host: str = "127.0.0.1", *tls: str, **more: str
) -> Generator[tuple[str, subprocess.Popen[str]]]:
    """The URL of a server on a free port, and its process."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, host, *tls],
        env=environment(folder, **more),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        yield next(word for word in first.split() if word.startswith(("http://", "https://"))), process
    finally:
        process.kill()
        process.communicate()


async def called(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert isinstance(result, CallToolResult)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_many_clients_meter_over_http(tmp_path: Path, mode: Any) -> None:
    with serving(tmp_path) as (url, _):
        assert url.endswith("/mcp")

        async def spend(number: int) -> None:
            async with Client(url, mode=mode, read_timeout_seconds=SECONDS) as client:
                for _ in range(5):
                    await called(client, "record_usage", service="openai", agent=f"a{number}", cost_usd=0.1)

        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(spend, number)
        async with Client(url, mode=mode) as client:
            total = (await called(client, "get_usage_summary"))["total"]
            assert (total["events"], total["cost_usd"]) == (20, 2)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_client_is_the_agent_over_http_too(tmp_path: Path, mode: Any) -> None:
    """A session or a project in the environment is the server's own, and nobody else's."""
    with serving(tmp_path, CLAUDE_CODE_SESSION_ID="s-1", CLAUDE_PROJECT_DIR="/p") as (url, _):
        async with Client(url, mode=mode) as client:
            await called(client, "record_usage", service="openai")
            (event,) = (await called(client, "list_usage_events"))["events"]
    assert (event["agent"], event["session"], event["project"]) == ("mcp", None, None)


async def test_a_server_for_one_agent_is_that_agent(tmp_path: Path) -> None:
    with serving(tmp_path, AGENT_METER_AGENT="bot") as (url, _):
        async with Client(url) as client:
            refused = await client.call_tool("set_limit", {"max": 1, "metric": "tokens", "window": "day"})
            assert isinstance(refused, CallToolResult)
            assert refused.is_error


def test_it_says_where_it_is_and_who_may_do_what(tmp_path: Path) -> None:
    with serving(tmp_path) as (_, process):
        assert process.stderr is not None
        assert process.stderr.readline() == (
            "On this machine only, and without keys: every caller is the operator. Stop with Ctrl-C.\n"
        )


def test_it_says_at_once_that_its_secrets_cannot_be_used(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets.toml"
    secrets.write_text('receipt = "x"')
    secrets.chmod(0o644)
    with serving(tmp_path, AGENT_METER_SECRETS=str(secrets)) as (_, process):
        assert process.stderr is not None
        process.stderr.readline()
        assert process.stderr.readline() == (
            "ERROR: usage is refused as long as the file of secrets cannot be used:"
            f" {secrets} can be read by others: chmod 600 {secrets}\n"
        )


def test_it_says_at_once_that_its_prices_cannot_be_used(tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text("x = [")
    with serving(tmp_path, AGENT_METER_PRICES=str(prices)) as (_, process):
        assert process.stderr is not None
        process.stderr.readline()
        told = process.stderr.readline()
    assert told.startswith(
        "ERROR: usage is recorded without a cost as long as the prices cannot be used:"
        f" {prices}: is not valid TOML"
    )


def test_a_web_page_cannot_reach_it_through_a_browser(tmp_path: Path) -> None:
    with serving(tmp_path) as (url, _):
        for headers, status in (
            ({}, 200),
            ({"host": "localhost:1"}, 200),
            ({"origin": "http://localhost:3000"}, 200),
            ({"host": "evil.example"}, 421),
            ({"origin": "https://evil.example"}, 403),
        ):
            assert httpx2.post(url, json=HELLO, headers={**POST, **headers}).status_code == status, headers


def test_a_slash_at_its_end_leads_nobody_elsewhere(tmp_path: Path) -> None:
    with serving(tmp_path) as (url, _):
        assert httpx2.post(f"{url}/", json=HELLO, headers=POST, follow_redirects=False).status_code == 200


def test_a_body_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as (url, _):
        answer = httpx2.post(url, content=b"x" * (5 * 1024 * 1024), headers=POST)
        assert answer.status_code == 413


def test_a_body_for_mcp_may_be_packed_and_is_bounded_as_any_other(tmp_path: Path) -> None:
    packed = {**POST, "content-encoding": "gzip"}
    with serving(tmp_path) as (url, _):
        answer = httpx2.post(url, content=gzip.compress(json.dumps(HELLO).encode()), headers=packed)
        assert answer.status_code == 200
        bomb = httpx2.post(url, content=gzip.compress(b" " * 5 * 1024 * 1024), headers=packed)
        assert (bomb.status_code, bomb.json()["code"]) == (413, "body_too_large")


@pytest.mark.skipif(sys.platform == "win32", reason="signals end a process there without a word")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_it_with_open_streams(tmp_path: Path, number: int) -> None:
    with serving(tmp_path) as (url, process):
        async with Client(url, mode="legacy") as client:
            await called(client, "record_usage", service="openai")
            process.send_signal(number)
            assert await anyio.to_thread.run_sync(process.wait, SECONDS) == 0
    assert not (tmp_path / "usage.db-wal").exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.com", ""])
def test_another_address_is_refused_while_there_are_no_tokens(tmp_path: Path, host: str) -> None:
    with pytest.raises(Forbidden, match=r"or listen on 127\.0\.0\.1\.$"):
        serve(load_settings(environment(tmp_path)), host, 0)
    assert list(tmp_path.iterdir()) == []


def key_in(folder: Path, *options: str, role: str = "viewer") -> dict[str, Any]:
    """A key, made by another process than the server's."""
    return agent_meter(folder, "keys", "create", "--role", role, *options)


def agent_meter(folder: Path, *words: str) -> dict[str, Any]:
    """What a command of another process answers."""
    done = subprocess.run(
        [sys.executable, "-m", "agent_meter_mcp", *words, "--json"],
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    return json.loads(done.stdout)


NOT_LOOPBACK = "127.1"
"""An address that is this machine, but does not look like it."""


def test_another_address_needs_a_key_that_is_in_force(tmp_path: Path) -> None:
    settings = load_settings(environment(tmp_path))
    agent_meter(tmp_path, "keys", "revoke", key_in(tmp_path)["prefix"])
    with pytest.raises(Forbidden, match="Make one first with `agent-meter keys create`"):
        serve(settings, NOT_LOOPBACK, 0)


def test_another_address_is_served_to_those_who_have_a_key(tmp_path: Path) -> None:
    key = key_in(tmp_path)
    with serving(tmp_path, NOT_LOOPBACK) as (url, process):
        assert process.stderr is not None
        assert process.stderr.readline().startswith(
            "Every caller needs a key, which others on the way can read"
        )
        assert httpx2.post(url, json=HELLO, headers=POST).status_code == 401
        bearer = {"authorization": f"Bearer {key['token']}"}
        assert httpx2.post(url, json=HELLO, headers={**POST, **bearer}).status_code == 200
        agent_meter(tmp_path, "keys", "revoke", key["prefix"])
        assert httpx2.post(url, json=HELLO, headers={**POST, **bearer}).status_code == 401
        assert httpx2.post(url, json=HELLO, headers=POST).status_code == 401


def test_the_first_key_closes_a_server_that_runs(tmp_path: Path) -> None:
    with serving(tmp_path) as (url, process):
        assert httpx2.post(url, json=HELLO, headers=POST).status_code == 200
        key = key_in(tmp_path, "--agent", "bot", role="agent")
        assert httpx2.post(url, json=HELLO, headers=POST).status_code == 401
        bearer = {"authorization": f"Bearer {key['token']}"}
        assert httpx2.post(url, json=HELLO, headers={**POST, **bearer}).status_code == 200
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=SECONDS)
    (listed,) = agent_meter(tmp_path, "keys", "list")["keys"]
    assert listed["last_used_at"] is not None
    assert key["token"][11:] not in said


def test_a_server_with_keys_says_that_they_are_needed(tmp_path: Path) -> None:
    key_in(tmp_path)
    with serving(tmp_path) as (_, process):
        assert process.stderr is not None
        assert process.stderr.readline() == "Every caller needs a key. Stop with Ctrl-C.\n"


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A certificate for 127.0.0.1 that nobody has signed, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "agent-meter test")])
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(here, critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    tls = Tls(str(folder / "cert.pem"), str(folder / "key.pem"))
    Path(tls.cert).write_bytes(made.public_bytes(Encoding.PEM))
    Path(tls.key).write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return tls


def test_it_serves_https(tmp_path: Path, pem: Tls) -> None:
    with serving(tmp_path, "127.0.0.1", *pem) as (url, _):
        assert url.startswith("https://127.0.0.1:")
        trust = ssl.create_default_context(cafile=pem.cert)
        assert httpx2.post(url, json=HELLO, headers=POST, verify=trust).status_code == 200


def test_a_certificate_that_cannot_be_used_is_refused(tmp_path: Path, pem: Tls) -> None:
    settings = load_settings(environment(tmp_path))
    (tmp_path / "nonsense.pem").write_text("nonsense")
    nonsense, missing = str(tmp_path / "nonsense.pem"), str(tmp_path / "missing.pem")
    for tls, field in (
        (Tls(missing, pem.key), "tls_cert"),
        (Tls(pem.cert, missing), "tls_key"),
        (Tls(str(tmp_path), pem.key), "tls_cert"),
        (Tls(pem.cert, nonsense), "tls_key"),
        (Tls(pem.key, pem.cert), "tls_key"),
    ):
        with pytest.raises(InvalidInput) as told:
            serve(settings, "127.0.0.1", 0, tls=tls)
        assert told.value.field == field


def test_an_answer_is_sent_at_once() -> None:
    with listening_at("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInput, match=f"^port: {port} on 127.0.0.1 cannot be listened on"):
            serve(load_settings(environment(tmp_path)), "127.0.0.1", port)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["192.0.2.7", "no such name"])
def test_an_address_that_is_not_this_machines_is_refused(host: str) -> None:
    with (
        pytest.raises(InvalidInput, match=f"^host: {host} is no address of this machine"),
        listening_at(host, 0),
    ):
        pass


def test_a_ledger_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / "usage.db").write_text("not a database " * 100)
    with pytest.raises(StoreUnusable):
        serve(load_settings(environment(tmp_path)), "127.0.0.1", 0)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "::1"])
async def test_any_loopback_address_will_do(tmp_path: Path, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, 0), family=family).close()
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with serving(tmp_path, host) as (url, _):
        async with Client(url) as client:
            assert (await called(client, "get_usage_summary"))["total"]["events"] == 0


async def test_thresholds_are_told_over_http(tmp_path: Path) -> None:
    with serving(tmp_path) as (url, _):
        async with Client(url) as watcher, Client(url) as client:
            async with watcher.listen(resource_subscriptions=["meter://alerts"]) as events:
                await called(client, "set_limit", max=1, metric="requests", window="day")
                await called(client, "record_usage", service="openai")
                with anyio.fail_after(SECONDS):
                    async for event in events:
                        assert getattr(event, "uri", None) == "meter://alerts"
                        break
