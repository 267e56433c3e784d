"""(i): a process that records one event and ends, against an interpreter that does nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec

from . import plain
from .measure import Options, Row, at_most, interleave, middle, quotients, timed
from .worker import ROOT

RECORD = """
import sys; sys.path.insert(0, sys.argv[1])
from agent_meter_mcp.core.models import Usage, Who
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.intake import Report
from agent_meter_mcp.oneshot import record
from agent_meter_mcp.settings import load_settings
usage = Usage(input_tokens=1000, output_tokens=200, cost_nano_usd=4_000_000, cost_source="reported")
record(load_settings(), Report(Who("agent-01", "openai"), usage), Caller("operator", "benchmark"))
"""
COMMAND = """
import sys; sys.path.insert(0, sys.argv.pop(1))
from agent_meter_mcp.cli import main
main()
"""
ARGUMENTS = (
    *("record", "--agent", "agent-01", "--service", "openai"),
    *("--input-tokens", "1000", "--output-tokens", "200", "--cost-usd", "0.004"),
)


def run_oneshot(options: Options) -> Iterator[Row]:
    """The library's shortest way, and the command `agent-meter record`."""
    path = options.folder / "oneshot.db"
    plain.new_store(path).close()
    environment = {**os.environ, "AGENT_METER_DB": str(path)}

    def process(code: str, *arguments: str) -> float:
        command = [sys.executable, "-I", "-c", code, *arguments]
        return timed(lambda: subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL))

    sides = {"floor": lambda: process("pass"), "ours": lambda: process(RECORD, str(ROOT))}
    if find_spec("agent_meter_mcp.cli") is not None:
        sides["cli"] = lambda: process(COMMAND, str(ROOT), *ARGUMENTS)
    took = interleave(sides, options.number_of_rounds(25, 15))
    for name, what in (("ours", "a process that records one event"), ("cli", "agent-meter record")):
        if name in took:
            yield Row(
                "i",
                f"{what} / python -I -c pass",
                middle(took[name]),
                middle(took["floor"]),
                quotients(took[name], took["floor"]),
                at_most(2.5) if name == "ours" else None,
            )
