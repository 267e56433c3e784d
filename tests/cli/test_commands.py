"""What each command does, in words and in JSON."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_meter_mcp.cli import COMMANDS, main

from .conftest import Run, process

HOSTILE = "\x1b[31mred\x1b[0m"
BAD_NAMES = ["", " x", "a\nb", HOSTILE, "x" * 129]


def test_what_was_recorded_is_in_the_summary(run: Run) -> None:
    assert (
        run("record", "--agent", "a", "--service", "s", "--cost-usd", "0.25", "--input-tokens", "10").code
        == 0
    )
    answer = run("summary", "--json").data
    assert answer["total"]["cost_usd"] == 0.25
    assert answer["total"]["input_tokens"] == 10
    assert [group["key"] for group in answer["groups"]] == [{"agent": "a"}]


def test_an_id_counts_once(run: Run) -> None:
    usage = ("record", "--agent", "a", "--service", "s", "--id", "one", "--cost-usd", "1", "--json")
    assert [run(*usage).data["status"] for _ in range(2)] == ["recorded", "duplicate"]
    assert run(*usage[:-2], "0.5").code == 4


def test_check_answers_by_its_exit_code(run: Run) -> None:
    run("limit", "set", "--agent", "a", "--metric", "requests", "--window", "day", "--max", "1")
    assert run("check", "--agent", "a").code == 0
    run("record", "--agent", "a", "--service", "s")
    denied = run("check", "--agent", "a")
    assert denied.code == 1
    assert "Not allowed" in denied.out


def test_a_limit_is_set_changed_listed_and_removed(run: Run) -> None:
    key = ("--agent", "a", "--metric", "cost_usd", "--window", "month")
    assert run("limit", "set", *key, "--max", "5", "--json").data["status"] == "created"
    assert run("limit", "set", *key, "--max", "6", "--json").data["status"] == "changed"
    (listed,) = run("limit", "list", "--json").data["limits"]
    assert (listed["max"], listed["metric"], listed["subject"]) == (6, "cost_usd", "agent a")
    assert "cost_usd per month" in run("limit", "list", "--agent", "a").out
    assert run("limit", "remove", *key).code == 0
    assert run("limit", "remove", *key).code == 3


def test_a_kill_switch_stops_and_releases(run: Run) -> None:
    assert run("kill", "agent", "a", "--reason", "drill").code == 0
    stopped = run("check", "--agent", "a", "--json")
    assert stopped.code == 1
    assert stopped.data["reasons"][0]["code"] == "kill_switch"
    assert run("doctor", "--json").data["problems"] == ["stopped: agent a (drill)"]
    assert run("resume", "agent", "a").code == 0
    assert run("check", "--agent", "a").code == 0
    actions = [entry["action"] for entry in run("audit", "--json").data["entries"]]
    assert actions == ["release_kill_switch", "engage_kill_switch"]


def test_everything_has_no_name_and_an_agent_needs_one(run: Run) -> None:
    assert run("kill", "everything", "a", "--reason", "x").code == 2
    assert run("kill", "agent", "--reason", "x").code == 2


def test_agents_and_events_are_listed(run: Run) -> None:
    run("record", "--agent", "a", "--service", "s", "--operation", "chat", "--cost-usd", "0.001")
    assert run("agents", "--json").data["agents"][0]["agent"] == "a"
    assert "$0.0010" in run("agents").out
    event = run("events", "--json").data["events"][0]
    assert (event["agent"], event["operation"], event["outcome"]) == ("a", "chat", "accepted")


@pytest.mark.parametrize("command", ["summary", "events", "agents", "limit list", "audit"])
def test_a_new_ledger_has_nothing_and_says_so_without_failing(run: Run, command: str) -> None:
    assert run(*command.split()).code == 0
    assert isinstance(run(*command.split(), "--json").data, dict)


def test_verify_agrees_with_a_sound_ledger_and_finds_one_that_was_touched(run: Run, home: Path) -> None:
    run("limit", "set", "--metric", "requests", "--window", "total", "--max", "9")
    run("record", "--agent", "a", "--service", "s")
    assert run("verify").code == 0
    from agent_meter_mcp.store.sqlite import driver

    connection = driver.connect(str(home / "meter.db"), synchronous="FULL", busy_timeout_s=5)
    connection.execute("UPDATE cell SET used = used + 1")
    connection.close()
    found = run("verify", "--json")
    assert found.code == 1
    assert [(one["view"], one["live"], one["rebuilt"]) for one in found.data["differences"]] == [
        ("counter used", 2, 1)
    ]


def test_doctor_finds_a_sound_installation_or_says_why_not(run: Run) -> None:
    answer = run("doctor", "--json")
    assert answer.data["ok"] is (answer.code == 0)
    assert answer.data["sqlite"].count(".") == 2
    assert answer.data["prices"].startswith("genai-prices")


def test_an_export_holds_every_event_and_no_formula(run: Run, home: Path) -> None:
    run("record", "--agent", "=1+1", "--service", "s", "--id", "one", "--metadata", '{"a": 1}')
    run("record", "--agent", "b", "--service", "s", "--id", "two")
    lines = [json.loads(line) for line in run("export").out.splitlines()]
    assert [line["id"] for line in lines] == ["two", "one"]
    assert lines[1]["metadata"] == {"a": 1}
    rows = list(csv.DictReader(io.StringIO(run("export", "--format", "csv").out)))
    assert rows[1]["agent"] == "'=1+1"
    target = home / "events.csv"
    assert run("export", "--format", "csv", "--output", str(target)).code == 0
    assert target.read_text(encoding="utf-8").count("\n") == 3


def test_an_export_that_fails_leaves_no_file(run: Run, home: Path) -> None:
    missing = run("export", "--output", str(home / "nowhere" / "events.jsonl"))
    assert missing.code == 73
    assert not list(home.glob("**/.export-*"))


def test_tables_fit_in_80_columns_and_show_hostile_text_harmlessly(run: Run) -> None:
    for number in range(3):
        run(
            "record",
            "--agent",
            f"{'long-name-' * 10}{number}",
            "--service",
            "s" * 100,
            "--operation",
            "o" * 200,
        )
    run("kill", "agent", "a", "--reason", "r" * 400)
    for command in ("summary", "events", "agents", "audit"):
        out = run(command).out
        assert max(len(line) for line in out.splitlines()) <= 80, command
        assert "\x1b" not in out


RECORD = ["record", "--agent", "a", "--service", "s"]
LIMIT = ["limit", "set", "--metric", "requests"]
BAD = [
    ([*RECORD, "--input-tokens", "-1"], "input_tokens"),
    ([*RECORD, "--cost-usd", "nan"], "cost_usd"),
    ([*RECORD, "--cost-usd", "inf"], "cost_usd"),
    ([*RECORD, "--cost-usd", "1e30"], "cost_usd"),
    ([*RECORD, "--metadata", "{"], "metadata"),
    ([*RECORD, "--metadata", "[]"], "metadata"),
    ([*RECORD, "--occurred-at", "2999-01-01T00:00:00Z"], "occurred_at"),
    ([*RECORD, "--occurred-at", "yesterday"], "occurred_at"),
    ([*RECORD, "--source", "rumour"], "source"),
    ([*LIMIT, "--window", "1.5h", "--max", "1"], "window"),
    ([*LIMIT, "--window", "day", "--max", "1", "--timezone", "Mars/X"], "timezone"),
    ([*LIMIT, "--window", "day", "--max", "-1"], "max"),
    ([*LIMIT, "--window", "day", "--max", "1", "--agent", "a", "--tier", "b"], "tier"),
    (["summary", "--window", "never"], "window"),
    (["summary", "--group-by", "colour"], "group-by"),
    (["events", "--cursor", "x"], "cursor"),
    *((["record", "--agent", name, "--service", "s"], "agent") for name in BAD_NAMES),
]


@pytest.mark.parametrize(("arguments", "named"), BAD)
def test_bad_input_is_refused_by_name_and_changes_nothing(run: Run, arguments: list[str], named: str) -> None:
    refused = run(*arguments)
    assert refused.code == 2
    assert named in refused.err
    assert "Traceback" not in refused.err
    assert "\x1b" not in refused.err
    assert run("events", "--json").data["events"] == []


def test_every_command_explains_itself(run: Run) -> None:
    overview = run("--help").out
    for command in COMMANDS:
        assert command in overview
        helped = run(command, "--help")
        assert helped.code == 0
        assert "Usage: agent-meter" in helped.out


WORDS = st.lists(
    st.one_of(
        st.sampled_from(
            ["--agent", "--service", "--json", "--limit", "--since", "--window", "--max", "--metric", "a"]
        ),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12),
    ),
    max_size=6,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(command=st.sampled_from([name for name in COMMANDS if name not in ("mcp", "serve")]), words=WORDS)
def test_no_words_bring_a_traceback(
    command: str, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    if "--output" in words:
        return
    code = main([command, *words])
    assert code in (0, 1, 2, 3, 4)
    assert "Traceback" not in capfd.readouterr().err


def test_the_program_starts_as_a_process_and_ends_with_the_right_code(home: Path) -> None:
    assert process("--version", folder=home).out.startswith("agent-meter, version")
    assert process("record", "--agent", "a", "--service", "s", folder=home).code == 0
    assert process("record", "--agent", "a", folder=home).code == 2
    shown = process("summary", folder=home)
    assert shown.code == 0
    assert "\x1b" not in shown.out


def test_a_file_that_is_no_ledger_gets_a_clear_line(home: Path) -> None:
    (home / "meter.db").write_bytes(b"not a database, but long enough to be looked at" * 40)
    refused = process("summary", folder=home)
    assert refused.code == 65
    assert str(home / "meter.db") in refused.err
    assert len(refused.err.splitlines()) == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(run: Run, shell: str) -> None:
    assert "_AGENT_METER_COMPLETE" in run("completion", shell).out
