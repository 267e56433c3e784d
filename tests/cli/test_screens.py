"""What a person sees: no line broken, no colour that was not asked for, nothing that an agent could draw."""

from __future__ import annotations

import pytest

from agent_meter_mcp.core.figures import width_of
from agent_meter_mcp.store.sqlite import driver

from .conftest import Run, process
from .terminal import in_terminal

TABLES = ["summary", "summary --group-by agent --group-by service --group-by operation --group-by model", "events",
          "agents", "limit list", "limit list --agent a", "alerts", "audit"]  # fmt: skip
ESCAPE = "\x1b"


@pytest.fixture
def long_names(ok: Run) -> None:
    """A ledger in which every name is as long as it may be, and every number large."""
    agent, service = "agent-" * 21, "service-" * 16
    ok("record", "--agent", agent, "--service", service, "--operation", "o" * 256, "--model", "m" * 128,
       "--cost-usd", "999999.99", "--input-tokens", "999999999999", "--requests", "1000000000",
       "--units", "999999999.999999", "--project", "p" * 256)  # fmt: skip
    ok("record", "--agent", "你好" * 30, "--service", "s", "--occurred-at", "2020-01-01T00:00:00Z")
    ok("record", "--agent", "a", "--service", "s")
    for subject in (("--agent", agent), ("--agent", "*"), ("--project", "p" * 256), ()):
        ok(
            "limit",
            "set",
            *subject,
            "--service",
            service,
            "--metric",
            "cost_usd",
            "--window",
            "month",
            "--max",
            "5",
        )
        ok("limit", "set", *subject, "--metric", "tokens", "--window", "24h", "--max", "1")
    ok("agent", "set", agent, "--tier", "t" * 128, "--owner", "w" * 128, "--name", "n" * 128)
    ok("record", "--agent", agent, "--service", service, "--cost-usd", "999999.99",
       "--input-tokens", "999999999999")  # fmt: skip
    ok("kill", "service", service, "--reason", "r" * 500)


@pytest.mark.usefixtures("long_names")
@pytest.mark.parametrize("columns", ["40", "80", "100", "120"])
def test_tables_fit_the_screen(ok: Run, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for command in TABLES:
        lines = [line for line in ok(*command.split()).lines if not line.startswith("Usage from ")]
        assert max(map(width_of, lines)) <= int(columns), command


def test_whom_a_limit_is_for_is_whole_on_a_usual_screen(ok: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ok("limit", "set", "--tier", "gold", "--metric", "cost_usd", "--window", "month", "--max", "500",
       "--timezone", "Europe/Berlin")  # fmt: skip
    ok("limit", "set", "--agent", "data-crawler", "--metric", "requests", "--window", "1m", "--max", "300")
    ok("record", "--agent", "data-crawler", "--service", "s")
    monkeypatch.setenv("COLUMNS", "80")
    told = ok("limit", "list").out
    assert "each agent of tier gold  " in told
    assert "agent data-crawler  " in told


@pytest.mark.usefixtures("long_names")
def test_a_pipe_gets_names_whole(ok: Run) -> None:
    assert "agent-" * 21 in ok("summary").out
    assert "agent-" * 21 in ok("agents").out


@pytest.mark.usefixtures("long_names")
def test_a_terminal_gets_rules_and_colours_and_no_broken_line() -> None:
    screen = in_terminal("agents", columns=80)
    assert screen.code == 0
    assert f"{ESCAPE}[1mAgent" in screen.raw
    assert f"{ESCAPE}[31m" in screen.raw
    assert set(screen.lines[1]) == {"─"}
    assert {width_of(line) <= 80 for line in screen.lines} == {True}


@pytest.mark.usefixtures("long_names")
@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colours_where_they_are_not_wanted(variables: dict[str, str]) -> None:
    for command in ("agents", "doctor"):
        screen = in_terminal(command, columns=80, **variables)
        assert ESCAPE not in screen.raw
        assert len(screen.lines) > 3


def test_a_pipe_has_neither_colours_nor_rules(ok: Run) -> None:
    ok("record", "--agent", "a", "--service", "s")
    for command in (*TABLES, "doctor"):
        shown = process(*command.split())
        assert ESCAPE not in shown.out
        assert "─" not in shown.out


HOSTILE = {
    "colour": "\x1b[31mred",
    "title": "\x1b]0;owned\x07",
    "lines": "two\nlines\r",
    "c1": "\x9b31m",
    "bidi": "\u202eevil",
    "invisible": "a\u200bb",
    "markup": "[bold]x[/]",
}


def test_names_that_no_face_lets_in_are_shown_harmlessly(ok: Run, run: Run, home: object) -> None:
    """They may be in a file that somebody else has written."""
    ok("limit", "set", "--agent", "*", "--metric", "requests", "--window", "day", "--max", "1")
    for name in HOSTILE:
        ok(
            "record",
            "--agent",
            f"agent-{name}",
            "--service",
            f"service-{name}",
            "--operation",
            f"operation-{name}",
        )
        ok(
            "limit",
            "set",
            "--agent",
            f"agent-{name}",
            "--metric",
            "requests",
            "--window",
            "day",
            "--max",
            "0",
        )
        ok("kill", "agent", f"agent-{name}", "--reason", f"reason-{name}")
    connection = driver.connect(f"{home}/meter.db", synchronous="FULL", busy_timeout_s=5)
    places = {"dim": ("agent", "service", "operation"), "agent": ("agent_id",), "service": ("name",), "quota": ("name",),
              "switch": ("name", "reason"), "audit": ("target", "reason"), "alert": ("scope",)}  # fmt: skip
    for table, columns in places.items():
        for column in columns:
            for name, text in HOSTILE.items():
                connection.execute(
                    f"UPDATE {table} SET {column} = replace({column}, '-{name}', ?)", (f"-{text}",)
                )
    connection.execute("UPDATE meta SET v = v + 1 WHERE k = 'epoch'")
    connection.close()
    for command in (
        *TABLES,
        "doctor",
        "verify",
        "export --format csv",
        "export",
        "summary --json",
        "agents --json",
    ):
        shown = run(*command.split())
        harmless = shown.out.replace("\n", "") + shown.err.replace("\n", "")
        assert harmless.isprintable(), command
        assert shown.code in (0, 6, 7), shown
    stopped = run("check", "--agent", f"agent-{HOSTILE['markup']}")
    assert "[bold]x[/]" in stopped.out
    assert f"agent-{HOSTILE['markup']}" in ok("agents").out
    assert r"agent-\x1b[31mred" in ok("agents").out
    assert r"agent-\u202eevil" in ok("summary").out
    assert r"each agent (agent-\u202eevil)" in ok("alerts").out
