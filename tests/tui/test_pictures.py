"""Every screen as it is painted, at two sizes, dark, light and without colours.

The pictures are in `pictures`, a file for each screen and size: `pytest tests/tui/test_pictures.py
--snapshot-update` draws them anew; look at what has changed before it is committed.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot
from textual.widgets import Input

from agent_meter_mcp import Settings, load_settings, open_ledger
from agent_meter_mcp.sources.local import LocalSource
from tui.app import Dashboard

from .a_day import OLGA, Clock, fill
from .picture import Pictures, faintest, picture_of, settled
from .watching import said, until

SIZES = ((120, 36), (80, 24))
LOOKS = {"dark": ("meter-dark", False), "light": ("meter-light", False), "plain": ("meter-dark", True)}
"""A theme, and whether without its colours."""
DRAWN = Path(__file__).parent / "pictures" / "test_pictures"
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
    ("audit", ("5",), "agent nightly-batch"),
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
    settings: Settings, size: tuple[int, int], theme: str, without_colours: bool, patch: pytest.MonkeyPatch
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
        await local.close()


def is_as_drawn(
    name: str, picture: str, size: tuple[int, int], look: str, snapshot: SnapshotAssertion
) -> None:
    """Dark it is the picture; light it says the same, and without colours the same words."""
    if look == "dark":
        assert snapshot(name=name) == picture
        return
    drawn = (DRAWN / f"test_picture[dark-{size[0]}x{size[1]}][{name}].txt").read_text(encoding="utf-8")
    if look == "light":
        assert picture == drawn, name
    else:
        assert picture.splitlines()[1 : size[1]] == drawn.splitlines()[1 : size[1]], name


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("look", LOOKS)
async def test_picture(
    tmp_path: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    snapshot: SnapshotAssertion,
    size: tuple[int, int],
    look: str,
) -> None:
    monkeypatch.chdir(tmp_path)  # so that the path in a message is the same on every machine
    settings = load_settings({"AGENT_METER_DB": "meter.db", "AGENT_METER_PRICES": "prices.toml"})
    monkeypatch.setattr("tui.app.PAUSES_S", (0.05,))
    async with looking(settings, size, *LOOKS[look], monkeypatch) as (app, pilot):

        async def see(name: str, text: str) -> None:
            for field in app.screen.query(Input):
                field.cursor_blink = False
            lines = await settled(pilot, text)
            faint = faintest(app, lines)
            assert faint[0] >= LEAST.get(name, 4.5), (name, faint)
            is_as_drawn(name, picture_of(app, lines), size, look, snapshot)

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
        await settled(pilot, "The ledger meter.db is gone")
        # As many digits on a slow machine: what follows them in the title is cut at the edge.
        app.looked = app.looked.replace(at_s=time.monotonic() - 100)
        await until(pilot, lambda: "STALE 10" in said(app, "#title"))
        await see("stale", "The ledger meter.db is gone")


def _remove(settings: Settings) -> None:
    for file in Path(settings.db).parent.glob("meter.db*"):
        file.unlink()
