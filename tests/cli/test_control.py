"""`limit`, `agent`, `kill` and `resume`."""

from __future__ import annotations

import re

import pytest

from agent_meter_mcp.faces.errors import SHAPES

from .conftest import Run
from .terminal import in_terminal

KEY = ("--agent", "a", "--metric", "cost_usd", "--window", "day")
NOT_FOUND = SHAPES["not_found"].exit_code


def test_a_limit_is_created_changed_and_left_as_it_is(ok: Run) -> None:
    assert ok("limit", "set", *KEY, "--max", "5").lines == [
        "created: at most $5.00 per day for agent a; more is refused",
        "now: agent a: $0.00 of $5.00 used today (0 %)",
    ]
    changed = ok("limit", "set", *KEY, "--max", "6.5", "--action", "warn", "--timezone", "Europe/Berlin")
    assert changed.lines[0] == (
        "changed: at most $6.50 per day (Europe/Berlin) for agent a; more is allowed, with a warning"
    )
    assert ok("limit", "set", *KEY, "--max", "6.5").lines[0].startswith("unchanged: at most $6.50")
    assert "warns only, Europe/Berlin" in ok("limit", "list").lines[1]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--metric", "requests", "--window", "1m", "--max", "60", "--agent", "*"),
         "at most 60 requests in any 1m for each agent"),
        (("--metric", "units", "--window", "total", "--max", "0.000001", "--service", "s"),
         "at most 0.000001 units in total for everyone at s"),
        (("--metric", "tokens", "--window", "month", "--max", "1000000", "--tier", "gold"),
         "at most 1,000,000 tokens per month for each agent of tier gold"),
        (("--metric", "requests", "--window", "hour", "--max", "1", "--project", "p"),
         "at most 1 request per hour for project p"),
        (("--metric", "cost_usd", "--window", "7d", "--max", "0", "--session", "*"),
         "at most $0.00 in any 7d for each session"),
    ],
)  # fmt: skip
def test_a_limit_says_what_it_means(ok: Run, options: tuple[str, ...], told: str) -> None:
    assert ok("limit", "set", *options).lines[0] == f"created: {told}; more is refused"


def test_a_limit_in_json_has_the_shape_of_the_tool(ok: Run) -> None:
    answer = ok("limit", "set", *KEY, "--max", "5", "--thresholds", "90", "--thresholds", "10", "--json").data
    limit_id = answer["limit"]["limit_id"]
    assert answer["limit"] == {
        "limit_id": limit_id, "subject": "agent a", "service": None, "metric": "cost_usd", "window": "day", "max": 5,
        "action": "reject", "timezone": "UTC", "thresholds": [10, 90],
    }  # fmt: skip
    assert answer["status"] == "created"
    (listed,) = ok("limit", "list", "--json").data["limits"]
    assert (listed["limit_id"], listed["used"], listed["binds"]) == (limit_id, 0, None)
    removed = ok("limit", "remove", limit_id, "--json").data
    assert removed["removed"] == answer["limit"]


def test_limits_are_listed_and_said_to_bind_or_not(ok: Run) -> None:
    ok("limit", "set", *KEY, "--max", "5")
    ok("limit", "set", "--agent", "*", "--metric", "cost_usd", "--window", "day", "--max", "1")
    ok("limit", "set", "--metric", "requests", "--window", "1h", "--max", "4", "--action", "warn")
    ok("record", "--agent", "a", "--service", "s", "--cost-usd", "2")
    table = [" ".join(line.split()[:-1]) for line in ok("limit", "list", "--agent", "a").lines[1:]]
    assert table[0].startswith("agent a cost_usd per day $2.00 $0.00 $5.00 40 % ")
    assert table[1].startswith("each agent (a) cost_usd per day $2.00 $0.00 $1.00 200 %")
    assert table[1].endswith("replaced by a more specific one")
    assert table[2].startswith("everyone requests in any 1h 1 0 4 25 %")
    assert table[2].endswith("warns only")
    binds = {
        limit["subject"]: limit["binds"]
        for limit in ok("limit", "list", "--agent", "a", "--json").data["limits"]
    }
    assert binds == {"agent a": True, "agent *": False, "everyone": True}
    assert len(ok("limit", "list", "--agent", "b", "--json").data["limits"]) == 2


def test_limits_are_chosen_by_what_they_count(ok: Run) -> None:
    for options in (("--service", "s"), ("--service", "t"), ("--project", "p"), ("--project", "q"), ()):
        ok("limit", "set", *options, "--metric", "requests", "--window", "day", "--max", "1")

    def listed(*options: str) -> set[tuple[str, str | None]]:
        limits = ok("limit", "list", *options, "--json").data["limits"]
        return {(limit["subject"], limit["service"]) for limit in limits}

    everyone = ("everyone", None)
    assert listed("--service", "s") == {("everyone", "s"), ("project p", None), ("project q", None), everyone}
    assert listed("--project", "p") == {("everyone", "s"), ("everyone", "t"), ("project p", None), everyone}


def test_a_limit_is_removed_by_its_id_or_its_key_and_then_gone(run: Run, ok: Run) -> None:
    ok("limit", "set", *KEY, "--max", "5")
    assert ok("limit", "remove", *KEY).out == (
        "removed: at most $5.00 per day for agent a. Usage is metered all the same.\n"
    )
    assert run("limit", "remove", *KEY).code == NOT_FOUND
    unknown = run("limit", "remove", "nope")
    assert (unknown.code, "`agent-meter limit list --json`" in unknown.err) == (NOT_FOUND, True)
    assert run("limit", "remove", "nope", "--agent", "a").code == 2
    assert (
        run("limit", "remove").err
        == "agent-meter limit remove: --metric: is required, unless LIMIT_ID names the limit: "
        "see limit list --json. Nothing was changed.\n"
    )


def test_an_agent_is_described_and_cleared(run: Run, ok: Run) -> None:
    told = ok("agent", "set", "a", "--name", "Ann", "--tier", "gold", "--owner", "ada", "--parent", "boss")
    assert told.out == "agent a: name Ann, tier gold, owner ada, parent boss\n"
    cleared = ok("agent", "set", "a", "--tier", "", "--json").data
    assert {**cleared, "message": ""} == {
        "message": "", "agent": "a", "name": "Ann", "tier": None, "owner": "ada", "parent": "boss",
    }  # fmt: skip
    assert run("agent", "set", "a").code == 2
    assert run("agent", "set", "boss", "--parent", "a").code == 2


def test_an_agent_is_stopped_and_goes_on(run: Run, ok: Run) -> None:
    ok("record", "--agent", "a", "--service", "s")
    assert ok("kill", "agent", "a", "--reason", "drill").out == "agent a was stopped by olga: drill\n"
    assert ok("kill", "agent", "a", "--reason", "again").out == (
        "agent a was stopped by olga: drill (it was stopped already)\n"
    )
    assert run("check", "--agent", "a").code == 5
    assert ok("resume", "agent", "a").out == "agent a is released\n"
    assert ok("resume", "agent", "a").out == "agent a was not stopped; nothing changed\n"
    assert run("check", "--agent", "a").code == 0


def test_who_is_resumed_is_told_what_stops_it_still(ok: Run) -> None:
    ok("record", "--agent", "child", "--parent", "boss", "--service", "s")
    ok("kill", "agent", "boss", "--reason", "drill")
    assert ok("resume", "agent", "child").out == (
        "agent child was not stopped by its name; nothing changed."
        " It stays stopped all the same: agent boss was stopped by olga: drill\n"
    )
    ok("kill", "service", "s", "--reason", "leak")
    ok("kill", "everything", "--yes", "--reason", "fire")
    for kind, name in (("agent", "boss"), ("service", "s")):
        assert ok("resume", kind, name).out == (
            f"{kind} {name} is released. It stays stopped all the same: everything was stopped by olga: fire\n"
        )


def test_a_service_is_stopped_for_everybody(run: Run, ok: Run) -> None:
    answer = ok("kill", "service", "s", "--reason", "leak", "--json").data
    assert (answer["engaged"], answer["changed"], answer["kind"], answer["name"], answer["reason"]) == (
        True, True, "service", "s", "leak",
    )  # fmt: skip
    assert run("check", "--agent", "a", "--service", "s").code == 5
    assert run("check", "--agent", "a", "--service", "t").code == 0
    assert ok("resume", "service", "s", "--json").data["engaged"] is False


def test_a_name_without_usage_is_stopped_but_doubted(ok: Run) -> None:
    ok("record", "--agent", "coder", "--service", "s")
    assert "is the name right?" in ok("kill", "agent", "ann", "--reason", "x").err
    assert "did you mean coder?" in ok("kill", "agent", "cdoer", "--reason", "x").err
    assert "did you mean coder?" in ok("resume", "agent", "codre").err
    assert ok("resume", "agent", "cdoer").err == ""
    assert ok("kill", "agent", "coder", "--reason", "x").err == ""
    assert ok("kill", "everything", "--reason", "x", "--yes").err == ""


def test_a_limit_may_come_before_its_agent_but_not_for_one_that_is_called_nearly_the_same(ok: Run) -> None:
    ok("record", "--agent", "worker-7", "--service", "openai")
    for agent, service, doubts in (
        ("wroker-7", "opnai", ["did you mean worker-7?", "did you mean openai?"]),
        ("worker-8", "maps", []),
        ("ann", "openai", []),
        ("*", "openai", []),
    ):
        words = ("--agent", agent, "--service", service, "--metric", "requests", "--window", "day")
        told = ok("limit", "set", *words, "--max", "5").err.splitlines()
        assert [line.split("; ")[1] for line in told] == doubts, agent
        assert ok("limit", "set", *words, "--max", "6").err == ""


def test_who_asks_about_a_mistyped_name_is_asked_whether_it_is_right(ok: Run) -> None:
    """Why is it refused? All is well, it was said, of an agent that there is not."""
    ok("record", "--agent", "coder", "--service", "openai")
    for words in (
        ("check", "--agent", "codre"),
        ("check", "--agent", "codre", "--json"),
        ("limit", "list", "--agent", "codre"),
        ("events", "--agent", "codre"),
        ("summary", "--agent", "codre"),
        ("summary", "--agent", "coder", "--service", "opnai"),
    ):
        asked = "did you mean openai?" if "opnai" in words else "did you mean coder?"
        assert asked in ok(*words).err, words
    for words in (
        ("check", "--agent", "ann"),
        ("check", "--agent", "coder", "--service", "openai"),
        ("limit", "list", "--agent", "coder"),
        ("events", "--agent", "coder", "--outcome", "rejected"),
        ("events", "--agent", "ann"),
    ):
        assert ok(*words).err == "", words


def test_whoever_is_in_a_hurry_stops_whom_he_means(run: Run, ok: Run) -> None:
    ok("kill", "--agent", "a", "--reason", "drill")
    ok("kill", "--service=s", "--reason", "leak")
    assert [entry["target"] for entry in ok("audit", "--json").data["entries"][:2]] == [
        "service s",
        "agent a",
    ]
    ok("resume", "--agent=a")
    ok("resume", "--service", "s")
    for name, quoted in (("coder", "coder"), ("my bot", "'my bot'"), ("", "''")):
        refused = run("kill", name)
        assert refused.code == 2
        assert f"agent-meter kill agent {quoted}, or: service {quoted}. Nothing was changed" in refused.err
    assert "resume agent coder" in run("resume", "coder").err
    assert "Missing argument 'AGENT'" in run("kill", "--agent").err


def test_to_stop_needs_a_reason(run: Run) -> None:
    refused = run("kill", "agent", "a")
    assert refused.code == 2
    assert "--reason: say why" in refused.err


def test_who_lets_everything_go_on_is_told_what_has_a_switch_of_its_own(ok: Run) -> None:
    """Everything is released, it said, and the agents in question stayed where they were."""
    for number in range(11):
        ok("kill", "agent", f"a{number:02}", "--reason", "drill")
    ok("kill", "everything", "--yes", "--reason", "fire")
    told = ok("resume", "everything", "--yes").lines
    assert told[:2] == ["everything is released", "still stopped: agent a00 was stopped by olga: drill"]
    assert told[10:] == ["still stopped: agent a09 was stopped by olga: drill", "and 1 more"]


def test_everything_is_stopped_only_with_a_yes(run: Run, ok: Run) -> None:
    refused = run("kill", "everything", "--reason", "x")
    assert (refused.code, "--yes" in refused.err) == (2, True)
    assert run("check", "--agent", "a").code == 0
    ok("kill", "everything", "--reason", "x", "--yes")
    assert run("check", "--agent", "a").code == 5
    assert run("resume", "everything").code == 2
    ok("resume", "everything", "--yes")
    assert run("check", "--agent", "a").code == 0


def test_a_person_is_asked_before_everything_stops(run: Run) -> None:
    declined = in_terminal("kill", "everything", "--reason", "x", at=r"\[y/N\]", typed="n\n")
    assert (declined.code, run("check", "--agent", "a").code) == (130, 0)
    assert "Stop every agent at every service? [y/N]" in declined.text
    agreed = in_terminal("kill", "everything", at=r"\[y/N\]", typed="y\nincident 17\n")
    assert "everything was stopped by olga: incident 17" in agreed.text
    assert (agreed.code, run("check", "--agent", "a").code) == (0, 5)


def test_a_limit_of_an_hour_is_not_told_to_free_in_two(ok: Run) -> None:
    ok("record", "--agent", "a", "--service", "s", "--cost-usd", "1")
    ok("limit", "set", "--agent", "a", "--metric", "cost_usd", "--window", "1h", "--max", "5")
    assert re.search(r" (60|61) min +", ok("limit", "list").lines[1])
