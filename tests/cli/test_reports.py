"""`summary`, `events`, `agents`, `reservations`, `alerts` and `audit`."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

import pytest

from agent_meter_mcp.core.models import Usage, Who
from agent_meter_mcp.intake import Report
from agent_meter_mcp.runtime import open_ledger, process_caller
from agent_meter_mcp.settings import load_settings
from tests.faces.door import browser, living, site_of

from .conftest import Run


def use(ok: Run, agent: str, cost: str | None = None, *more: str, service: str = "s") -> None:
    priced = () if cost is None else ("--cost-usd", cost)
    ok("record", "--agent", agent, "--service", service, *priced, *more)


def test_a_summary_is_of_today_by_agent(ok: Run) -> None:
    use(ok, "big", "1.5", "--input-tokens", "1200")
    use(ok, "small", "0.25")
    use(ok, "late", "9", "--occurred-at", "2d")
    report = ok("summary").lines
    assert report[0].startswith("Usage from 20")
    assert report[0].endswith("00:00 (UTC)")
    assert report[1:] == [
        "Agent  Requests  Tokens   Cost",
        "big           1   1,200  $1.50",
        "small         1       0  $0.25",
        "Total         2   1,200  $1.75",
    ]


def test_a_summary_in_json_has_the_shape_of_the_tool(ok: Run) -> None:
    use(ok, "a", "0.000000001", "--units", "0.5", "--model", "m", "--output-tokens", "7")
    answer = ok("summary", "--group-by", "agent", "--group-by", "model", "--json").data
    totals = {
        "events": 1, "requests": 1, "units": 0.5, "tokens": 7, "input_tokens": 0, "output_tokens": 7,
        "cache_read_tokens": 0, "cache_write_tokens": 0, "cache_write_1h_tokens": 0, "cost_usd": 1e-09,
        "unpriced": 0, "over_limit": 0, "rejected": 0,
    }  # fmt: skip
    assert answer["total"] == totals
    assert answer["groups"] == [{**totals, "key": {"agent": "a", "model": "m"}}]
    assert list(answer) == ["message", "since", "until", "total", "groups", "groups_left_out"]


def test_a_summary_shows_what_is_unknown_over_and_refused(ok: Run, run: Run) -> None:
    ok("limit", "set", "--agent", "a", "--metric", "requests", "--window", "day", "--max", "1")
    use(ok, "a", "1")
    use(ok, "a", None, "--requests", "3", "--units", "2.5")
    use(ok, "b", None)
    assert ok("summary").lines[1:] == [
        "Agent  Events  Requests  Units  Tokens   Cost  No price  Over",
        "a           2         4    2.5       0  $1.00         1     1",
        "b           1         1      0       0      —         1     0",
        "Total       3         5    2.5       0  $1.00         2     1",
    ]


def test_a_summary_over_time_goes_from_old_to_new(ok: Run) -> None:
    use(ok, "a", "1", "--occurred-at", "2026-03-29T12:00:00+02:00")
    use(ok, "a", "5", "--occurred-at", "2026-03-27T12:00:00+01:00")
    report = ok("summary", "--group-by", "day", "--since", "2026-03-27", "--until", "2026-03-30",
                "--timezone", "Europe/Berlin")  # fmt: skip
    assert report.lines[0] == "Usage from 2026-03-27 00:00 to 2026-03-30 00:00 (Berlin)"
    assert [line.split()[0] for line in report.lines[2:]] == ["2026-03-27", "2026-03-29", "Total"]
    assert [line.split()[-1] for line in report.lines[2:]] == ["$5.00", "$1.00", "$6.00"]


@pytest.mark.parametrize(
    ("unit", "name"), [("hour", "2026-03-29 12:00 +02:00"), ("week", "2026-03-23"), ("month", "2026-03")]
)
def test_periods_have_names(ok: Run, unit: str, name: str) -> None:
    use(ok, "a", "1", "--occurred-at", "2026-03-29T12:30:00+02:00")
    use(ok, "b", "1", "--occurred-at", "2026-03-29T12:30:00+02:00")
    report = ok("summary", "--group-by", unit, "--window", "total", "--timezone", "Europe/Berlin")
    assert report.lines[2].startswith(f"{name}  ")


def test_filters_choose(ok: Run) -> None:
    use(
        ok,
        "a",
        "1",
        "--model",
        "m",
        "--operation",
        "o",
        "--project",
        "p",
        "--session",
        "x",
        "--source",
        "sdk",
    )
    use(ok, "b", "2", service="t")
    ok("agent", "set", "a", "--tier", "gold")
    ok("agent", "set", "b", "--parent", "a")
    chosen = [
        ("--agent", "a"), ("--service", "s"), ("--operation", "o"), ("--model", "m"), ("--project", "p"),
        ("--session", "x"), ("--tier", "gold"), ("--source", "sdk"),
    ]  # fmt: skip
    for words in chosen:
        assert ok("summary", *words, "--json").data["total"]["cost_usd"] == 1, words
        assert [event["agent"] for event in ok("events", *words, "--json").data["events"]] == ["a"], words
    assert ok("summary", "--agent", "a", "--include-children", "--json").data["total"]["cost_usd"] == 3
    assert ok("summary", "--outcome", "rejected", "--json").data["total"]["events"] == 0


def test_groups_beyond_the_limit_are_counted(ok: Run) -> None:
    for agent in "abc":
        use(ok, agent, "1")
    assert ok("summary", "--limit", "1").lines[-1] == "2 more groups left out: raise --limit."
    assert ok("summary", "--limit", "2", "--order-by", "key").lines[-1].startswith("1 more group left out")


def test_events_are_listed_newest_first_page_by_page(ok: Run) -> None:
    for number in range(3):
        use(ok, "a", f"0.00{number}", "--id", f"e{number}", "--operation", "chat")
    first = ok("events", "--limit", "2")
    assert [line.split()[-1] for line in first.lines[1:3]] == ["e2", "e1"]
    cursor = first.lines[3].removeprefix("Older ones: --cursor ")
    rest = ok("events", "--limit", "2", "--cursor", cursor, "--json").data
    assert [event["id"] for event in rest["events"]] == ["e0"]
    assert rest["next_cursor"] is None
    assert ok("events", "--limit", "2", "--json").data["next_cursor"] == cursor


def test_an_event_in_the_list(ok: Run) -> None:
    use(ok, "a", "0.0012", "--id", "x", "--operation", "chat", "--model", "m", "--input-tokens", "12345")
    head, row = ok("events").lines
    assert head.split("  ")[0] == "Time (UTC)"
    assert row.split()[1:] == ["a", "s", "chat", "m", "12,345", "$0.0012", "ok", "x"]


def test_a_refusal_in_the_list_says_by_what(ok: Run) -> None:
    """Asked for at night it may be allowed again, and `check` tells no reason any more."""

    async def ask(number: int) -> None:
        settings = load_settings()
        async with open_ledger(settings) as ledger:
            await ledger.reserve(process_caller(settings), Report(Who("a", "s"), Usage(requests=number)))

    at_s = ("--service", "s", "--metric", "requests")
    ok("limit", "set", "--agent", "a", *at_s, "--window", "1h", "--max", "1")
    ok("limit", "set", *at_s, "--window", "day", "--max", "5")
    asyncio.run(ask(2))
    ok("limit", "set", "--agent", "a", *at_s, "--window", "1h", "--max", "9")
    asyncio.run(ask(6))
    ok("limit", "remove", *at_s, "--window", "day")
    ok("kill", "agent", "a", "--reason", "x")
    asyncio.run(ask(7))
    head, *rows = ok("events", "--outcome", "rejected").lines
    start, end = head.index("Refused by"), head.index("Id")
    assert [row[start:end].strip() for row in rows] == [
        "a kill switch", "a limit that is gone", "agent a at s: requests in any 1h",
    ]  # fmt: skip
    ok("record", "--agent", "a", "--service", "s")
    assert "Refused by" not in ok("events", "--limit", "1").out


def test_agents_are_listed_with_their_tightest_limit(ok: Run, run: Run) -> None:
    use(ok, "a", "1")
    use(ok, "b", None)
    ok("limit", "set", "--agent", "a", "--metric", "cost_usd", "--window", "month", "--max", "0.5")
    ok("agent", "set", "b", "--tier", "gold", "--owner", "ada", "--parent", "c")
    rows = [line.split("  ") for line in ok("agents").lines[1:]]
    words = [[word.strip() for word in row if word] for row in rows]
    assert [(row[0], row[1], *row[3:]) for row in words] == [
        ("a", "over limit", "—", "—", "—", "1", "$1.00", "$1.00 of $0.50 per month", "200 %"),
        ("b", "active", "gold", "ada", "c", "1", "—", "unlimited", "—"),
        ("c", "idle", "—", "—", "—", "0", "$0.00", "unlimited", "—"),
    ]
    ok("agent", "set", "b", "--name", "The Bee")
    named = [line.split()[:3] for line in ok("agents").lines]
    assert named == [["Agent", "Name", "Status"], ["a", "—", "over"], ["b", "The", "Bee"], ["c", "—", "idle"]]
    assert [agent["agent"] for agent in ok("agents", "--owner", "ada", "--json").data["agents"]] == ["b"]
    assert [agent["agent"] for agent in ok("agents", "--status", "idle", "--json").data["agents"]] == ["c"]
    more = ok("agents", "--limit", "1").lines[-1]
    assert more == "More: --cursor a"
    assert ok("agents", "--limit", "1", "--cursor", "a", "--json").data["agents"][0]["agent"] == "b"


@pytest.mark.parametrize("name", ["a b", r"a\b", "it's $HOME", '"a"', "a`b"])
def test_a_shell_goes_on_where_a_page_of_agents_ended(ok: Run, name: str) -> None:
    """It was quoted as Python does, which a shell reads otherwise."""
    use(ok, name)
    use(ok, "zed")
    _, *rest = shlex.split(ok("agents", "--limit", "1").lines[-1])
    assert rest == ["--cursor", name]
    assert [agent["agent"] for agent in ok("agents", *rest, "--json").data["agents"]] == ["zed"]


def test_reservations_are_listed_until_they_end(ok: Run) -> None:
    assert ok("reservations").out == "Nothing is held.\n"

    async def hold() -> None:
        settings = load_settings()
        async with open_ledger(settings) as ledger:
            report = Report(Who("a", "s"), Usage(input_tokens=5, cost_nano_usd=10**9), id="x", operation="o")
            await ledger.reserve(process_caller(settings), report, 600_000_000)

    asyncio.run(hold())
    (held,) = ok("reservations", "--json").data["reservations"]
    assert {field: held[field] for field in ("id", "agent", "service", "operation", "tokens", "cost_usd")} == {
        "id": "x", "agent": "a", "service": "s", "operation": "o", "tokens": 5, "cost_usd": 1,
    }  # fmt: skip
    row = ok("reservations").lines[1].split()
    assert row[:5] == ["a", "s", "o", "5", "$1.00"]
    assert row[-1] == held["reservation_id"]


def test_units_that_are_held_are_told(ok: Run) -> None:
    """Of a hold that has nothing else, no amount was seen."""

    async def hold() -> None:
        settings = load_settings()
        async with open_ledger(settings) as ledger:
            await ledger.reserve(
                process_caller(settings), Report(Who("a", "s"), Usage(units_micro=7_500_000))
            )

    asyncio.run(hold())
    head, row = (line.split() for line in ok("reservations").lines)
    assert dict(zip(head, row, strict=False))["Units"] == "7.5"


def test_alerts_say_which_threshold_of_which_limit_was_reached(ok: Run) -> None:
    each = ("--agent", "*", "--service", "s", "--metric", "cost_usd", "--window", "day")
    ok("limit", "set", *each, "--max", "10")
    ok("limit", "set", "--metric", "requests", "--window", "total", "--max", "2", "--threshold", "100")
    use(ok, "a", "4.5")
    use(ok, "a", "3.7")
    rows = [" ".join(line.split()[1:]) for line in ok("alerts").lines]
    assert rows == [
        "(UTC) For Limit Reached Used Max",
        "everyone requests in total 100 % 2 2",
        "each agent at s (a) cost_usd per day 80 % $8.20 $10.00",
        "each agent at s (a) cost_usd per day 50 % $8.20 $10.00",
    ]
    told = ok("alerts", "--json").data["alerts"]
    assert [(alert["number"], alert["threshold"]) for alert in told] == [(3, 100), (2, 80), (1, 50)]
    assert (told[1]["subject"], told[1]["service"], told[1]["scope"]) == ("agent *", "s", "a")
    assert ok("alerts", "--after", "2", "--json").data["alerts"] == told[:1]
    assert ok("alerts", "--limit", "1").lines[2:] == ["Older ones are left out: raise --limit."]
    assert len(ok("alerts", "--limit", "3").lines) == 4
    ok("limit", "remove", *each)
    assert ok("alerts").lines[2].split()[1:] == "— (a) is gone 80 % 82 % —".split()


def test_the_audit_says_who_changed_what_from_what_to_what(ok: Run) -> None:
    limit = ("limit", "set", "--agent", "a", "--metric", "cost_usd", "--window", "day")
    ok(*limit, "--max", "5")
    ok(*limit, "--max", "0.5", "--action", "warn")
    ok("agent", "set", "a", "--tier", "gold")
    ok("kill", "agent", "a", "--reason", "drill")
    ok("resume", "agent", "a")
    ok("limit", "remove", *limit[2:])
    rows = [line[10:].strip() for line in ok("audit").lines[1:]]
    assert [" ".join(row.split()) for row in rows] == [
        "olga remove limit cost_usd per day for agent a max $0.50, warns only",
        "olga resume agent a",
        "olga stop agent a drill",
        "olga set agent agent a tier — → gold",
        "olga set limit cost_usd per day for agent a max $5.00 → $0.50, action reject → warn",
        "olga set limit cost_usd per day for agent a max $5.00",
    ]
    entries = ok("audit", "--json").data["entries"]
    assert entries[4]["before"]["max"] == 5
    assert entries[4]["after"].pop("created_at") == entries[4]["before"].pop("created_at")
    assert entries[4]["after"] == {
        "limit_id": entries[4]["before"]["limit_id"], "subject": "agent a", "service": None, "metric": "cost_usd",
        "window": "day", "max": 0.5, "action": "warn", "timezone": "UTC", "thresholds": [50, 80, 100],
    }  # fmt: skip
    assert entries[2]["reason"] == entries[2]["after"]["reason"] == "drill"
    page = ok("audit", "--limit", "4", "--json").data
    rest = ok("audit", "--limit", "4", "--cursor", page["next_cursor"], "--json").data
    assert page["entries"] + rest["entries"] == ok("audit", "--json").data["entries"]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    ("words", "route"),
    [
        (("audit", "--limit", "1"), "/v1/audit?limit=1"),
        (("audit",), "/v1/audit"),
        (("alerts",), "/v1/alerts"),
        (("reservations",), "/v1/reservations"),
    ],
)
def test_a_document_is_that_of_the_route(ok: Run, words: tuple[str, ...], route: str) -> None:
    """Whoever reads the one can read the other."""
    ok("limit", "set", "--metric", "requests", "--window", "total", "--max", "1", "--threshold", "100")
    ok("agent", "set", "a", "--tier", "gold")

    async def told() -> object:
        settings = load_settings()
        async with open_ledger(settings) as ledger:
            await ledger.reserve(process_caller(settings), Report(Who("a", "s"), Usage(input_tokens=5)))
            site = site_of(ledger)
            async with living(site), browser(site) as http:
                return (await http.get(route)).json()

    assert asyncio.run(told()) == ok(*words, "--json").data


EMPTY = {
    "summary": "Nothing was used.",
    "events": "No usage matches.",
    "agents": "No agent matches.",
    "reservations": "Nothing is held.",
    "alerts": "No threshold was reached. How full the limits are: agent-meter limit list",
    "audit": "Nothing was changed.",
    "limit list": "No limit: everything is allowed, and metered.",
}


@pytest.mark.parametrize("command", EMPTY)
def test_a_new_ledger_is_made_and_said_to_be_empty(run: Run, home: Path, command: str) -> None:
    ran = run(*command.split())
    assert (ran.code, ran.lines[-1]) == (0, EMPTY[command])
    assert ran.err == f"agent-meter: making a new ledger, {home / 'meter.db'}\n"
    again = run(*command.split(), "--json")
    assert (again.code, again.err) == (0, "")
    assert isinstance(again.data, dict)
