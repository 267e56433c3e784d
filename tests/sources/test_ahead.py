"""The first look by a process of its own finds what any look finds, or nothing, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent_meter_mcp import Report, Usage, Who, load_settings, open_ledger
from agent_meter_mcp.sources.ahead import CAN_FORK

from .ledgers import OPERATOR

ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import asyncio, os, signal, sys
from agent_meter_mcp import load_settings
from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.sources.base import RANGES
from agent_meter_mcp.sources.local import LocalSource

source = LocalSource(load_settings(), Caller("operator", "olga"), "UTC")
def no_child():
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False
{}
"""
pytestmark = pytest.mark.skipif(not CAN_FORK, reason="the first look is taken here, as all others")


def told_by(tmp_path: Path, program: str) -> list[str]:
    """The words that it prints. In a process without threads, as the dashboard's is when it begins."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(program)],
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
        env={**os.environ, "AGENT_METER_DB": str(tmp_path / "meter.db")},
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.split()


async def used(tmp_path: Path) -> None:
    settings = load_settings({"AGENT_METER_DB": str(tmp_path / "meter.db")})
    async with open_ledger(settings) as ledger:
        for agent in ("ann", "bob"):
            await ledger.record(OPERATOR, Report(Who(agent, "api"), Usage(input_tokens=5)))


async def test_it_finds_what_a_look_finds_and_opens_nothing_here(tmp_path: Path) -> None:
    await used(tmp_path)
    told = told_by(
        tmp_path,
        """
source.look_ahead(RANGES[1])
async def look():
    print(await source.changed(), source._ledger)
    first = await source.snapshot(RANGES[1])
    print(source._ledger, no_child(), await source.changed())
    second = await source.snapshot(RANGES[1])
    print(second.replace(taken_at_us=first.taken_at_us) == first, *first.used, await source.changed())
    await source.close()
asyncio.run(look())
""",
    )
    assert told == ["True", "None", "None", "True", "True", "True", "ann", "bob", "False"]


async def test_another_range_than_was_likely_is_looked_at_here(tmp_path: Path) -> None:
    await used(tmp_path)
    told = told_by(
        tmp_path,
        """
source.look_ahead(RANGES[1])
async def look():
    print(len((await source.snapshot(RANGES[0])).bars), source._ledger is None, no_child())
    await source.close()
asyncio.run(look())
""",
    )
    assert told[1:] == ["False", "True"]


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "NotFound"), (b"no database at all, but long enough to look like one" * 50, "StoreUnusable")],
    ids=["none", "no-ledger"],
)
def test_what_is_wrong_with_the_file_is_said_as_without_it(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "meter.db").write_bytes(content)
    told = told_by(
        tmp_path,
        """
source.look_ahead(RANGES[1])
async def look():
    try:
        await source.snapshot(RANGES[1])
    except MeterError as error:
        print(type(error).__name__, no_child())
asyncio.run(look())
""",
    )
    assert told == [said, "True"]
    assert (tmp_path / "meter.db").exists() is (content is not None), "none is made"


async def test_a_child_that_dies_is_no_trouble(tmp_path: Path) -> None:
    await used(tmp_path)
    told = told_by(
        tmp_path,
        """
source.look_ahead(RANGES[1])
os.kill(source._ahead[1]._child, signal.SIGKILL)
async def look():
    print(*(await source.snapshot(RANGES[1])).used)
    source.look_ahead(RANGES[1])
    await source.close()
asyncio.run(look())
""",
    )
    assert told == ["ann", "bob"]


def test_a_child_that_dies_while_it_tells_is_no_trouble(tmp_path: Path) -> None:
    """Half of an answer was read as a whole one, and that ended the dashboard."""
    told = told_by(
        tmp_path,
        """
import select
from agent_meter_mcp.sources.ahead import Ahead
ahead = Ahead(lambda: "x" * 10_000_000)
select.select([ahead._reading], [], [])
os.kill(ahead._child, signal.SIGKILL)
print(asyncio.run(ahead.take()), no_child())
""",
    )
    assert told == ["None", "True"]
