"""What paints its own lines paints what Textual would, and nothing that has not changed."""

from __future__ import annotations

from typing import ClassVar

import pytest
from rich.text import Text
from textual._styles_cache import StylesCache
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from agent_meter_mcp.core.text import shown
from tests.tui.test_words import HOSTILE
from tui.footer import Keys
from tui.table import Column, LineTable
from tui.view import Cell, Row
from tui.words import Told, Words

COLUMNS = (Column("Name", 0), Column("Figure", 6, right=True))


class Shown(App[None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "note('a')", "First"),
        Binding("b,c", "note('b')", "Second"),
        Binding("h", "note('h')", "Hidden", show=False),
        Binding("z", "off", "Grey"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[str] = []

    def compose(self) -> ComposeResult:
        yield Words(id="words")
        yield Told(id="told")
        yield LineTable(COLUMNS, id="table")
        yield Keys()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return None if action == "off" else True

    def action_note(self, key: str) -> None:
        self.noted.append(key)

    def action_off(self) -> None:
        self.noted.append("z")

    @property
    def words(self) -> Words:
        return self.query_one(Words)

    @property
    def table(self) -> LineTable:
        return self.query_one(LineTable)


def painted(widget: Widget) -> list[Strip]:
    return widget.render_lines(_all_of(widget))


def _all_of(widget: Widget) -> Region:
    """What the screen asks for: all but the scrollbar, which is a widget of its own."""
    return Region(0, 0, *widget.scrollable_content_region.size)


def rows_of(count: int, figure: str = "1") -> list[Row]:
    return [Row(str(number), (Cell(f"name {number}"), Cell(figure, "alarm"))) for number in range(count)]


async def test_a_text_that_changes_twice_while_it_is_laid_out_has_room() -> None:
    async with Shown().run_test() as pilot:
        told = pilot.app.query_one(Told)
        told.update("one")
        pilot.app.screen._refresh_layout()  # pyright: ignore[reportPrivateUsage] - another widget has asked for it
        told.update("one\ntwo")
        await pilot.pause()
        assert told.size.height == 2


async def test_the_last_row_is_seen_that_was_gone_to_before_there_is_a_scrollbar() -> None:
    async with Shown().run_test() as pilot:
        app = pilot.app
        assert isinstance(app, Shown)
        app.table.show(rows_of(60))
        app.table.action_edge(True)
        await pilot.pause()
        assert app.table.cursor == 59
        assert app.table.scroll_offset.y > 60 - app.table.size.height


async def test_words_that_change_while_they_are_laid_out_have_room() -> None:
    async with Shown().run_test() as pilot:
        app = pilot.app
        assert isinstance(app, Shown)
        app.words.update("one")
        app.screen._refresh_layout()  # pyright: ignore[reportPrivateUsage] - another widget has asked for it
        assert app.words.size.height == 1
        app.words.update("one\ntwo\nthree")
        await pilot.pause()
        assert app.words.size.height == 3


@pytest.mark.parametrize("no_color", [False, True])
@pytest.mark.parametrize("count", [0, 3, 40])
async def test_a_table_paints_as_textual_would(
    count: int, no_color: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    app = Shown()
    async with app.run_test(size=(40, 14)) as pilot:
        app.table.show([Row(name, (Cell(shown(name)), Cell("1"))) for name in HOSTILE] + rows_of(count))
        await pilot.pause()
        for key in ("down", "end", "pageup"):
            await pilot.press(key)
            ours = painted(app.table)
            app.table.refresh()
            theirs = ScrollView.render_lines(app.table, _all_of(app.table))
            assert [list(strip.simplify()) for strip in ours] == [list(strip.simplify()) for strip in theirs]
        app.table.styles.opacity = 0.5
        await pilot.pause()
        assert [list(strip) for strip in painted(app.table)] != [list(strip) for strip in theirs]


async def test_only_rows_that_have_changed_are_painted_again() -> None:
    app = Shown()
    async with app.run_test(size=(40, 14)) as pilot:
        app.table.show(rows_of(5))
        await pilot.pause()
        before = painted(app.table)
        app.table.show([*rows_of(3), *rows_of(5, "2")[3:]])
        after = painted(app.table)
        assert [one is other for one, other in zip(before[:6], after[:6], strict=True)] == [
            True, False, True, True, False, False,  # the header; the cursor's row is always painted
        ]  # fmt: skip
        app.table.show(rows_of(4))  # fewer rows: the last one is blank now
        assert painted(app.table)[5].text.strip() == ""
        assert painted(app.table)[4].text.rstrip().endswith("1")


async def test_words_are_painted_line_by_line_and_laid_out_by_their_number() -> None:
    app = Shown()
    async with app.run_test(size=(20, 14)) as pilot:
        app.words.update(Text("one\n").append("two", "bold red"))
        await pilot.pause()
        assert app.words.region.height == 2
        before = painted(app.words)
        assert [strip.text.rstrip() for strip in before] == ["one", "two"]
        app.words.update(Text("one\n").append("two", "bold blue"))
        after = painted(app.words)
        assert (before[0] is after[0], before[1] is after[1]) == (True, False)
        app.words.update("a line that is longer than the screen\n2\n3")
        await pilot.pause()
        lines = [strip.text for strip in painted(app.words)]
        assert lines == ["a line that is long…", f"{'2':20}", f"{'3':20}"]
        app.words.update("")
        await pilot.pause()
        assert (app.words.region.height, app.words.plain) == (0, "")


@pytest.mark.parametrize("no_color", [False, True])
async def test_words_are_painted_as_textual_would(no_color: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    app = Shown()
    async with app.run_test(size=(30, 14)) as pilot:
        app.words.styles.padding = (0, 2)
        lines = [
            Text("in one style", "bold red"),
            Text("dim", "dim"),
            Text("in ").append("two", "reverse"),
            Text("a line that is longer than the screen is wide"),
            *(Text(shown(text)) for text in HOSTILE[:6]),
        ]
        for words in (Text("\n").join(lines), Text("plain\nwords\n\n"), Text("all\nof one", "italic")):
            app.words.update(words)
            await pilot.pause()
            ours = painted(app.words)
            theirs = StylesCache().render_widget(app.words, _all_of(app.words))
            assert [_cells(strip) for strip in ours] == [_cells(strip) for strip in theirs]
        styles = [str(segment.style) for segment in painted(app.words)[1]]
        assert any("italic" in style for style in styles)


async def test_lines_are_painted_anew_when_their_styles_change() -> None:
    app = Shown()
    async with app.run_test(size=(30, 14)) as pilot:
        app.words.update("words")
        app.table.show(rows_of(3))
        await pilot.pause()
        before = [_cells(strip) for strip in painted(app.words) + painted(app.table)]
        app.theme = "textual-light"
        await pilot.pause()
        after = [_cells(strip) for strip in painted(app.words) + painted(app.table)]
        assert all(one != other for one, other in zip(before, after, strict=True))


def _cells(strip: Strip) -> list[tuple[str, str]]:
    """Letter by letter, with what is seen of its style: of a blank only what lies behind it."""
    found: list[tuple[str, str]] = []
    for text, style, _ in strip:
        plain = None if style is None else style.clear_meta_and_links()
        behind = None if plain is None else plain.color if plain.reverse else plain.bgcolor
        found += [(letter, str(plain if letter.strip() else behind)) for letter in text]
    return found


@pytest.mark.parametrize("text", HOSTILE)
async def test_words_stay_within_their_width(text: str) -> None:
    app = Shown()
    async with app.run_test(size=(20, 14)) as pilot:
        app.words.update(shown(text))
        await pilot.pause()
        assert {strip.cell_length for strip in painted(app.words)} == {20}


async def test_words_can_be_selected_and_copied() -> None:
    app = Shown()
    async with app.run_test(size=(30, 14)) as pilot:
        app.words.update("alpha beta\ngamma delta")
        await pilot.pause()
        await pilot.mouse_down("#words", offset=(6, 0))
        await pilot.hover("#words", offset=(4, 1))
        await pilot.mouse_up("#words", offset=(4, 1))
        await pilot.pause()
        assert app.screen.get_selected_text() == "beta\ngamma"
        strip = painted(app.words)[0]
        assert len({str(segment.style and segment.style.bgcolor) for segment in strip}) == 2


async def test_the_footer_has_a_key_for_each_action_and_a_click_presses_it() -> None:
    app = Shown()
    async with app.run_test(size=(60, 14)) as pilot:
        await pilot.pause()
        line = painted(app.query_one(Keys))[0].text
        assert line.split() == ["a", "First", "b", "Second", "z", "Grey"]
        for word in ("First", "Second", "Grey"):
            await pilot.click(Keys, offset=(line.index(word), 0))
        await pilot.click(Keys, offset=(58, 0))
        await pilot.pause()
        assert app.noted == ["a", "b"]
