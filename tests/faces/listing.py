"""The tools as a client sees them, one JSON file each: `python -m tests.faces.listing` writes the files anew.

A change in them is a change of the public contract: read it as the model that has to choose a tool.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.faces.mcp.server import TOOLS
from agent_meter_mcp.faces.mcp.tools import MeterTool

NO_LEDGER: Any = None
"""Listing asks none."""
FOLDER = Path(__file__).parent / "snapshots"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for definition in TOOLS:
        tool = MeterTool.of(definition, NO_LEDGER, lambda _: Caller("operator", "nobody"), "UTC")
        assert tool.annotations is not None
        listed = {
            "name": tool.name,
            "title": tool.title,
            "description": tool.description,
            "inputSchema": tool.parameters,
            "outputSchema": tool.output_schema,
            "annotations": tool.annotations.model_dump(by_alias=True, exclude_none=True),
        }
        text = json.dumps(listed, indent=2, ensure_ascii=False) + "\n"
        (FOLDER / f"{tool.name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
