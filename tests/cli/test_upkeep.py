"""`verify` and `doctor`."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent_meter_mcp import SyncMeter
from agent_meter_mcp.cli.doctor import CLOCK_AHEAD_US
from agent_meter_mcp.cli.exits import DIFFERENCES, PROBLEMS
from agent_meter_mcp.core.commands import Record
from agent_meter_mcp.core.models import Usage, UsageEvent, Who
from agent_meter_mcp.faces.errors import SHAPES
from agent_meter_mcp.runtime import system_clock_us
from agent_meter_mcp.store.sqlite import driver, open_store
from agent_meter_mcp.store.sqlite.schema import VERSION

from .conftest import Ran, Run, process
from .terminal import in_terminal


def change(home: Path, statement: str) -> None:
    connection = driver.connect(str(home / "meter.db"), synchronous="FULL", busy_timeout_s=5)
    connection.execute(statement)
    connection.close()


def findings(ran: Ran) -> dict[str, dict[str, Any]]:
    return {finding["name"]: finding for finding in ran.data["findings"]}


def used(ok: Run) -> None:
    ok("limit", "set", "--metric", "requests", "--window", "total", "--max", "9")
    ok("record", "--agent", "a", "--service", "s")


def test_a_sound_ledger_is_verified(ok: Run) -> None:
    used(ok)
    assert ok("verify").out == "every total agrees with its events\n"
    assert ok("verify", "--json").data == {"ok": True, "differences": []}


def test_each_difference_is_a_line(run: Run, ok: Run, home: Path) -> None:
    used(ok)
    change(home, "UPDATE head SET used = used + 4")
    found = run("verify")
    assert found.code == DIFFERENCES
    assert found.lines[0].startswith("counter used: requests per total for everyone")
    assert found.lines[0].endswith(": it says 5, the events say 1")
    assert found.lines[1:] == ["1 difference"]
    in_json = run("verify", "--json")
    assert in_json.code == DIFFERENCES
    (difference,) = in_json.data["differences"]
    assert (difference["view"], difference["live"], difference["rebuilt"]) == ("counter used", 5, 1)
    assert in_json.data["ok"] is False


def test_a_mistyped_path_is_not_verified(run: Run, home: Path) -> None:
    ran = run("verify", "--db", str(home / "typo.db"))
    assert (ran.code, ran.out) == (SHAPES["not_found"].exit_code, "")
    assert "typo.db: nothing was verified" in ran.err
    assert not (home / "typo.db").exists()


@pytest.mark.parametrize("has_page", [False, True])
def test_an_empty_copy_is_not_verified(run: Run, home: Path, *, has_page: bool) -> None:
    """Of a backup whose source was mistyped: opened, it would be a new ledger in which all is well."""
    copy = home / "copy.db"
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        for statement in ("CREATE TABLE t (x)", "DROP TABLE t", "VACUUM") if has_page else ():
            connection.execute(statement)
    assert copy.stat().st_size == (4096 if has_page else 0)
    before = copy.read_bytes()
    ran = run("verify", "--db", str(copy))
    assert (ran.code, ran.out) == (SHAPES["not_found"].exit_code, "")
    assert f"{copy.name}: nothing was verified" in ran.err
    assert copy.read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with a name")
def test_a_pipe_is_not_waited_for(home: Path) -> None:
    os.mkfifo(home / "pipe")
    done = process("verify", "--db", str(home / "pipe"))
    assert done.code == SHAPES["store_unusable"].exit_code
    assert "is a device or a pipe" in done.err


def test_progress_of_verify_is_for_a_person(ok: Run) -> None:
    used(ok)
    watched = in_terminal("verify")
    assert "counters: 1 of 1" in watched.raw
    assert watched.raw.endswith(" \revery total agrees with its events\n")


def test_a_sound_installation_has_no_problem(ok: Run, home: Path) -> None:
    used(ok)
    ran = ok("doctor", "--json")
    found = findings(ran)
    assert ran.data["ok"] is True
    assert {finding["state"] for finding in found.values()} <= {"ok", "warning"}
    assert found["file"]["facts"]["path"] == str(home / "meter.db")
    assert found["file"]["facts"]["bytes"] == (home / "meter.db").stat().st_size
    assert found["ledger"]["facts"] == {
        "events": 1,
        "agents": 1,
        "limits": 1,
        "reservations": 0,
        "switches": 0,
    }
    assert found["format"]["facts"] == {"version": VERSION, "newest": VERSION, "journal_mode": "wal"}
    assert found["sqlite"]["facts"]["version"] == driver.SQLITE_VERSION
    assert found["sqlite"]["state"] == ("ok" if driver.wal_reset_is_sound() else "warning")
    assert found["prices"]["facts"]["version"].startswith("genai-prices ")
    assert found["synchronous"]["facts"] == {"mode": "FULL"}
    assert [line.split()[0] for line in ok("doctor").lines] == [
        finding["state"] for finding in found.values()
    ]


@pytest.mark.parametrize(
    ("version", "is_sound"),
    [("3.37.2", False), ("3.44.5", False), ("3.44.6", True), ("3.45.1", False), ("3.50.6", False),
     ("3.50.7", True), ("3.51.2", False), ("3.51.3", True), ("3.60.0", True), ("4.0.0", True)],
)  # fmt: skip
def test_a_sqlite_that_can_lose_commits_is_a_warning(
    ok: Run, monkeypatch: pytest.MonkeyPatch, version: str, is_sound: bool
) -> None:
    sound = driver.wal_reset_is_sound
    monkeypatch.setattr(driver, "wal_reset_is_sound", lambda: sound(version))
    (told,) = [line for line in ok("doctor").lines if line.split()[1] == "sqlite"]
    assert told.startswith("ok" if is_sound else "warning")
    assert is_sound or "lose" in " ".join(ok("doctor").lines)


def test_doctor_makes_no_file(ok: Run, home: Path) -> None:
    found = findings(ok("doctor", "--json"))
    assert (found["file"]["state"], found["file"]["facts"]["exists"]) == ("warning", False)
    assert not (home / "meter.db").exists()


def test_doctor_tells_that_a_file_has_no_folder(run: Run, home: Path) -> None:
    """No record would make it."""
    ran = run("doctor", "--json", "--db", str(home / "nowhere" / "x.db"))
    found = findings(ran)["file"]
    assert (ran.code, found["state"], found["facts"]["exists"]) == (PROBLEMS, "problem", False)
    assert found["text"].endswith("x.db does not exist. Make it, or name another file with AGENT_METER_DB.")


def test_doctor_leaves_an_empty_file_as_it_is(ok: Run, home: Path) -> None:
    (home / "meter.db").write_bytes(b"")
    found = findings(ok("doctor", "--json"))
    assert (found["file"]["state"], found["file"]["facts"]["exists"]) == ("warning", True)
    assert (home / "meter.db").read_bytes() == b""


def test_doctor_does_not_migrate(ok: Run, home: Path) -> None:
    ok("record", "--agent", "a", "--service", "s")
    connection = driver.connect(str(home / "meter.db"), synchronous="FULL", busy_timeout_s=5)
    connection.execute("PRAGMA user_version = 1")
    found = findings(ok("doctor", "--json"))
    assert (found["file"]["state"], "older format" in found["file"]["text"]) == ("warning", True)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    connection.close()


def test_doctor_tells_of_a_log_whose_file_was_moved(run: Run, home: Path) -> None:
    (home / "meter.db-wal").write_bytes(b"usage")
    ran = run("doctor", "--json")
    found = findings(ran)["file"]
    assert (ran.code, found["state"], found["facts"]["exists"]) == (PROBLEMS, "problem", False)
    assert "Put the file back beside it" in found["text"]
    assert (home / "meter.db-wal").read_bytes() == b"usage"


def test_doctor_says_where_each_setting_is_from(ok: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_METER_SYNCHRONOUS", "normal")
    found = findings(ok("doctor", "--db", str(home / "other.db"), "--json"))
    assert found["AGENT_METER_DB"]["facts"] == {"value": str(home / "other.db"), "source": "command line"}
    assert found["AGENT_METER_SYNCHRONOUS"]["facts"] == {"value": "normal", "source": "environment"}
    assert found["AGENT_METER_PORT"]["facts"] == {"value": "8787", "source": "default"}
    assert "not a power cut" in found["synchronous"]["text"]


def test_doctor_warns_of_a_variable_that_is_none(ok: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_METER_DB_", "/somewhere/else.db")
    monkeypatch.setenv("AGENT_METER_KEY", "am_secret")
    found = findings(ok("doctor", "--json"))
    assert found["AGENT_METER_DB_"]["state"] == "warning"
    assert found["AGENT_METER_DB_"]["text"].endswith("did you mean AGENT_METER_DB?")
    assert "AGENT_METER_KEY" not in found


@pytest.mark.parametrize(
    ("name", "value", "told", "unknown"),
    [("AGENT_METER_TIMEZONE", "Mars", "IANA name", ""),
     ("AGENT_METER_AGENT", "*", "nobody's name", ""),
     ("AGENT_METER_PORT", "http", "from 0 to 65535", ""),
     ("AGENT_METER_BUSY_TIMEOUT", "-1", "number of seconds", ""),
     ("AGENT_METER_DB", ":memory:", "path of a file", "file"),
     ("AGENT_METER_PRICES", "file:x", "path of a file", "prices"),
     ("AGENT_METER_SECRETS", "file:x", "path of a file", "secrets"),
     ("AGENT_METER_SYNCHRONOUS", "\x1b[31m", "FULL or NORMAL", "synchronous")],
)  # fmt: skip
def test_a_setting_that_cannot_be_is_a_problem_and_the_rest_is_told(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str, unknown: str
) -> None:
    monkeypatch.setenv(name, value)
    ran = run("doctor", "--json")
    found = findings(ran)
    assert (ran.code, ran.data["ok"]) == (PROBLEMS, False)
    assert [finding["name"] for finding in found.values() if finding["state"] == "problem"] == [name]
    assert found[name]["facts"] == {"value": value, "source": "environment"}
    assert told in found[name]["text"] and "until then no other command works" in found[name]["text"]
    assert {"sqlite", "file", "prices", "secrets", "synchronous", "python"} - found.keys() <= {unknown}
    assert unknown not in found, "its default is not what is used"
    assert all(line.isprintable() for line in run("doctor").lines)
    assert run("summary").code == SHAPES["invalid_input"].exit_code


def test_two_settings_that_cannot_be_are_both_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_METER_TIMEZONE", "Mars")
    monkeypatch.setenv("AGENT_METER_HOST", "a b")
    found = findings(run("doctor", "--json"))
    wrong = [name for name, finding in found.items() if finding["state"] == "problem"]
    assert wrong == ["AGENT_METER_HOST", "AGENT_METER_TIMEZONE"]
    assert run("doctor", "--db", ":memory:").code == SHAPES["invalid_input"].exit_code, "what was just typed"


@pytest.mark.parametrize(
    ("name", "finding"),
    [("AGENT_METER_DB", "file"), ("AGENT_METER_PRICES", "prices"), ("AGENT_METER_SECRETS", "secrets")],
)
def test_a_folder_in_place_of_a_file_is_a_problem_and_the_rest_is_told(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch, name: str, finding: str
) -> None:
    monkeypatch.setenv(name, str(home))
    ran = run("doctor", "--json")
    (wrong,) = [found for found in ran.data["findings"] if found["state"] == "problem"]
    assert (ran.code, wrong["name"]) == (PROBLEMS, finding)
    assert str(home) in wrong["text"]
    assert {"sqlite", "file", "prices", "secrets", "python"} <= findings(ran).keys()


def test_a_clock_that_jumped_is_a_problem(run: Run, ok: Run, home: Path) -> None:
    store = open_store(str(home / "meter.db"))
    store.apply(
        [Record(UsageEvent("x", Who("a", "s"), Usage()))], system_clock_us() + CLOCK_AHEAD_US + 3600 * 10**6
    )
    store.close()
    ran = run("doctor", "--json")
    assert ran.code == PROBLEMS
    clock = findings(ran)["clock"]
    assert clock["state"] == "problem"
    assert clock["text"].startswith("the newest entry is 1 h ")
    assert clock["facts"]["ahead_s"] > 3600
    assert run("doctor").code == PROBLEMS


def test_what_is_stopped_is_a_warning(ok: Run) -> None:
    ok("kill", "agent", "a", "--reason", "drill")
    found = findings(ok("doctor", "--json"))
    assert (found["kill switch"]["state"], found["kill switch"]["text"]) == (
        "warning", "agent a was stopped by olga: drill",
    )  # fmt: skip


def test_a_file_that_others_may_read_is_a_warning(ok: Run, home: Path) -> None:
    used(ok)
    os.chmod(home / "meter.db", stat.S_IRUSR | stat.S_IWUSR | stat.S_IROTH)
    assert findings(ok("doctor", "--json"))["file"]["state"] == "warning"


def test_a_file_that_is_no_ledger_is_a_problem_and_the_rest_is_told(run: Run, home: Path) -> None:
    (home / "meter.db").write_bytes(b"not a database, but long enough to be looked at" * 40)
    ran = run("doctor", "--json")
    assert ran.code == PROBLEMS
    found = findings(ran)
    assert found["file"]["facts"]["error"] == "store_unusable"
    assert {"sqlite", "prices", "python"} <= found.keys()


def test_prices_that_cannot_be_read_are_a_problem(run: Run, home: Path) -> None:
    (home / "prices.toml").write_text("[models", encoding="utf-8")
    ran = run("doctor", "--json")
    assert (ran.code, findings(ran)["prices"]["state"]) == (PROBLEMS, "problem")


def test_the_file_of_secrets_is_looked_at_and_never_told(run: Run, ok: Run, home: Path) -> None:
    assert findings(ok("doctor", "--json"))["secrets"]["facts"]["exists"] is False
    file = home / "secrets.toml"
    file.write_text('receipt = "very-secret"\n[agents]\nbot = "bots-secret"\n')
    file.chmod(0o600)
    ran = ok("doctor", "--json")
    secrets = findings(ran)["secrets"]
    assert (secrets["state"], secrets["facts"]["agents"], secrets["facts"]["receipt"]) == ("ok", 1, True)
    assert "bots-secret" not in ran.out + ok("doctor").out
    for text, mode, told in (("", 0o644, "chmod 600"), ('receipt = "very-secret', 0o600, "is no TOML")):
        file.write_text(text)
        file.chmod(mode)
        ran = run("doctor", "--json")
        assert (ran.code, findings(ran)["secrets"]["state"]) == (PROBLEMS, "problem")
        assert told in findings(ran)["secrets"]["text"]
        assert "very-secret" not in ran.out


def test_what_waits_for_a_meter_elsewhere_is_told(
    run: Run, ok: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(home))
    assert "spool" not in findings(ok("doctor", "--json"))
    with SyncMeter(url="http://127.0.0.1:9", timeout_s=1) as meter:
        for _ in range(3):
            assert meter.record(agent="bot", service="s").status == "spooled"
    spool = findings(ok("doctor", "--json"))["spool"]
    assert (spool["state"], spool["facts"]["entries"]) == ("warning", 3)
    assert Path(spool["facts"]["folder"]).parent == home / ".agent-meter" / "spool"
    refused = Path(spool["facts"]["folder"]) / "refused.txt"
    refused.write_text("{}\n")
    told = findings(ok("doctor", "--json"))["refused"]
    assert (told["state"], told["facts"]) == ("warning", {"file": str(refused)})
    (home / ".agent-meter" / "spool" / "x" / "no-file.jsonl").mkdir(parents=True)
    ran = run("doctor", "--json")
    assert (ran.code, findings(ran)["spool"]["state"]) == (PROBLEMS, "problem")


def test_the_keys_are_looked_at(ok: Run) -> None:
    used(ok)
    assert findings(ok("doctor", "--json"))["keys"]["facts"]["made"] == 0
    made = ok("keys", "create", "--role", "viewer", "--json").data
    assert findings(ok("doctor", "--json"))["keys"]["state"] == "ok"
    ok("keys", "create", "--role", "agent", "--agent", "bot", "--expires", "3d")
    keys = findings(ok("doctor", "--json"))["keys"]
    assert (keys["state"], keys["facts"]["in_force"], len(keys["facts"]["expire_soon"])) == ("warning", 2, 1)
    assert "(agent bot)" in keys["text"]
    ok("keys", "revoke", made["prefix"])
    ok("keys", "revoke", keys["facts"]["expire_soon"][0])
    keys = findings(ok("doctor", "--json"))["keys"]
    assert (keys["state"], keys["facts"]["in_force"]) == ("warning", 0)
    assert "nobody is let in" in keys["text"]


def test_findings_go_on_below_in_a_narrow_terminal(ok: Run) -> None:
    ok("kill", "agent", "a", "--reason", "word " * 20 + "end")
    screen = in_terminal("doctor", columns=80)
    assert max(map(len, screen.lines)) <= 80
    assert "end" in screen.text


def test_doctor_promises_no_file_where_none_can_be_made(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "no-folder").touch()
    monkeypatch.setenv("HOME", str(home / "no-folder"))
    monkeypatch.delenv("AGENT_METER_DB")
    told = run("doctor")
    (line,) = [line for line in told.lines if " file  " in line]
    assert (told.code, line.split()[0]) == (PROBLEMS, "problem")
    assert "is not there yet, and cannot be made in " in line
