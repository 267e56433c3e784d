"""The command line on a ledger of its own:

by click's runner for breadth, as a process or in a terminal where it counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from agent_meter_mcp.cli.program import program


class Ran(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No variable of the machine's, and a ledger in a scratch folder."""
    for name in [name for name in os.environ if name.startswith("AGENT_METER_")]:
        monkeypatch.delenv(name)
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AGENT_METER_DB", str(tmp_path / "meter.db"))
    monkeypatch.setenv("AGENT_METER_PRICES", str(tmp_path / "prices.toml"))
    monkeypatch.setenv("AGENT_METER_SECRETS", str(tmp_path / "secrets.toml"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USER", "olga")
    return tmp_path


@pytest.fixture
def run() -> Run:
    """Runs a command in this process. A word that is expected to go wrong is told by its exit code."""

    def call(*arguments: str, typed: str | None = None) -> Ran:
        result = CliRunner().invoke(program, list(arguments), input=typed)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture
def ok(run: Run) -> Run:
    """As `run`, for what has to succeed."""

    def call(*arguments: str) -> Ran:
        ran = run(*arguments)
        assert ran.code == 0, ran
        return ran

    return call


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}


def process(*arguments: str, **variables: str) -> Ran:
    """Runs a command as a script does: a process of its own, with pipes."""
    done = subprocess.run(
        [sys.executable, "-m", "agent_meter_mcp", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(**variables),
    )
    return Ran(done.returncode, done.stdout, done.stderr)
