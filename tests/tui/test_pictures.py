"""Every screen as it is painted, at two sizes, dark, light and without colours.

The pictures are in `pictures`, a file for each screen and size: `pytest tests/tui/test_pictures.py
--snapshot-update` draws them anew; look at what has changed before it is committed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot
from textual.widgets import Input

from agent_meter_mcp import Settings, load_settings, open_ledger
from agent_meter_mcp.sources.local import LocalSource
from tui.app import Dashboard

from .a_day import OLGA, Clock, fill
from .picture import Pictures, faintest, picture_of, settled, text_of

SIZES = ((120, 36), (80, 24))
LOOKS = (("meter-dark", False), ("meter-light", False), ("meter-dark", True))
LEAST = {"stale": 3.4}
"""What is old is fainter, and still more than large words need (3)."""
WALK: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("agents", ("g",), "▌▾ planner"),
    ("agents-filtered", ("slash", *"cost>2", "enter"), "filter"),
    ("confirm", ("escape", "x"), "Cancel"),
    ("agent-limits", ("escape", "l"), "a new limit for"),
    ("agent", ("escape", "enter"), "first seen"),
    ("agent-edit", ("e",), "tier"),
    ("help", ("escape", "escape", "question_mark"), "Moving"),
    ("event", ("escape", "f", "enter"), "what became of it"),
    ("limits", ("escape", "2"), "coder-a"),
    ("limit-new", ("n",), "At most"),
    ("limit-raise", ("escape", "plus"), "+10 %"),
    ("services", ("escape", "3"), "scraper"),
    ("service", ("enter",), "chat"),
    ("sessions", ("escape", "4"), "refactor"),
    ("audit", ("5",), "engage_kill_switch"),
)
"""The name of a picture, the keys that lead there from the one before, and what is to be seen."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    for name in ("NO_COLOR", "COLORFGBG", "TEXTUAL_THEME", "COLUMNS", "LINES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    return Clock(monkeypatch)


@pytest.fixture
def snapshot(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    return snapshot.use_extension(Pictures)


@asynccontextmanager
async def looking(
    settings: Settings, size: tuple[int, int], theme: str, patch: pytest.MonkeyPatch, without_colours: bool
) -> AsyncGenerator[tuple[Dashboard, Pilot[None]]]:
    if without_colours:
        patch.setenv("NO_COLOR", "1")
    local = LocalSource(settings, OLGA, "UTC")
    local.where = "~/.agent-meter/meter.db"
    app = Dashboard(local, local, look_s=0.05, theme=theme)
    try:
        async with app.run_test(size=size, notifications=True) as pilot:
            yield app, pilot
    finally:
        patch.delenv("NO_COLOR", raising=False)
        await local.close()


Seen = dict[str, tuple[str, list[list[Any]], tuple[float, str]]]
Walk = Callable[[Dashboard, Pilot[None]], Awaitable[Seen]]


async def is_as_drawn(
    settings: Settings,
    size: tuple[int, int],
    patch: pytest.MonkeyPatch,
    snapshot: SnapshotAssertion,
    walk: Walk,
) -> None:
    """Dark it is the picture; light and without colours it says the same, and can be read."""
    drawn: dict[str, str] = {}
    for theme, without_colours in LOOKS:
        async with looking(settings, size, theme, patch, without_colours) as (app, pilot):
            for name, (picture, lines, faint) in (await walk(app, pilot)).items():
                assert faint[0] >= LEAST.get(name, 4.5), (name, theme, without_colours, faint)
                if without_colours:
                    assert text_of(lines).splitlines()[1:] == drawn[name].splitlines()[1 : size[1]], name
                elif name in drawn:
                    assert picture == drawn[name], name
                else:
                    drawn[name] = picture
    for name, picture in drawn.items():
        assert snapshot(name=name) == picture


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_picture(
    tmp_path: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    snapshot: SnapshotAssertion,
    size: tuple[int, int],
) -> None:
    monkeypatch.chdir(tmp_path)  # so that the path in a message is the same on every machine
    settings = load_settings({"AGENT_METER_DB": "meter.db", "AGENT_METER_PRICES": "prices.toml"})
    monkeypatch.setattr("tui.app.PAUSES_S", (0.05,))

    async def walk(app: Dashboard, pilot: Pilot[None]) -> Seen:
        seen: Seen = {}

        async def see(name: str, text: str) -> None:
            for field in app.screen.query(Input):
                field.cursor_blink = False
            lines = await settled(pilot, text)
            seen[name] = (picture_of(app, lines), lines, faintest(app, lines))

        _remove(settings)
        await pilot.press("r")
        await see("nothing-there", "There is no ledger yet")
        async with open_ledger(settings):
            pass
        await see("empty", "No usage yet")
        await fill(settings, clock)
        await pilot.press("r")
        await settled(pilot, "nightly-batch")
        for name, keys, text in WALK:
            await pilot.press(*keys)
            await see(name, text)
        await pilot.press("1")
        _remove(settings)
        await see("stale", "STALE")
        return seen

    await is_as_drawn(settings, size, monkeypatch, snapshot, walk)


def _remove(settings: Settings) -> None:
    for file in Path(settings.db).parent.glob("meter.db*"):
        file.unlink()
