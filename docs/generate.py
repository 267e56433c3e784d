"""Writes the generated parts of README.md: `python docs/generate.py`, or with `--check` only compares."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from agent_meter_mcp.faces.mcp.server import TOOLS
from agent_meter_mcp.settings import settings_table

README = Path(__file__).parent.parent / "README.md"


def tools() -> str:
    """A row for each tool: its name, what it does, whether it changes anything."""
    rows = ["| tool | | changes something |", "|---|---|---|"]
    for tool in TOOLS:
        first = tool.description.replace("|", "/")
        rows.append(f"| `{tool.name}` | {first} | {'no' if tool.annotations.read_only_hint else 'yes'} |")
    return "\n".join(rows)


def settings() -> str:
    """A row for each variable of the environment."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    rows += [
        f"| `{name}` | {f'`{default}`' if default else ''} | {text} |"
        for name, default, text in settings_table()
    ]
    return "\n".join(rows)


def generated(text: str) -> str:
    """The text with its generated parts made anew."""
    for name, made in (("tools", tools()), ("settings", settings())):
        pattern = rf"(<!-- {name}: [^>]*-->\n).*?(<!-- /{name} -->)"
        text = re.sub(
            pattern, lambda found, made=made: f"{found[1]}{made}\n{found[2]}", text, flags=re.DOTALL
        )
    return text


def main() -> int:
    """Exit code 1 when `--check` finds a part that is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit code 1 if something is old"
    )
    check = parser.parse_args().check
    old = README.read_text(encoding="utf-8")
    new = generated(old)
    if not check:
        README.write_text(new, encoding="utf-8")
    return int(check and new != old)


if __name__ == "__main__":
    sys.exit(main())
