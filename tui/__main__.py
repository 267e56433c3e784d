"""`python -m tui` is `agent-meter dashboard`."""

from __future__ import annotations

import sys

from agent_meter_mcp.cli import main

if __name__ == "__main__":
    sys.exit(main(["dashboard", *sys.argv[1:]]))
