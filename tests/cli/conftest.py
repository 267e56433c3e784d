"""The command line on a file of its own: in this process for breadth, as a process where that matters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agent_meter_mcp.cli import main


class Ran(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No variable of the machine's, and a ledger in a scratch folder."""
    for name in [name for name in os.environ if name.startswith("AGENT_METER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AGENT_METER_DB", str(tmp_path / "meter.db"))
    monkeypatch.setenv("AGENT_METER_PRICES", str(tmp_path / "prices.toml"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process."""

    def call(*arguments: str) -> Ran:
        capfd.readouterr()
        code = main(list(arguments))
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return call


def process(*arguments: str, folder: Path) -> Ran:
    """Runs a command as a user does: a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "agent_meter_mcp", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return Ran(done.returncode, done.stdout, done.stderr)
