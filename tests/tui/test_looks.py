"""How it looks: colours that can be read, in every terminal; and a face for every state that it can be in."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import anyio
import pytest
from rich.color import Color as Painted
from rich.color import ColorSystem
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from textual.color import Color
from textual.geometry import Region
from textual.strip import Strip
from textual.theme import BUILTIN_THEMES
from textual.widget import Widget

from agent_meter_mcp import Ledger, LimitKey, Settings, Subject, load_settings, open_ledger
from agent_meter_mcp.core.errors import (
    Forbidden,
    MeterError,
    Overloaded,
    StoreBusy,
    Unauthorized,
    Unreachable,
)
from agent_meter_mcp.store.sqlite import driver
from tui import faces, themes
from tui.app import Dashboard

from .picture import contrast, painted
from .watching import OPERATOR, agents, overview, said, screen_text, shows, until, use, watching

STATES = ("text-error", "text-warning", "text-success", "text-secondary", "text-muted", "foreground")
GROUNDS = ("background", "surface", "panel", "boost", "block-cursor-blurred-background")


def in_256(colour: Color) -> Color:
    painted = Painted.from_rgb(*colour.rgb).downgrade(ColorSystem.EIGHT_BIT)
    return Color(*painted.get_truecolor(DEFAULT_TERMINAL_THEME))


@pytest.mark.parametrize("theme", themes.THEMES, ids=lambda theme: theme.name)
def test_what_says_a_state_can_be_read(theme: Any) -> None:
    colours = {**theme.to_color_system().generate(), **theme.variables}
    least = 7.0 if theme is themes.CONTRAST else 4.5
    for state, ground in product(STATES, GROUNDS):
        said_in, on = Color.parse(colours[state]), Color.parse(colours[ground])
        assert contrast(said_in, on) >= least, (state, ground)
        assert contrast(said_in.monochrome, on.monochrome) >= least, (state, ground, "NO_COLOR")
        assert contrast(in_256(said_in), in_256(on)) >= 3.5, (state, ground, "256 colours")
    assert len({colours[state] for state in STATES}) == len(STATES)


@pytest.mark.parametrize(
    ("wanted", "few", "environment", "name"),
    [
        ("", False, {}, "meter-dark"),
        ("auto", False, {"COLORFGBG": "0;15"}, "meter-light"),
        ("auto", False, {"COLORFGBG": "0;default;7"}, "meter-light"),
        ("auto", False, {"COLORFGBG": "15;0"}, "meter-dark"),
        ("auto", False, {"COLORFGBG": "7;8"}, "meter-dark"),
        ("auto", False, {"COLORFGBG": "nonsense"}, "meter-dark"),
        ("auto", True, {}, "ansi-dark"),
        ("auto", True, {"COLORFGBG": "0;15"}, "ansi-light"),
        ("meter-light", True, {"COLORFGBG": "15;0", "TEXTUAL_THEME": "nord"}, "meter-light"),
        ("", False, {"COLORFGBG": "0;15", "TEXTUAL_THEME": "nord"}, "nord"),
        ("", False, {"TEXTUAL_THEME": "of another program"}, "meter-dark"),
    ],
)
def test_which_theme_it_is(wanted: str, few: bool, environment: dict[str, str], name: str) -> None:
    known = [*BUILTIN_THEMES, *(theme.name for theme in themes.THEMES)]
    assert themes.chosen(wanted, known, few=few, environment=environment) == name


@pytest.mark.parametrize(
    "theme", ["meter-dark", "meter-light", "meter-contrast", "ansi-dark", "catppuccin-latte"]
)
@pytest.mark.parametrize("without_colours", [False, True])
async def test_an_alarm_is_told_from_its_ground_in_any_theme(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, theme: str, without_colours: bool
) -> None:
    if without_colours:
        monkeypatch.setenv("NO_COLOR", "1")
    await ledger.set_limit(OPERATOR, LimitKey(Subject("agent", "*"), None, "requests", "total"), 1)
    await use(ledger, "rogue")
    async with watching(settings) as (app, pilot):
        if theme not in app.available_themes:
            assert without_colours  # black on black it would be
            return
        app.theme = theme
        await until(pilot, lambda: shows(app, "✖ OVER"))
        await pilot.pause()
        y = next(y for y, line in enumerate(screen_text(app)) if "✖ OVER" in line)
        alarm = next(
            segment.style
            for segment in painted(app)[y]
            if "OVER" in segment.text and segment.style is not None
        )
        assert alarm.color is not None and alarm.color != alarm.bgcolor
        if theme != "ansi-dark":
            triplets = [part.get_truecolor() for part in (alarm.color, alarm.bgcolor) if part is not None]
            assert contrast(*(Color(*triplet) for triplet in triplets)) >= 4.0


@pytest.mark.parametrize("theme", ["meter-dark", "meter-light", "ansi-dark", "nord"])
async def test_the_row_under_the_cursor_is_told_from_others(
    settings: Settings, ledger: Ledger, theme: str
) -> None:
    await use(ledger, "one", 2)
    await use(ledger, "two")

    def ground(app: Dashboard, row: str) -> object:
        (line,) = (line for line in painted(app) if any(f"{row}  " in segment.text for segment in line[:3]))
        return line[1].style.bgcolor, bool(line[1].style.reverse)

    async with watching(settings, theme=theme) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["one", "two"])
        await until(pilot, lambda: shows(app, "▌one"))
        led = ground(app, "one")
        assert led != ground(app, "two")
        await pilot.press("j")
        assert led == ground(app, "two") != ground(app, "one")
        await pilot.press("f")  # its colour says as well that it has not the focus
        assert led != ground(app, "two")


async def test_what_is_painted_has_the_colours_of_the_theme_that_is_chosen(
    settings: Settings, ledger: Ledger
) -> None:
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: shows(app, "▌coder"))
        purple = {**themes.DARK.variables, "text-muted": "#ff00ff", "footer-key-foreground": "#ff00ff"}
        app.register_theme(replace(themes.DARK, name="purple", variables=purple))
        app.theme = "purple"  # all else is as it was
        for text in ("State", "Time", "⏎"):
            await until(pilot, lambda text=text: colour_of(app, text) == Painted.parse("#ff00ff"))
        app.theme = (
            "nord"  # its dim words are white or black by what lies behind them, and that shines through
        )
        ground = Color.parse("#3b4252")
        dim = (ground + ground.get_contrast_text(0.6)).rich_color
        await until(pilot, lambda: colour_of(app, "State") == dim)


@pytest.mark.parametrize("theme", ["meter-dark", "meter-light", "ansi-dark", "without colours"])
async def test_a_ground_is_painted_as_textual_would(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, theme: str
) -> None:
    if theme == "without colours":
        monkeypatch.setenv("NO_COLOR", "1")
        theme = "meter-dark"
    await use(ledger, "coder")

    def seen(strips: list[Strip]) -> list[tuple[str, object]]:
        return [
            (strip.text, {segment.style and segment.style.bgcolor for segment in strip}) for strip in strips
        ]

    async with watching(settings, theme=theme) as (app, pilot):
        await until(pilot, lambda: shows(app, "▌coder"))
        for one in (app.screen, *app.screen.query("#body, #top, #tables, #beside").results(Widget)):
            for crop in (one.size.region, Region(3, 2, one.size.width - 5, one.size.height - 2)):
                assert seen(one.render_lines(crop)) == seen(Widget.render_lines(one, crop))


# Every state has a face


async def test_the_first_picture_says_why_there_is_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures: list[str] = []
    paint: Any = getattr(Dashboard, "_display")  # noqa: B009 - there is no other way

    def keep(app: Dashboard, *what: object) -> None:
        paint(app, *what)
        if not app._batch_count:  # pyright: ignore[reportPrivateUsage] - what is held back is not painted
            pictures.append("\n".join(screen_text(app)))

    monkeypatch.setattr(Dashboard, "_display", keep)
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: shows(app, "c copies it"))
    first = next(picture for picture in pictures if " meter " in picture)
    assert "There is no ledger yet" in first


async def test_without_a_file_it_says_how_to_begin(settings: Settings) -> None:
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: shows(app, "There is no ledger yet"))
        assert "NO LEDGER YET" in said(app, "#title")
        command = f"agent-meter --db {settings.db} record --agent me --service test"
        assert shows(app, "c copies it")
        await pilot.press("c")
        assert app.clipboard == command


async def test_an_empty_ledger_says_how_to_begin(settings: Settings, ledger: Ledger) -> None:
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: shows(app, "No usage yet"))
        assert "LIVE" in said(app, "#title")
        await pilot.press("2")
        await until(pilot, lambda: shows(app, "No limit is set"))
        await pilot.press("1")
        await use(ledger, "first")
        await until(pilot, lambda: agents(app) == ["first"] and not shows(app, "No usage yet"))
        assert app.focused is overview(app).query_one("#agents")


async def test_a_file_in_a_folder_that_is_not_there(settings: Settings) -> None:
    """Nothing would make a ledger there, so nothing is recommended that fails."""
    async with watching(settings.replace(db=f"{settings.db}-folder/meter.db")) as (app, pilot):
        await until(pilot, lambda: shows(app, "Make it"))
        assert "NO LEDGER YET" not in said(app, "#title")


async def test_a_file_that_is_no_ledger(settings: Settings) -> None:
    await anyio.Path(settings.db).write_bytes(b"not a database at all" * 100)
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: shows(app, "is not a usable database"))
        assert "NO LEDGER" in said(app, "#title")
        assert shows(app, "doctor")
        for number in "2345":
            await pilot.press(number)
            await until(pilot, lambda: shows(app, "is not a usable database"))


async def test_a_ledger_of_a_newer_version(settings: Settings) -> None:
    async with open_ledger(settings) as ledger:
        await use(ledger, "coder")
    connection = driver.connect(settings.db, synchronous="FULL", busy_timeout_s=5)
    connection.execute("PRAGMA user_version = 9999")
    connection.close()
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: shows(app, "A newer version has written this ledger"))
        assert "TOO NEW" in said(app, "#title")


async def test_a_folder_where_the_file_should_be(settings: Settings) -> None:
    await anyio.Path(settings.db).mkdir()
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: app.face is not None and app.face.style == "alarm")
        assert "Traceback" not in "".join(screen_text(app))


async def test_old_data_stay_and_are_marked(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.app.PAUSES_S", (0.02,))
    async with open_ledger(settings) as ledger:
        await use(ledger, "coder", 300)
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        bright = colour_of(app, "$3.00")
        for file in Path(settings.db).parent.glob("meter.db*"):
            file.unlink()
        await until(pilot, lambda: "STALE" in said(app, "#title"))
        await until(pilot, lambda: colour_of(app, "$3.00") != bright)
        assert overview(app).query_one("#trouble").display
        await pilot.press("3")
        await until(pilot, lambda: "STALE" in said_anywhere(app))


def colour_of(app: Dashboard, text: str) -> object:
    return next(
        (segment.style.color for line in painted(app) for segment in line if text in segment.text), None
    )


def said_anywhere(app: Dashboard) -> str:
    return "\n".join(screen_text(app))


async def test_a_pause_is_seen(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        await pilot.press("p")
        await until(pilot, lambda: shows(app, "PAUSED"))


async def test_what_takes_long_to_open_says_so(settings: Settings) -> None:
    async with watching(settings, reader=Slow()) as (app, pilot):
        assert not shows(app, "No usage yet")
        await until(pilot, lambda: shows(app, "Opening"))


async def test_who_may_not_act_sees_which_keys_those_are_and_why(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder")
    async with watching(settings, may_act=False) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        assert "read-only" in said(app, "#title")
        assert app.screen.active_bindings["x"].enabled is False
        await until(pilot, lambda: colour_of(app, "Filter") is not None)
        assert colour_of(app, "Stop") != colour_of(app, "Filter")
        await pilot.press("x")
        await until(pilot, lambda: shows(app, "this dashboard only shows"))


class Fails:
    """A meter elsewhere that answers every question with one error."""

    where = "https://meter.example"

    def __init__(self, error: MeterError) -> None:
        self._error = error

    async def changed(self) -> bool:
        raise self._error

    def __getattr__(self, name: str) -> Any:
        async def answer(*_: object, **__: object) -> object:
            raise self._error

        return answer


class Slow:
    """One that does not answer at all."""

    where = "https://meter.example"

    async def changed(self) -> bool:
        await anyio.sleep_forever()
        return True


@pytest.mark.parametrize(
    ("error", "heading", "title"),
    [
        (Unauthorized("the key was revoked"), "does not accept the key", "KEY REFUSED"),
        (Forbidden("a key of an agent may not see this"), "not for you to see", "NOT ALLOWED"),
        (Unreachable("connection refused"), "does not answer", "NO ANSWER"),
        (Overloaded("ask again in 2 s"), "too much to do", "BUSY"),
        (StoreBusy("the file is locked"), "holds the ledger", "LOCKED"),
        (MeterError("who knows"), "cannot be read", "NO DATA"),
    ],
)
async def test_what_a_meter_elsewhere_answers_has_a_face(
    settings: Settings, error: MeterError, heading: str, title: str
) -> None:
    async with watching(settings, reader=Fails(error)) as (app, pilot):
        await until(pilot, lambda: shows(app, heading))
        assert title in said(app, "#title")
        assert shows(app, str(error))
        no_waiting_ends_it = isinstance(error, Unauthorized | Forbidden)
        assert shows(app, "--key-file FILE") is no_waiting_ends_it
        assert shows(app, "opened by itself") is not no_waiting_ends_it
        await pilot.press("c")
        assert app.clipboard == ""


async def test_a_file_that_another_process_holds_for_itself_is_looked_at_when_it_lets_go(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "meter.db")
    short = load_settings({"AGENT_METER_DB": path, "AGENT_METER_BUSY_TIMEOUT": "0.2"})
    async with open_ledger(short) as ledger:
        await use(ledger, "coder")
    with closing(driver.connect(path, synchronous="NORMAL", busy_timeout_s=1.0)) as holder:
        holder.execute("PRAGMA locking_mode=EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        async with watching(short) as (app, pilot):
            await until(pilot, lambda: shows(app, "Another process holds the ledger"))
            assert "LOCKED" in said(app, "#title")
            holder.execute("COMMIT")
            holder.execute("PRAGMA locking_mode=NORMAL")
            holder.execute("SELECT count(*) FROM event").fetchone()
            await until(pilot, lambda: agents(app) == ["coder"])
            assert "LIVE" in said(app, "#title")


@pytest.mark.parametrize("size", [(59, 15), (40, 10), (20, 5), (10, 3), (2, 1)])
async def test_a_small_terminal_shows_what_it_can(
    settings: Settings, ledger: Ledger, size: tuple[int, int]
) -> None:
    await ledger.set_limit(OPERATOR, LimitKey(Subject("agent", "*"), None, "requests", "total"), 1)
    await use(ledger, "coder")
    async with watching(settings, size=size) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        await pilot.pause()
        if size[0] >= 40:
            assert shows(app, "1 over")
            assert shows(app, "coder") and shows(app, "✖ OVER")
        for key in ("2", "3", "4", "5", "1", "question_mark", "escape", "x", "escape", "enter", "escape"):
            await pilot.press(key)
        await pilot.resize_terminal(120, 36)
        await until(pilot, lambda: shows(app, "q Quit"))


@pytest.mark.parametrize("width", [50, 60, 61, 80])
async def test_no_key_of_the_last_line_is_cut_and_help_is_always_there(
    settings: Settings, ledger: Ledger, width: int
) -> None:
    await use(ledger, "coder")
    async with watching(settings, size=(width, 24)) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        for page in "12345":
            await pilot.press(page)
            await until(pilot, lambda: bool(re.search(r"\? Help  q Quit$", screen_text(app)[-1])))
            keys = re.split(r"  +", screen_text(app)[-1].strip())
            assert all(re.fullmatch(r"\S+ [A-Z][\w/ ]+", key) for key in keys), keys
        await pilot.resize_terminal(120, 24)
        await until(pilot, lambda: "p Pause" in screen_text(app)[-1])


async def test_where_it_is_narrow_the_range_and_what_raises_are_there(
    settings: Settings, ledger: Ledger
) -> None:
    await ledger.set_limit(OPERATOR, LimitKey(Subject("agent", "coder"), None, "cost_usd", "24h"), 1)
    await use(ledger, "coder")
    async with watching(settings, size=(60, 20)) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        assert screen_text(app)[1].endswith("5 Audit  today")
        await pilot.press("2")
        await until(pilot, lambda: shows(app, "agent coder · cost_usd/24h "))
        await pilot.press("plus")
        await until(pilot, lambda: shows(app, "Raise (y)"))
        await pilot.press("escape")
        await pilot.press("question_mark")
        await until(pilot, lambda: shows(app, "Moving"))
        lines = [line.strip(" │▌") for line in screen_text(app)]
        assert "n" in {line.split(" ")[0] for line in lines}
        (place,) = [place for place, line in enumerate(lines) if line.startswith("n   ")]
        began = screen_text(app)[place].index("a new limit")
        assert screen_text(app)[place + 1][began:].startswith("whom it would bind")


# What it is called in a command


@pytest.mark.parametrize(
    ("where", "command"),
    [
        ("~/.agent-meter/meter.db", "agent-meter doctor"),
        ("/tmp/a b.db", "agent-meter --db '/tmp/a b.db' doctor"),
        ("~/it's.db", """agent-meter --db ~/'it'"'"'s.db' doctor"""),
        ("/tmp/$(reboot).db", "agent-meter --db '/tmp/$(reboot).db' doctor"),
        ("https://meter.example", ""),
        ("/tmp/a\x1bb.db", ""),
    ],
)
def test_a_recommended_command_can_be_typed(where: str, command: str) -> None:
    assert faces.trouble("store_unusable", "it is not", where).command == command
