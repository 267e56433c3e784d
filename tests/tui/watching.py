"""A dashboard on a real file, driven by real keys; what it paints, and what the ledger says."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Static

from agent_meter_mcp import Caller, Ledger, Report, Settings, Usage, Who
from agent_meter_mcp.sources.local import LocalSource
from tui.app import Dashboard
from tui.overview import Overview
from tui.table import LineTable
from tui.words import Words

OPERATOR = Caller("operator", "olga")
WAIT_S = 30
LOOK_S = 0.1
"""Textual's pilot waits after each key until the process does nothing, and longer for faster looks."""
CENT = 10_000_000


async def use(ledger: Ledger, agent: str, cents: int = 1, service: str = "api") -> None:
    usage = Usage(input_tokens=100, cost_nano_usd=cents * CENT, cost_source="reported")
    await ledger.record(OPERATOR, Report(Who(agent, service), usage, operation="chat"))


@asynccontextmanager
async def watching(
    settings: Settings,
    *,
    may_act: bool = True,
    size: tuple[int, int] = (120, 36),
    reader: Any = None,
    operator: Any = None,
    theme: str = "meter-dark",
    **options: Any,
) -> AsyncGenerator[tuple[Dashboard, Pilot[None]]]:
    """`reader` None looks at the file that the settings name, `operator` None acts on it."""
    local = LocalSource(settings, OPERATOR, "UTC")
    acts = (operator or local) if may_act else None
    app = Dashboard(reader or local, acts, look_s=LOOK_S, theme=theme, **options)
    try:
        async with app.run_test(size=size, notifications=True) as pilot:
            await until(pilot, lambda: app.screen.size == app.size)  # there is nothing to see before
            yield app, pilot
    finally:
        await local.close()


async def until(pilot: Pilot[None], holds: Callable[[], bool]) -> None:
    with anyio.move_on_after(WAIT_S):
        while not holds():
            await pilot.pause(0.02)
        return
    text = "\n".join(screen_text(pilot.app))
    raise AssertionError(f"it does not come to hold:\n{text}")


def overview(app: Dashboard) -> Overview:
    (screen,) = (screen for screen in app.screen_stack if isinstance(screen, Overview))
    return screen


def agents(app: Dashboard) -> list[str]:
    return [row.key for row in overview(app).query_one("#agents", LineTable).rows]


def feed(app: Dashboard) -> list[str]:
    return [
        " ".join(cell.text for cell in row.cells) for row in overview(app).query_one("#feed", LineTable).rows
    ]


def said(app: Dashboard, where: str) -> str:
    """ "" where nothing was to be said so far."""
    widget = next(iter(overview(app).query(where)), None)
    if widget is None:
        return ""
    if isinstance(widget, Words):
        return widget.plain
    assert isinstance(widget, Static)
    return str(widget.content)


def screen_text(app: App[Any]) -> list[str]:
    """What is painted, line by line."""
    strips: Any = app.screen._compositor.render_strips()  # pyright: ignore[reportPrivateUsage] - there is no other way
    return ["".join(segment.text for segment in strip).rstrip() for strip in strips]


def shows(app: Dashboard, text: str) -> bool:
    return any(text in line for line in screen_text(app))


def notes(app: Dashboard, text: str) -> bool:
    """Whether a notice says that: on the screen it may be broken over lines."""
    notices: Any = app._notifications  # pyright: ignore[reportPrivateUsage] - there is no other way
    return any(text in notice.message for notice in notices)


async def until_told(pilot: Pilot[None], told: Callable[[], Awaitable[bool]]) -> None:
    """As `until`, for what the ledger has to say."""
    with anyio.fail_after(WAIT_S):
        while not await told():
            await pilot.pause(0.02)
