"""`export`: exact, harmless, and there whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_meter_mcp.cli.exporting import appearing, csv_writer, event_fields, line_writer
from agent_meter_mcp.core.errors import StoreReadOnly
from agent_meter_mcp.core.models import StoredEvent, Usage, UsageEvent, Who
from agent_meter_mcp.core.text import guarded
from agent_meter_mcp.faces.wire.reports import Event

from .conftest import Run, environment, process
from .terminal import in_terminal

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "＝1", "'quoted'"]


def record(ok: Run, *words: str) -> None:
    ok("record", "--service", "s", *words)


def test_lines_are_what_events_in_json_are(ok: Run) -> None:
    record(ok, "--agent", "a", "--id", "1", "--cost-usd", "999999.123456789", "--units", "0.000001",
           "--metadata", '{"é": [1.5, "\\u001b"]}')  # fmt: skip
    record(ok, "--agent", "b", "--id", "2")
    lines = ok("export").lines
    assert [json.loads(line) for line in lines] == ok("events", "--json").data["events"]
    assert json.loads(lines[1], parse_float=Decimal)["cost_usd"] == Decimal("999999.123456789")
    assert '"units": 0.000001,' in lines[1]
    assert "\x1b" not in lines[1]


@pytest.mark.skipif(sys.platform == "win32", reason="a shell closes it")
def test_an_export_to_a_stdout_that_is_closed_is_told_to_name_a_file(ok: Run) -> None:
    record(ok, "--agent", "a", "--id", "1")
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "agent_meter_mcp", "export"],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        env=environment(),
    )
    assert (done.returncode, done.stderr) == (
        2,
        "agent-meter export: --output: stdout is closed: name a file. Nothing was changed.\n",
    )


@pytest.mark.parametrize("name", ["meter.db", "meter.db-wal", "meter.db-queue", "prices.toml", "link"])
def test_an_export_never_takes_the_place_of_the_meters_own_files(
    run: Run, ok: Run, home: Path, name: str
) -> None:
    record(ok, "--agent", "a", "--id", "1")
    (home / "link").symlink_to("meter.db")
    for ledger in ("meter.db", "link"):
        refused = run("export", "--db", str(home / ledger), "--output", str(home / name))
        assert (refused.code, "is the meter's own file: name another one" in refused.err) == (2, True)
    assert ok("verify").code == 0
    assert [event["id"] for event in ok("events", "--json").data["events"]] == ["1"]


def test_all_pages_are_exported_newest_first(ok: Run, home: Path) -> None:
    import asyncio

    from agent_meter_mcp.intake import Report
    from agent_meter_mcp.runtime import open_ledger, process_caller
    from agent_meter_mcp.settings import load_settings

    async def fill() -> None:
        settings = load_settings()
        async with open_ledger(settings) as ledger:
            reports = [Report(Who("a", "s"), Usage(), id=f"{number}") for number in range(1010)]
            await ledger.record_many(process_caller(settings), reports[:510])
            await ledger.record_many(process_caller(settings), reports[510:])

    asyncio.run(fill())
    target = home / "all.jsonl"
    ran = ok("export", "--output", str(target))
    assert ran.out == ""
    assert ran.err == f"1,010 events in {target}\n"
    ids = [json.loads(line)["id"] for line in target.read_text(encoding="utf-8").splitlines()]
    assert ids == [f"{number}" for number in reversed(range(1010))]


def test_filters_and_times_choose_what_is_exported(ok: Run) -> None:
    record(ok, "--agent", "a", "--id", "old", "--occurred-at", "3d")
    record(ok, "--agent", "a", "--id", "new")
    record(ok, "--agent", "b", "--id", "other")
    chosen = ok("export", "--since", "1d", "--agent", "a").lines
    assert [json.loads(line)["id"] for line in chosen] == ["new"]


def test_a_sheet_has_a_header_and_no_formula(ok: Run) -> None:
    assert ok("export", "--format", "csv").lines == [",".join(Event.model_fields)]
    for number, formula in enumerate(FORMULAS):
        record(ok, "--agent", formula, "--operation", formula, "--id", f"{number}", "--cost-usd", "0.000000001",
               "--metadata", '{"a": 1}')  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(ok("export", "--format", "csv").out)))
    assert [row["agent"] for row in reversed(rows)] == [f"'{formula}" for formula in FORMULAS]
    assert rows[0]["operation"] == "''quoted'"
    assert {(row["cost_usd"], row["units"], row["metadata"]) for row in rows} == {
        ("0.000000001", "", '{"a": 1}')
    }


@given(st.text())
def test_one_apostrophe_less_gives_back_what_it_was(text: str) -> None:
    safe = guarded(text)
    assert not safe.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert (safe.removeprefix("'") if safe.startswith("'") else safe) == text


names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=9)
counts = st.none() | st.integers(0, 10**12)
stored_events = st.builds(
    StoredEvent,
    st.integers(1, 2 * 10**15),
    st.builds(
        UsageEvent,
        names,
        st.builds(Who, names, names, st.none(), st.none() | names, st.none() | names),
        st.builds(
            Usage,
            st.integers(0, 9),
            st.none() | st.integers(0, 10**15),
            st.none() | names,
            counts,
            counts,
            counts,
            counts,
            counts,
            st.none() | names,
            st.none() | st.integers(0, 10**15),
        ),
        st.none() | names,
        st.sampled_from(["self", "sdk"]),
        st.none() | st.integers(0, 2 * 10**15),
        st.none() | st.integers(0, 999),
        counts,
        st.none() | st.dictionaries(names, st.integers()).map(json.dumps),
    ),
    st.sampled_from(["accepted", "over_limit", "rejected"]),
    st.integers(0, 2 * 10**15),
    st.integers(1, 9),
    st.none() | names,
)


@given(stored_events)
def test_a_line_and_the_tool_tell_the_same_of_any_event(stored: StoredEvent) -> None:
    file = io.StringIO()
    line_writer(file)(stored)
    assert json.loads(file.getvalue()) == Event.of(stored).model_dump(mode="json")
    assert file.getvalue().isascii()
    exact = json.loads(file.getvalue(), parse_float=Decimal)
    cost = stored.event.usage.cost_nano_usd
    assert exact["cost_usd"] == (None if cost is None else Decimal(cost) / 10**9)


@given(stored_events)
def test_a_sheet_has_a_cell_for_each_field_of_any_event(stored: StoredEvent) -> None:
    file = io.StringIO()
    csv_writer(file)(stored)
    header, row = csv.reader(io.StringIO(file.getvalue()))
    assert header == list(event_fields(stored)) == list(Event.model_fields)
    assert len(row) == len(header)


def test_what_was_there_stays_until_the_new_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "usage.csv"
    target.write_text("old", encoding="utf-8")
    with pytest.raises(ZeroDivisionError), appearing(str(target)) as file:
        file.write("half")
        file.flush()
        assert target.read_text(encoding="utf-8") == "old"
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".db"] == ["usage.csv"]
    assert target.read_text(encoding="utf-8") == "old"
    with appearing(str(target)) as file:
        file.write("new")
    assert target.read_text(encoding="utf-8") == "new"


def test_a_link_stays_a_link_and_a_pipe_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with appearing(str(tmp_path / "link")) as file:
        file.write("x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text(encoding="utf-8") == "x"
    with appearing(os.devnull) as file:
        file.write("x")
    assert not Path(os.devnull).is_file()


def test_a_file_that_cannot_be_made_is_an_error(run: Run, home: Path) -> None:
    with pytest.raises(StoreReadOnly), appearing(str(home / "nowhere" / "x")):
        pass
    missing = run("export", "--output", str(home / "nowhere" / "x"))
    assert missing.code == 73
    assert missing.err.endswith("x cannot be written (No such file or directory). Name another file.\n")
    assert run("export", "--output", str(home)).code == 73


WRITES_HALF = """
import sys
from agent_meter_mcp.cli.exporting import appearing
with appearing(sys.argv[1]) as file:
    file.write("half")
    file.flush()
    print("written", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(("number", "leaves"), [("SIGTERM", 0), ("SIGHUP", 0), ("SIGINT", 0), ("SIGKILL", 1)])
def test_a_process_that_is_killed_in_the_middle_leaves_no_file(
    tmp_path: Path, number: str, leaves: int
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    writing = subprocess.Popen(
        [sys.executable, "-c", WRITES_HALF, str(folder / "usage.csv")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    with writing:
        assert writing.stdout is not None
        assert writing.stdout.readline() == b"written\n"
        assert [path.suffix for path in folder.iterdir()] == [".part"]
        writing.send_signal(getattr(signal, number))
        assert writing.wait(30) != 0
    assert not (folder / "usage.csv").exists()
    # After SIGKILL nobody can tidy up: what is left is hidden and named as what it is.
    assert [path.name[0] for path in folder.iterdir()] == ["."] * leaves


def test_progress_is_for_a_person_and_no_part_of_the_output(ok: Run, home: Path) -> None:
    record(ok, "--agent", "a")
    target = home / "x.jsonl"
    watched = in_terminal("export", "--output", str(target))
    assert "1 event " in watched.text
    assert watched.lines[-1].endswith(f"1 event in {target}")
    assert process("export").err == ""
    assert len(in_terminal("export").lines) == 1
