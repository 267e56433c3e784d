"""The process that an MCP client starts, as a process."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp.types import INVALID_REQUEST, PARSE_ERROR, CallToolResult, Implementation

from agent_meter_mcp import __version__
from agent_meter_mcp.faces.stdio import main

MODULE = [sys.executable, "-m", "agent_meter_mcp.faces.stdio"]
SECONDS = 30
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "raw", "version": "1"},
    },
}
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals end a process there without a word")


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The test's environment with a ledger in `folder`, and nothing that a harness around it has set."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("AGENT_METER_", "CLAUDE"))
    }
    return {
        **inherited,
        "AGENT_METER_DB": str(folder / "usage.db"),
        "AGENT_METER_PRICES": str(folder / "prices.toml"),
        **more,
    }


def run(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A start that ends by itself: its stdin is empty."""
    return subprocess.run(
        [*MODULE, *arguments],
        env=environment(folder, **more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


class Raw:
    """The process, spoken to in lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout

    def say(self, line: str) -> None:
        self._in.write(line + "\n")
        self._in.flush()

    def ask(self, request: dict[str, Any] | str) -> dict[str, Any]:
        self.say(request if isinstance(request, str) else json.dumps(request))
        return json.loads(self.line())

    def line(self) -> str:
        """What it says next."""
        return self._out.readline()

    def call(self, tool: str, arguments: str) -> dict[str, Any]:
        """A call whose arguments are JSON text, as they are."""
        start = '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":'
        return self.ask(f'{start}"{tool}","arguments":{arguments}}}}}')["result"]

    def rest(self) -> tuple[str, str]:
        """What else it says, once stdin is closed."""
        return self.process.communicate(timeout=SECONDS)


def asked(number: int, method: str, params: dict[str, Any]) -> str:
    """A request as a line."""
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


@contextmanager
def begun(folder: Path, *arguments: str, **more: str) -> Generator[Raw]:
    """The process, to which nobody has said anything yet."""
    process = subprocess.Popen(
        [*MODULE, *arguments],
        env=environment(folder, **more),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Raw(process)
    finally:
        process.kill()
        process.communicate()


@contextmanager
def started(folder: Path, *arguments: str, **more: str) -> Generator[Raw]:
    """The process after the handshake."""
    with begun(folder, *arguments, **more) as raw:
        assert raw.ask(HELLO)["result"]["serverInfo"]["name"] == "agent-meter"
        raw.say('{"jsonrpc":"2.0","method":"notifications/initialized"}')
        yield raw


@contextmanager
def database(folder: Path) -> Generator[sqlite3.Connection]:
    connection = sqlite3.connect(folder / "usage.db")
    try:
        yield connection
    finally:
        connection.close()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_meters_over_stdio(tmp_path: Path, mode: Any) -> None:
    command = StdioServerParameters(
        command=MODULE[0],
        args=MODULE[1:],
        env=environment(tmp_path, CLAUDE_CODE_SESSION_ID="s-1", CLAUDE_PROJECT_DIR="/srv/proj"),
    )
    who = Implementation(name="claude-code", version="2")
    async with Client(command, mode=mode, client_info=who, read_timeout_seconds=SECONDS) as client:
        recorded = await client.call_tool("record_usage", {"service": "openai", "cost_usd": 0.1})
        assert isinstance(recorded, CallToolResult)
        assert not recorded.is_error
        listed = await client.call_tool("list_usage_events", {})
        assert isinstance(listed, CallToolResult)
        assert listed.structured_content is not None
        (event,) = listed.structured_content["events"]
        assert (event["agent"], event["session"], event["project"]) == ("claude-code", "s-1", "/srv/proj")
        assert event["cost_usd"] == 0.1


def test_closing_stdin_ends_it_without_a_word(tmp_path: Path) -> None:
    with started(tmp_path) as raw:
        assert raw.rest() == ("", "")
        assert raw.process.returncode == 0


def test_what_was_asked_before_stdin_closed_is_answered(tmp_path: Path) -> None:
    with started(tmp_path) as raw:
        for number in range(10, 30):
            used = {"service": "s", "model": "claude-opus-4-5", "input_tokens": number, "id": f"e-{number}"}
            raw.say(asked(number, "tools/call", {"name": "record_usage", "arguments": used}))
        raw.say(asked(30, "tools/call", {"name": "get_usage_summary", "arguments": {}}))
        raw.say(asked(31, "no/such/thing", {}))
        said, complained = raw.rest()
        answers = {answer["id"]: answer for answer in map(json.loads, said.splitlines())}
        assert sorted(answers) == list(range(10, 32))
        for number in range(10, 30):
            recorded = answers[number]["result"]["structuredContent"]
            assert (recorded["id"], recorded["status"]) == (f"e-{number}", "recorded")
        assert answers[30]["result"]["isError"] is False
        assert (raw.process.returncode, complained) == (0, "")


def test_what_is_cancelled_or_never_ends_is_not_waited_for_when_stdin_closes(tmp_path: Path) -> None:
    with started(tmp_path) as raw, database(tmp_path) as connection:
        connection.execute("BEGIN IMMEDIATE")  # nothing is answered while somebody else is writing
        raw.say(asked(10, "tools/call", {"name": "record_usage", "arguments": {"service": "s"}}))
        raw.say(asked(11, "tools/list", {}))
        assert json.loads(raw.line())["id"] == 11
        gone = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 10}}
        raw.say(json.dumps(gone))
        raw.say(asked(12, "tools/list", {}))
        assert json.loads(raw.line())["id"] == 12
        connection.rollback()
        assert raw.rest() == ("", "")
        assert connection.execute("SELECT count(*) FROM event").fetchone() == (1,)
    modern = {
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
    }
    with begun(tmp_path) as raw:
        wanted = {"notifications": {"resourceSubscriptions": ["meter://alerts"]}}
        raw.say(asked(1, "subscriptions/listen", {**wanted, **modern}))
        assert json.loads(raw.line())["method"] == "notifications/subscriptions/acknowledged"
        raw.say(asked(2, "tools/list", modern))
        said, complained = raw.rest()
        assert 2 in [json.loads(line).get("id") for line in said.splitlines()]
        assert (raw.process.returncode, complained) == (0, "")


@POSIX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_after_the_ledger_is_closed(tmp_path: Path, number: int) -> None:
    with started(tmp_path) as raw:
        assert not raw.call("record_usage", '{"service":"openai"}')["isError"]
        raw.process.send_signal(number)
        assert raw.process.wait(SECONDS) == -number
        assert raw.rest() == ("", "")
    assert not (tmp_path / "usage.db-wal").exists()


@POSIX
def test_a_signal_before_it_serves_ends_it_at_once(tmp_path: Path) -> None:
    process = subprocess.Popen(
        MODULE, env=environment(tmp_path), stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=SECONDS)
    assert (process.returncode, error) == (-signal.SIGTERM, "")


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    with started(tmp_path) as raw:
        for number in range(20):
            assert not raw.call("record_usage", f'{{"service":"openai","id":"e{number}"}}')["isError"]
        raw.process.kill()
        raw.process.wait(SECONDS)
    with started(tmp_path) as raw:
        total = raw.call("get_usage_summary", "{}")["structuredContent"]["total"]
        assert total["events"] == 20


def test_only_finite_numbers_count_and_they_count_exactly(tmp_path: Path) -> None:
    with started(tmp_path) as raw:
        for number in ("1e400", "-1e400", "NaN", "Infinity"):
            answer = raw.call("record_usage", f'{{"service":"openai","cost_usd":{number}}}')
            assert answer["isError"]
            assert "cost_usd: must be a finite number" in answer["content"][0]["text"]
        for cost in ("0.1", "0.2", "0.000000001", "123456.789012345", "1e-7"):
            assert not raw.call("record_usage", f'{{"service":"openai","cost_usd":{cost}}}')["isError"]
        answer = raw.call("get_usage_summary", "{}")
        assert answer["structuredContent"]["total"]["cost_usd"] == 123457.089012446
        assert "$123,457.089012446" in answer["content"][0]["text"]


def test_an_agent_that_it_was_started_for_cannot_be_another(tmp_path: Path) -> None:
    with started(tmp_path, "--agent", "bot", AGENT_METER_AGENT="ann") as raw:
        assert not raw.call("record_usage", '{"service":"openai"}')["isError"]
        refused = raw.call("record_usage", '{"service":"openai","agent":"ann"}')
        assert "bound to agent 'bot'" in refused["content"][0]["text"]


def test_an_option_comes_before_the_environment(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    assert run(tmp_path, "--db", str(other)).returncode == 0
    assert other.is_file()
    assert not (tmp_path / "usage.db").exists()


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ({"AGENT_METER_DB": ":memory:"}, 2, "AGENT_METER_DB: must be the path of a file"),
        ({"AGENT_METER_SYNCHRONOUS": "OFF"}, 2, "AGENT_METER_SYNCHRONOUS: must be FULL or NORMAL"),
        ({"AGENT_METER_AGENT": "a\nb"}, 2, "AGENT_METER_AGENT: must be printable"),
        ({"AGENT_METER_TIMEZONE": "Mars"}, 2, "AGENT_METER_TIMEZONE"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(
    more: dict[str, str],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    assert main([]) == code
    spoken = capsys.readouterr()
    assert spoken.out == ""
    assert spoken.err.startswith(f"agent-meter-mcp: {said}")
    assert spoken.err.count("\n") == 1


@pytest.mark.parametrize("option", ["--agent", "--db"])
def test_an_option_that_is_empty_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--agent "$BOT"` where BOT is not set must not make the operator of an agent."""
    assert main([option, ""]) == 2
    assert capsys.readouterr().err == f"agent-meter-mcp: {option}: must not be empty. Nothing was changed.\n"


def test_a_file_that_is_no_ledger_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "usage.db").write_text("not a database " * 100)
    done = run(tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (65, "", 1)
    assert done.stderr.startswith("agent-meter-mcp: ")


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "--db", str(tmp_path / "no" / "such" / "folder" / "usage.db"))
    assert (done.returncode != 0, done.stdout, done.stderr.count("\n")) == (True, "", 1)
    assert "usage.db" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a shell closes it")
@pytest.mark.parametrize(("closed", "which"), [("<&-", "stdin"), (">&-", "stdout")])
def test_a_start_with_a_closed_stream_is_one_line(tmp_path: Path, closed: str, which: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *MODULE],
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
        timeout=SECONDS,
    )
    said = f"agent-meter-mcp: {which}: is closed: an MCP client speaks on it. Nothing was changed.\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_it_says_its_version_and_how_it_is_called(tmp_path: Path) -> None:
    assert run(tmp_path, "--version").stdout == f"agent-meter-mcp {__version__}\n"
    help_text = run(tmp_path, "--help").stdout
    assert "--db PATH" in help_text
    assert "--agent NAME" in help_text
    assert run(tmp_path, "--nonsense").returncode == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "number", "code", "why"),
    [
        # What JavaScript makes of a text that was cut within a character.
        (
            '{"method":"tools/call","params":{"name":"record_usage","arguments":{"service":"s",'
            '"operation":"\\ud83d"}},"jsonrpc":"2.0","id":7}',
            7,
            PARSE_ERROR,
            "hex escape",
        ),
        ('{"jsonrpc":"2.0","id":"a","method":"tools/list","params":[1]}', "a", INVALID_REQUEST, "params"),
        ('{"jsonrpc":"2.0","id":"\\ud83d","method":"tools/list"}', None, PARSE_ERROR, "hex escape"),
        ('{"jsonrpc":"2.0","id":true,"method":5}', None, INVALID_REQUEST, "id"),
        ("this is no JSON", None, PARSE_ERROR, "expected"),
        ("[]", None, INVALID_REQUEST, "object"),
    ],
)
def test_who_asks_what_cannot_be_read_is_told_so(
    tmp_path: Path, line: str, number: int | str | None, code: int, why: str
) -> None:
    with started(tmp_path) as raw:
        answer = raw.ask(line)
        assert answer["id"] == number
        assert answer["error"]["code"] == code
        assert why in answer["error"]["message"]
        assert not raw.call("list_agents", "{}")["isError"]


def test_a_line_that_is_no_request_is_not_answered(tmp_path: Path) -> None:
    with started(tmp_path) as raw:
        raw.say("")
        raw.say('{"jsonrpc":"2.0","method":"notifications/nonsense","params":[1]}')
        raw.say('{"jsonrpc":"2.0","id":2,"result":"an answer to nothing"}')
        raw.say('{"jsonrpc":"2.0","method":"notifications/nonsense"}')
        assert not raw.call("list_agents", "{}")["isError"]
        assert raw.call("no_such_tool", "{}")["isError"]


def test_two_processes_share_one_ledger(tmp_path: Path) -> None:
    with started(tmp_path) as one, started(tmp_path) as other:
        limit = '{"max":1,"metric":"cost_usd","window":"day"}'
        assert not one.call("set_limit", limit)["isError"]
        held = one.call("reserve_budget", '{"service":"openai","cost_usd":1}')["structuredContent"]
        denied = other.call("reserve_budget", '{"service":"openai","cost_usd":0.1}')["structuredContent"]
        assert (held["allowed"], denied["allowed"]) == (True, False)
        assert denied["reasons"][0]["holders"][0]["reservation_id"] == held["reservation_id"]
    with database(tmp_path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_starting_does_not_import_what_only_prices_need(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom agent_meter_mcp.faces.stdio import main\n"
        "main([])\nsys.stderr.write(' '.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    loaded = set(done.stderr.split())
    assert "mcp.server" in loaded
    assert loaded.isdisjoint({"genai_prices", "argparse", "textual", "agent_meter_mcp.cli"})
