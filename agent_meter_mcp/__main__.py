"""`python -m agent_meter_mcp` is `agent-meter`."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
