"""Writes what the README says about the code from the code: `python docs/generate.py`.

With `--check` nothing is written, and the exit code is 1 if something would be. With `--picture` the demo
runs, and what it shows becomes docs/demo.svg; and the dashboard looks at a month of `agent-meter demo`:
that is docs/dashboard.svg.
"""

from __future__ import annotations

import argparse
import difflib
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
DEMO = README.with_name("demo.py")
PICTURE = Path(__file__).with_name("demo.svg")
SHOWN = {
    "dashboard": ("g",),
    "dashboard-agent": ("enter",),
    "dashboard-limits": ("escape", "2"),
    "dashboard-services": ("3",),
}
"""Pictures of the dashboard, and the keys that lead to each from the one before."""
SEED, AGENTS, EVENTS, UNTIL_US = 7, 12, 6000, 1_781_532_000_000_000
"""The month ends on Monday, 15 June 2026, 14:00 UTC."""
FONTS = "ui-monospace, Menlo, Consolas, DejaVu Sans Mono"
COLUMNS = 110
BLOCK = re.compile(r"(<!-- (\w+): made by docs/generate\.py -->\n).*?(<!-- /\2 -->)", re.DOTALL)


def tools() -> str:
    """The 13 tools: arguments, required ones in bold, and what a model reads about them."""
    from agent_meter_mcp.faces.mcp.server import TOOLS
    from agent_meter_mcp.faces.wire.arguments import AmountsArguments, DetailArguments, WhoArguments
    from agent_meter_mcp.faces.wire.queries import FilterArguments

    filters = tuple(name for name in FilterArguments.model_fields if name not in ("since", "until"))
    groups = {
        "*who*": tuple(WhoArguments.model_fields),
        "*amounts*": tuple(AmountsArguments.model_fields),
        "*details*": tuple(DetailArguments.model_fields),
        "*filters*": filters,
    }
    order = list(groups)
    lines = ["| tool | arguments | what it is for |", "|---|---|---|"]
    for tool in TOOLS:
        fields = tool.arguments.model_fields
        names = [f"**`{name}`**" if field.is_required() else f"`{name}`" for name, field in fields.items()]
        for group, members in groups.items():
            written = [f"`{member}`" for member in members]
            if set(written) <= set(names):
                names[names.index(written[0])] = group
                names = [name for name in names if name not in written]
        names.sort(key=lambda name: -1 if name.startswith("**") else [*order, name].index(name))
        reads = "<br>reads only" if tool.annotations.read_only_hint else ""
        lines.append(f"| `{tool.name}`{reads} | {', '.join(names)} | {tool.description} |")
    return "\n".join(lines)


def settings() -> str:
    """The environment variables."""
    from agent_meter_mcp.settings import settings_table

    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, default, meaning in settings_table():
        lines.append(f"| `{name}` | {f'`{default}`' if default else ''} | {meaning} |")
    return "\n".join(lines)


def commands() -> str:
    """What `agent-meter --help` says."""
    said = subprocess.run(
        [sys.executable, "-m", "agent_meter_mcp", "--help"],
        cwd=README.parent,
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return f"```text\n{said.stdout.rstrip()}\n```"


PARTS: dict[str, Callable[[], str]] = {"tools": tools, "settings": settings, "commands": commands}


def generated(text: str) -> str:
    """The page with its generated parts as they should be."""

    def fill(block: re.Match[str]) -> str:
        return f"{block[1]}{PARTS[block[2]]()}\n{block[3]}"

    filled = BLOCK.sub(fill, text)
    missing = set(PARTS) - {block[2] for block in BLOCK.finditer(text)}
    if missing:
        raise SystemExit(f"{README.name} has no place for {', '.join(sorted(missing))}")
    return filled


def picture() -> str:
    """The demo's output as an SVG that loads nothing from anywhere."""
    from rich.console import Console
    from rich.terminal_theme import SVG_EXPORT_THEME
    from rich.text import Text

    colourful = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color", "COLORTERM": ""}
    colourful.pop("NO_COLOR", None)
    shown = subprocess.run(
        [sys.executable, str(DEMO), "--fast"], env=colourful, capture_output=True, text=True, check=True
    ).stdout
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(shown.strip("\n")))
    return _alone(console.export_svg(title="python demo.py --fast", theme=SVG_EXPORT_THEME, unique_id="demo"))


def _alone(drawn: str) -> str:
    """A picture that loads no font from anywhere."""
    drawn = re.sub(r"\s*@font-face \{.*?\n    \}", "", drawn, flags=re.DOTALL)
    return drawn.replace("Fira Code", FONTS)


def screens() -> dict[str, str]:
    """The dashboard at 120x36 over the demo's month, by the names of the pictures."""
    import asyncio
    import tempfile
    from unittest.mock import patch

    from agent_meter_mcp.demo.filling import make
    from agent_meter_mcp.demo.month import Month

    with tempfile.TemporaryDirectory() as folder, patch("time.time_ns", lambda: UNTIL_US * 1000):
        path = str(Path(folder) / "meter.db")
        make(path, Month(SEED, AGENTS, EVENTS, UNTIL_US), SEED, lambda _: None)
        return {name: _alone(drawn) for name, drawn in asyncio.run(_screens_of(path)).items()}


async def _screens_of(path: str) -> dict[str, str]:
    from agent_meter_mcp import load_settings
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.sources.local import LocalSource
    from tui.app import Dashboard

    drawn: dict[str, str] = {}
    for theme, suffix in (("meter-dark", ""), ("meter-light", "-light")):
        source = LocalSource(load_settings({"AGENT_METER_DB": path}), Caller("operator", "you"), "UTC")
        source.where = "~/.agent-meter/meter.db"
        app = Dashboard(source, source, look_s=0.05, theme=theme)
        async with app.run_test(size=(120, 36)) as pilot:
            while app.looked.snapshot is None:
                await pilot.pause(0.05)
            for name, keys in SHOWN.items():
                await pilot.press(*keys)
                await pilot.pause(1)
                drawn[f"{name}{suffix}.svg"] = app.export_screenshot(title="agent-meter dashboard")
        await source.close()
    return drawn


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if something would change"
    )
    parser.add_argument("--picture", action="store_true", help="draw docs/demo.svg and docs/dashboard*.svg")
    options = parser.parse_args()
    if options.picture:
        PICTURE.write_text(picture(), encoding="utf-8")
        for name, drawn in screens().items():
            PICTURE.with_name(name).write_text(drawn, encoding="utf-8")
        return 0
    old = README.read_text(encoding="utf-8")
    new = generated(old)
    if options.check:
        sys.stdout.writelines(
            difflib.unified_diff(old.splitlines(True), new.splitlines(True), "README.md", "as generated")
        )
        return int(old != new)
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
