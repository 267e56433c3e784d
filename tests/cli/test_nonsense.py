"""Whatever is typed: an answer or one line that says what is wrong, never a traceback."""

from __future__ import annotations

import os
from contextlib import chdir
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_meter_mcp.cli.program import program

from ..kept import kept
from .conftest import Run
from .test_program import LEAVES

RECORD = ["record", "--agent", "a", "--service", "s"]
LIMIT = ["limit", "set", "--metric", "requests", "--window", "day", "--max", "1"]
BAD_NAMES = ["", " x", "x ", "a\nb", "\x1b[31mred", "\u202eevil", "\u200b", "x" * 129]
BAD = [
    ([*RECORD, "--input-tokens", "-1"], "--input-tokens"),
    ([*RECORD, "--input-tokens", "1.5"], "--input-tokens"),
    ([*RECORD, "--input-tokens", "9" * 5000], "--input-tokens"),
    ([*RECORD, "--requests", "1000000001"], "--requests"),
    ([*RECORD, "--cost-usd", "nan"], "--cost-usd"),
    ([*RECORD, "--cost-usd", "-inf"], "--cost-usd"),
    ([*RECORD, "--cost-usd", "1e30"], "--cost-usd"),
    ([*RECORD, "--cost-usd", "1e999999999"], "--cost-usd"),
    ([*RECORD, "--cost-usd", "$5"], "--cost-usd"),
    ([*RECORD, "--cost-usd", "9" * 100], "--cost-usd"),
    ([*RECORD, "--units", "x"], "--units"),
    ([*RECORD, "--unit-type", "x" * 65], "--unit-type"),
    ([*RECORD, "--occurred-at", "2999-01-01T00:00:00Z"], "--occurred-at"),
    ([*RECORD, "--occurred-at", "tomorrow"], "--occurred-at"),
    ([*RECORD, "--occurred-at", "9999999h"], '--occurred-at: must be a duration from "1s" to "366d"'),
    (["demo", "--until", "0001-01-01"], "--until"),
    ([*RECORD, "--status-code", "65536"], "--status-code"),
    ([*RECORD, "--duration-ms", "-1"], "--duration-ms"),
    ([*RECORD, "--metadata", '"' + "x" * 9000 + '"'], "--metadata"),
    ([*RECORD, "--metadata", '{"a": "' + "x" * 9000 + '"}'], "--metadata"),
    ([*RECORD, "--source", "rumour"], "--source"),
    ([*RECORD, "--id", "x" * 257], "--id"),
    ([*RECORD, "--parent", "a"], "--parent"),
    ([*RECORD, "--agent", "*"], "--agent"),
    (["record", "--agent", "a"], "--service"),
    (["record", "--service", "s"], "--agent"),
    ([*LIMIT, "--window", "1.5h"], "--window"),
    ([*LIMIT, "--window", "367d"], "--window"),
    ([*LIMIT, "--max", "-1"], "--max"),
    ([*LIMIT, "--max", "1.5"], "--max"),
    ([*LIMIT, "--max", "1e19"], "--max"),
    ([*LIMIT, "--metric", "joules"], "--metric"),
    ([*LIMIT, "--timezone", "Mars/Base"], "--timezone"),
    ([*LIMIT, "--window", "5m", "--timezone", "Europe/Berlin"], "--timezone"),
    ([*LIMIT, "--agent", "a", "--tier", "b"], "--tier"),
    ([*LIMIT, "--tier", "*"], "--tier"),
    ([*LIMIT, "--service", "*"], "--service"),
    ([*LIMIT, "--action", "explode"], "--action"),
    ([*LIMIT, "--thresholds", "0"], "--thresholds"),
    ([*LIMIT, "--thresholds", "1001"], "--thresholds"),
    (["summary", "--window", "never"], "--window"),
    (["summary", "--window", "day", "--since", "1h"], "--window"),
    (["summary", "--since", "now", "--until", "1h"], "--until"),
    (["summary", "--timezone", "../etc/passwd"], "--timezone"),
    (["summary", "--timezone", "Nowhere"], "--timezone"),
    (["summary", "--group-by", "colour"], "--group-by"),
    (["summary", "--group-by", "agent", "--group-by", "agent"], "--group-by"),
    (["summary", "--order-by", "luck"], "--order-by"),
    (["summary", "--limit", "0"], "--limit"),
    (["summary", "--limit", "1001"], "--limit"),
    (["summary", "--include-children"], "--include-children"),
    (["events", "--cursor", "x"], "--cursor"),
    (["limit", "list", "--agent", ""], "--agent"),
    (["events", "--cursor", "9" * 19], "--cursor"),
    (["events", "--limit", "501"], "--limit"),
    (["events", "--outcome", "lost"], "--outcome"),
    (["agents", "--status", "asleep"], "--status"),
    (["agents", "--limit", "501"], "--limit"),
    (["audit", "--limit", "0"], "--limit"),
    (["alerts", "--limit", "501"], "--limit"),
    (["alerts", "--after", "-1"], "--after"),
    (["alerts", "--timezone", "Mars"], "--timezone"),
    (["export", "--format", "xml"], "--format"),
    (["limit", "list", "--agent", " a"], "--agent"),
    (["agent", "set", "a", "--parent", "a"], "--parent"),
    (["agent", "set", "a", "--tier", "\x1b"], "--tier"),
    (["kill", "agent", "a", "--reason", ""], "--reason"),
    (["kill", "agent", "a", "--reason", "x" * 501], "--reason"),
    (["kill", "agent", "", "--reason", "x"], "AGENT"),
    (["kill", "agent", "*", "--reason", "x"], "AGENT"),
    (["kill", "service", "*", "--reason", "x"], "SERVICE"),
    (["kill", "somebody", "--reason", "x"], "somebody"),
    (["completion", "powershell"], "powershell"),
    *((["record", "--agent", name, "--service", "s"], "--agent") for name in BAD_NAMES),
    *((["record", "--agent", "a", "--service", name], "--service") for name in BAD_NAMES),
    *(([*RECORD, "--operation", name], "--operation") for name in (*BAD_NAMES[:-1], "x" * 257)),
]


@pytest.mark.parametrize(("words", "named"), BAD, ids=lambda value: None)
def test_what_is_wrong_is_named_in_one_line_and_nothing_changes(
    run: Run, words: list[str], named: str
) -> None:
    refused = run(*words)
    assert (refused.code, refused.out) == (2, ""), refused
    (told,) = [line for line in refused.err.splitlines() if "making a new ledger" not in line]
    assert named in told
    assert told.isprintable()
    assert len(told) < 700
    assert run("events", "--json").data["events"] == []
    assert run("limit", "list", "--json").data["limits"] == []
    assert run("audit", "--json").data["entries"] == []


ENDLESS = (("mcp",), ("serve",), ("dashboard",))
WORDS = ["a", "*", "day", "5m", "total", "requests", "cost_usd", "1", "0", "-1", "1e400", "2026-01-01", "24h", "now",
         "{}", "UTC", "Europe/Berlin", "x" * 300, "\x1b[2J", "", "--", "-", "=1+1", "jsonl", "csv"]  # fmt: skip
word = st.sampled_from(WORDS) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9
)


@st.composite
def typed(draw: st.DrawFn) -> list[str]:
    """A command with some of its options and words of all kinds."""
    path = draw(st.sampled_from([path for path in LEAVES if path not in ENDLESS]))
    options = [
        option.opts[0]
        for option in LEAVES[path].params
        if isinstance(option, click.Option) and option.name not in ("db", "output")
    ]
    words: list[str] = [*path]
    for _ in range(draw(st.integers(0, 5))):
        words.append(draw(st.sampled_from(options) | word if options else word))
        if draw(st.booleans()):
            words.append(draw(word))
    # A file named by chance would be written into the folder of the tests.
    return [one for one in words if not one.startswith(("--db", "--d=", "--output", "--out", "--o"))]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=typed())
def test_no_words_bring_a_traceback(home: Path, words: list[str]) -> None:
    before = kept(home / "meter.db")
    with chdir(home):  # where `demo` makes its file
        result: Any = CliRunner().invoke(program, words)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.exit_code in (0, 2, 3, 4, 5, 7), result.stderr
    assert "Traceback" not in result.stderr
    assert "internal error" not in result.stderr
    assert "\x1b" not in result.output
    if result.exit_code:
        assert kept(home / "meter.db") == before or before is None
    if result.exit_code in (2, 3, 4) and not result.stderr.startswith("Usage"):
        told = [line for line in result.stderr.splitlines() if "making a new ledger" not in line]
        assert len([line for line in told if "note: no usage" not in line]) == 1


def test_a_name_that_is_no_text_is_refused(run: Run) -> None:
    refused = run("record", "--agent", os.fsdecode(b"\xff\xfe"), "--service", "s")
    assert refused.code == 2
    assert "printable" in refused.err
