"""`record` and `check`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from agent_meter_mcp.cli.exits import NOT_ALLOWED
from agent_meter_mcp.faces.errors import SHAPES

from .conftest import Run, process

USAGE = ("record", "--agent", "a", "--service", "s")


def limited(ok: Run, maximum: str, *more: str) -> None:
    ok("limit", "set", "--agent", "a", "--metric", "cost_usd", "--window", "day", "--max", maximum, *more)


def test_a_record_says_what_it_cost_and_where_the_cost_is_from(ok: Run) -> None:
    assert ok(*USAGE, "--id", "one", "--cost-usd", "0.25").out == "recorded one: $0.25 reported\n"
    assert ok(*USAGE, "--id", "two").out == "recorded two: unknown cost\n"
    computed = ok(*USAGE, "--id", "three", "--model", "gpt-5", "--input-tokens", "1000000")
    assert computed.out == "recorded three: $1.25 computed\n"


def test_a_model_without_a_price_is_told_and_what_gives_it_one(ok: Run, home: Path) -> None:
    spent = (*USAGE, "--model", "my-llama", "--input-tokens", "1000000")
    told = ok(*spent, "--id", "one")
    assert told.out == "recorded one: unknown cost\n"
    assert told.err.splitlines()[-1] == (
        "agent-meter: note: my-llama has no price here: "
        f"give --cost-usd, or put one into {home / 'prices.toml'}"
    )
    assert "'my-llama' has no price here" in ok(*spent, "--id", "more", "--json").data["message"]
    (home / "prices.toml").write_text('[models."my-llama"]\ninput = 2\noutput = 2\n', encoding="utf-8")
    priced = ok(*spent, "--id", "two")
    assert (priced.out, priced.err) == ("recorded two: $2.00 computed\n", "")


def test_a_record_has_every_field_that_was_given(ok: Run) -> None:
    ok(*USAGE, "--parent", "boss", "--project", "atlas", "--session", "s1", "--requests", "2", "--units", "1.5",
       "--unit-type", "page", "--input-tokens", "1", "--output-tokens", "2", "--cache-read-tokens", "3",
       "--cache-write-tokens", "4", "--cache-write-1h-tokens", "5", "--model", "m", "--cost-usd", "0.000000001",
       "--operation", "chat", "--id", "x", "--occurred-at", "1m", "--status-code", "200", "--duration-ms", "12",
       "--metadata", '{"b": [1, null], "a": "é"}', "--source", "sdk")  # fmt: skip
    (event,) = ok("events", "--json").data["events"]
    times = {field: event.pop(field) for field in ("recorded_at", "occurred_at", "counted_at")}
    assert event == {
        "id": "x", "outcome": "accepted", "service": "s", "agent": "a", "operation": "chat", "requests": 2,
        "units": 1.5, "unit_type": "page", "input_tokens": 1, "output_tokens": 2, "cache_read_tokens": 3,
        "cache_write_tokens": 4, "cache_write_1h_tokens": 5, "model": "m", "cost_usd": 1e-09,
        "cost_source": "reported", "price_version": None, "status_code": 200, "duration_ms": 12, "session": "s1",
        "project": "atlas", "source": "sdk", "metadata": {"a": "é", "b": [1, None]}, "limit_id": None, "count": 1,
    }  # fmt: skip
    assert times["counted_at"] == times["occurred_at"] < times["recorded_at"]


def test_an_id_counts_once_and_other_content_is_a_conflict(run: Run, ok: Run) -> None:
    ok(*USAGE, "--id", "one", "--cost-usd", "1")
    assert ok(*USAGE, "--id", "one", "--cost-usd", "1").out == "already recorded one: $1.00 reported\n"
    assert ok(*USAGE, "--id", "one", "--cost-usd", "2").out.startswith("corrected one: $2.00")
    conflict = run(*USAGE, "--id", "one", "--cost-usd", "0.5")
    assert conflict.code == SHAPES["conflict"].exit_code
    assert conflict.out == ""


def test_a_record_in_json_has_the_shape_of_the_tool(ok: Run) -> None:
    limited(ok, "1")
    answer = ok(*USAGE, "--id", "one", "--cost-usd", "2", "--json").data
    assert {**answer, "message": "", "limits": len(answer["limits"]), "retry_after_s": 0} == {
        "message": "", "id": "one", "status": "recorded", "outcome": "over_limit", "cost_usd": 2,
        "cost_source": "reported", "retry_after_s": 0, "limits": 1,
    }  # fmt: skip
    assert 0 < answer["retry_after_s"] <= 86_400


def test_a_record_over_a_limit_counts_and_says_so(ok: Run) -> None:
    limited(ok, "1")
    assert "tightest limit: agent a: $0.40 of $1.00 used today (40 %)" in ok(*USAGE, "--cost-usd", "0.4").out
    assert "used up: agent a: $1.00 of $1.00 used today (100 %)" in ok(*USAGE, "--cost-usd", "0.6").out
    over = ok(*USAGE, "--cost-usd", "9").lines
    assert over[1] == "over the limit: agent a: $10.00 of $1.00 used today (>999 %)"
    assert over[2].startswith("budget comes back in ")


def test_a_record_under_a_kill_switch_counts_and_says_stop(ok: Run) -> None:
    ok("kill", "agent", "a", "--reason", "drill")
    assert ok(*USAGE, "--id", "one").lines == [
        "recorded one: unknown cost",
        "stop: agent a was stopped by olga: drill",
    ]


def test_check_says_no_with_its_exit_code_why_and_until_when(run: Run, ok: Run) -> None:
    limited(ok, "1")
    allowed = ok("check", "--agent", "a", "--cost-usd", "0.5")
    assert allowed.lines == ["allowed: agent a: $0.00 of $1.00 used today (0 %)"]
    ok(*USAGE, "--cost-usd", "0.8")
    denied = run("check", "--agent", "a", "--cost-usd", "0.5")
    assert denied.code == NOT_ALLOWED
    assert denied.lines[0] == "not allowed: agent a: $0.80 of $1.00 used today (80 %), $0.50 asked"
    assert denied.lines[1].startswith("enough comes back in ")
    assert denied.lines[1].endswith("(UTC)")
    assert denied.lines[2] == "at most $0.20 would fit now"


def test_check_offers_what_would_fit_only_where_every_limit_has_room(run: Run, ok: Run) -> None:
    ok("limit", "set", "--agent", "a", "--metric", "cost_usd", "--window", "day", "--max", "1")
    ok("limit", "set", "--agent", "a", "--metric", "tokens", "--window", "day", "--max", "1000")
    step = ("check", "--agent", "a", "--cost-usd", "2", "--input-tokens", "600")
    ok(*USAGE, "--cost-usd", "0.25", "--input-tokens", "500")
    assert run(*step).lines[-1] == "at most 500 tokens and $0.75 would fit now"
    ok(*USAGE, "--cost-usd", "0.75")
    assert run(*step).lines[-1] == "nothing more fits now"


def test_a_time_far_ahead_is_told_in_days(run: Run) -> None:
    told = run(*USAGE, "--occurred-at", "2199-01-01T00:00:00Z").err
    assert re.search(r"--occurred-at: is [0-9]+ d( [0-9]+ h)? in the future; at most 5 min is accepted", told)


def test_check_tells_what_waiting_does_not_bring_back(run: Run, ok: Run) -> None:
    limited(ok, "1")
    assert "waiting alone does not bring it back" in run("check", "--agent", "a", "--cost-usd", "2").out
    ok("kill", "everything", "--reason", "drill", "--yes")
    stopped = run("check", "--agent", "a")
    assert stopped.code == NOT_ALLOWED
    assert stopped.lines == [
        "not allowed: everything was stopped by olga: drill",
        "it stays so until an operator resumes it: agent-meter resume everything",
    ]
    ok("resume", "everything", "--yes")
    for name in ("it's me", "--me"):
        ok("record", "--agent", name, "--service", "s")
        ok("kill", "agent", "--reason", "drill", "--", name)
        (told,) = run("check", "--agent", name).lines[1:]
        ok(*shlex.split(told.partition("agent-meter ")[2]))
        assert run("check", "--agent", name).code == 0


def test_check_minds_a_limit_that_only_warns(ok: Run) -> None:
    limited(ok, "1", "--action", "warn")
    ok(*USAGE, "--cost-usd", "2")
    assert ok("check", "--agent", "a").lines == [
        "allowed: no limit is in the way",
        "mind: agent a: $2.00 of $1.00 used today (200 %)",
    ]


def test_check_without_a_service_tells_at_which_one_it_would_be_refused(ok: Run) -> None:
    """Who asks why an agent is refused must not be told that all is well."""
    for words in (
        "--agent a --service openai --metric cost_usd --max 1",
        "--agent b --service openai --metric cost_usd --max 0",
        "--service exa --metric requests --max 0 --action warn",
    ):
        ok("limit", "set", "--window", "day", *words.split())
    assert ok("check", "--agent", "a").lines == ["allowed: no limit is in the way"]
    ok("record", "--agent", "a", "--service", "openai", "--cost-usd", "1")
    ok("kill", "service", "maps", "--reason", "down")
    assert ok("check", "--agent", "a").lines == [
        "allowed: no limit is in the way",
        "but not at openai: agent a at openai: $1.00 of $1.00 used today (100 %)",
        "but not at maps: service maps was stopped by olga: down",
    ]
    assert ok("check", "--agent", "a", "--service", "exa").lines[0].startswith("allowed")


def test_check_in_json_has_the_shape_of_the_tool(run: Run, ok: Run) -> None:
    limited(ok, "1")
    answer = run("check", "--agent", "a", "--cost-usd", "2", "--json")
    assert answer.code == NOT_ALLOWED
    assert list(answer.data) == ["message", "allowed", "reasons", "retry_after_s", "affordable", "limits"]
    assert (answer.data["allowed"], answer.data["affordable"]) == (False, {"cost_usd": 1})
    assert [(why["code"], why["asked"]) for why in answer.data["reasons"]] == [("limit", 2)]


def test_check_changes_nothing(run: Run, ok: Run) -> None:
    limited(ok, "0")
    assert run("check", "--agent", "a").code == NOT_ALLOWED
    assert ok("events", "--json").data["events"] == []


def test_a_process_that_is_bound_to_an_agent_is_that_agent(
    run: Run, ok: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_METER_AGENT", "a")
    assert ok("record", "--service", "s", "--json").data["outcome"] == "accepted"
    forbidden = SHAPES["forbidden"].exit_code
    others: list[tuple[str, ...]] = [
        ("record", "--agent", "b", "--service", "s"),
        ("limit", "set", "--metric", "requests", "--window", "day", "--max", "1"),
        ("resume", "agent", "a"),
        ("audit",),
    ]
    assert {arguments: run(*arguments).code for arguments in others} == dict.fromkeys(others, forbidden)


@pytest.mark.parametrize(
    "metadata", ["{", "[]", "1", '"text"', '{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', '{"a":' * 5000]
)
def test_metadata_is_a_json_object_or_an_error(run: Run, metadata: Any) -> None:
    refused = run(*USAGE, "--metadata", metadata)
    assert refused.code == 2
    assert refused.err.startswith("agent-meter record: --metadata: must be a JSON object")


def test_a_record_counts_although_the_prices_cannot_be_read(home: Path) -> None:
    (home / "prices.toml").write_text("[models", encoding="utf-8")
    spent = ("--agent", "bot", "--service", "openai", "--model", "gpt-4o", "--input-tokens", "5")
    ran = process("record", *spent)
    assert ran.code == 0
    assert ran.out.endswith(": unknown cost\n")
    assert "prices.toml: is not valid TOML" in ran.err
    assert "recorded without a cost" in ran.err
    assert process("check", *spent).code == 2
