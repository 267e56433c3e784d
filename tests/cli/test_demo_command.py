"""`agent-meter demo`: a whole month by the rules, the same from the same seed, never into a file that is there."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent_meter_mcp.core.commands import Reserve
from agent_meter_mcp.core.queries import AgentsQuery
from agent_meter_mcp.demo.filling import go_on, make
from agent_meter_mcp.demo.month import Month
from agent_meter_mcp.store.sqlite import open_store

from .conftest import environment, process
from .terminal import in_terminal

if TYPE_CHECKING:
    from .conftest import Run

UNTIL_US = 1_790_000_000_000_000
FEW = 2500
"""Pieces of work in a month that is made in a second."""


def made(path: Path, *, seed: int = 3, agents: int = 12) -> Path:
    make(str(path), Month(seed, agents, FEW, UNTIL_US), seed, lambda done: None)
    return path


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("month") / "meter.db")


def read(ok: Run, path: Path, *words: str) -> Any:
    return ok(*words, "--db", str(path), "--json").data


def total(ok: Run, path: Path, *words: str) -> Any:
    return read(ok, path, "summary", "--window", "total", *words)["total"]


def test_every_total_in_it_agrees_with_its_events(ok: Run, month: Path) -> None:
    assert read(ok, month, "verify") == {"ok": True, "differences": []}


def test_everything_has_happened_that_an_operator_meets(ok: Run, month: Path) -> None:
    whole = total(ok, month)
    assert whole["events"] > FEW
    assert min(whole[what] for what in ("over_limit", "rejected", "unpriced", "units", "cost_usd")) > 0
    limits = read(ok, month, "limit", "list")["limits"]
    assert {limit["metric"] for limit in limits} == {"requests", "units", "tokens", "cost_usd"}
    assert {limit["action"] for limit in limits} == {"reject", "warn"}
    assert {limit["subject"].split()[0] for limit in limits} == {
        "everyone",
        "agent",
        "tier",
        "project",
        "session",
    }
    done = {entry["action"] for entry in read(ok, month, "audit", "--limit", "500")["entries"]}
    assert done == {"set_agent", "set_limit", "remove_limit", "engage_kill_switch", "release_kill_switch"}


def test_some_of_it_is_still_going_on_when_it_ends(month: Path) -> None:
    store = open_store(str(month))
    try:
        views = {view.agent.agent_id: view for view in store.agents(AgentsQuery(limit=50), UNTIL_US).agents}
        held = store.reservations(UNTIL_US)
        alerts = store.alerts()
    finally:
        store.close()
    assert views["growth-bot"].status == "over_limit"
    assert views["nightly-batch"].status == "stopped"
    assert views["paper-scout"].agent.parent == "research-lead"
    reviewer = views["code-reviewer"].tightest
    assert reviewer is not None and 80 <= reviewer.percent < 100
    assert len(held) >= 3
    assert alerts


def test_usage_is_corrected_and_growing_and_rests_on_weekends(ok: Run, tmp_path: Path) -> None:
    done = make(str(tmp_path / "m.db"), Month(5, 12, 6000, UNTIL_US), 5, lambda done: None)
    assert done.corrected > 0 and done.alerts > 0
    days = read(ok, tmp_path / "m.db", "summary", "--window", "total", "--group-by", "day")["groups"]
    events = [day["events"] for day in sorted(days, key=lambda day: day["key"]["day"])]
    weekdays = [count for count in events[1:-1] if count > sum(events) / len(events) * 0.8]
    assert len(weekdays) < len(events) - 6  # the days off
    assert sum(weekdays[-5:]) > sum(weekdays[:5]) * 1.2


def test_the_same_seed_gives_the_same_ledger(ok: Run, month: Path, tmp_path: Path) -> None:
    def told(path: Path) -> str:
        return ok("export", "--db", str(path)).out + ok("audit", "--json", "--db", str(path)).out

    assert told(made(tmp_path / "again.db")) == told(month)
    assert told(made(tmp_path / "other.db", seed=4)) != told(month)


@pytest.mark.parametrize("agents", [13, 60])
def test_it_has_as_many_agents_as_are_wanted(ok: Run, tmp_path: Path, agents: int) -> None:
    path = made(tmp_path / "m.db", agents=agents)
    assert (
        total(ok, path)["over_limit"] < total(ok, path)["events"] / 5
    )  # an exception, however many they are
    assert len(read(ok, path, "agents", "--limit", "100")["agents"]) == agents
    assert read(ok, path, "verify")["ok"]


def test_a_person_is_told_what_was_made_and_what_to_look_at(home: Path) -> None:
    shown = in_terminal("demo", "--seed", "2", "--until", "2026-09-21", "--db", str(home / "my demo.db"))
    assert shown.code == 0, shown.text
    assert "12 agents" in shown.text and "█" in shown.text
    assert f"agent-meter dashboard --db '{home / 'my demo.db'}'" in shown.text
    assert [path.name for path in home.glob("my demo.db*")] == ["my demo.db"]


def test_a_file_that_exists_is_left_as_it_is(run: Run, home: Path) -> None:
    path = home / "real.db"
    path.write_bytes(b"somebody's own")
    ran = run("demo", "--db", str(path))
    assert ran.code == 2
    assert "real.db exists; the demo fills a new file only" in ran.err
    assert path.read_bytes() == b"somebody's own"


@pytest.mark.parametrize("folder", ["nowhere", "a file"])
def test_where_no_file_can_be_made_the_one_that_was_asked_for_is_named(
    run: Run, home: Path, folder: str
) -> None:
    (home / "a file").touch()
    ran = run("demo", "--db", str(path := home / folder / "x.db"))
    assert ran.code in (65, 73), ran.err
    assert f"{path} " in ran.err
    assert "name another file with --db" in ran.err  # the demo does not look at AGENT_METER_DB


def test_without_db_it_makes_a_file_here_and_not_the_real_ledger(home: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "agent_meter_mcp", "demo", "--agents", "11"],
        cwd=home, env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 2 and "12<=x<=2000" in ran.stderr
    (home / "agent-meter-demo.db").touch()
    ran = subprocess.run(
        [sys.executable, "-m", "agent_meter_mcp", "demo"],
        cwd=home, env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 2 and "agent-meter-demo.db exists" in ran.stderr
    assert not Path(os.environ["AGENT_METER_DB"]).exists()


def test_interrupted_it_leaves_nothing_behind(home: Path) -> None:
    path = home / "large.db"
    running = subprocess.Popen(
        [sys.executable, "-m", "agent_meter_mcp", "demo", "--agents", "2000", "--db", str(path)],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with running:
        while running.poll() is None and not list(home.glob("large.db.making-*-wal")):
            pass
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert list(home.glob("large.db*")) == []


def test_what_goes_on_keeps_nothing_of_what_was_asked(home: Path) -> None:
    """It grew for as long as it went on, by some 40 MB an hour at 200 events a second."""
    month = Month(3, 12, FEW, UNTIL_US)
    make(str(home / "live.db"), month, 3, lambda done: None)
    before = kept()
    for done in go_on(str(home / "live.db"), month, 3, 1000.0):
        if done.refused >= 20:
            assert kept() <= before
            break


def kept() -> int:
    gc.collect()
    return sum(isinstance(one, Reserve) for one in gc.get_objects())


def test_it_goes_on_at_the_rate_that_is_asked_for_until_ctrl_c(ok: Run, home: Path) -> None:
    path = home / "live.db"
    shown = in_terminal(
        "demo", "--rate", "100", "--until", "2026-09-21", "--db", str(path),
        at=r"[1-9]\d more events", typed="\x03", columns=100,
    )  # fmt: skip
    assert shown.code == 0, shown.text
    assert read(ok, path, "summary", "--window", "10m")["total"]["events"] >= 10
    assert process("verify", "--db", str(path)).code == 0
