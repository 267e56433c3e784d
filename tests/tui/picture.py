"""A screen as text: what is written, and below it which of the words say a state, by the theme's own colours.

✖ OVER     a letter under each word that is an alarm (a), a warning (w), good (g), held (h), muted (.) or
aaaaaa     of the dashboard's first colour (p); the words under the cursor are the same on another ground.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import anyio
from rich.cells import cell_len
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode
from syrupy.location import PyTestLocation
from textual.color import Color
from textual.pilot import Pilot
from textual.screen import ModalScreen

from tui.app import Dashboard

LETTERS = {
    "text-error": "a", "text-warning": "w", "text-success": "g", "text-secondary": "h", "text-muted": ".",
    "text-primary": "p",
}  # fmt: skip
WAIT_S = 30


class Pictures(SingleFileSnapshotExtension):
    """One file for each screen and size, in `pictures`."""

    _write_mode = WriteMode.TEXT
    file_extension = "txt"

    @classmethod
    def dirname(cls, *, test_location: PyTestLocation) -> str:
        return str(Path(test_location.filepath).parent / "pictures" / test_location.basename)


def painted(app: Dashboard) -> list[list[Any]]:
    """What goes to the terminal, line by line, as segments."""
    strips: Any = app.screen._compositor.render_strips()  # pyright: ignore[reportPrivateUsage] - there is no other way
    return [list(strip) for strip in strips]


async def settled(pilot: Pilot[None], text: str) -> list[list[Any]]:
    """What is painted when that is there and nothing moves any more."""
    app: Any = pilot.app
    before: list[list[Any]] = []
    with anyio.move_on_after(WAIT_S):
        while True:
            await pilot.pause(0.1)
            now = painted(app)
            if now == before and text in text_of(now):
                return now
            before = now
    raise AssertionError(f"{text!r} is not there, or something moves:\n{text_of(before)}")


def text_of(lines: list[list[Any]]) -> str:
    return "\n".join("".join(word(segment) for segment in line).rstrip() for line in lines)


def word(segment: Any) -> str:
    """How old it is depends on the machine."""
    return re.sub(r"STALE \d+ s", "STALE 7 s", segment.text)


def picture_of(app: Dashboard, lines: list[list[Any]]) -> str:
    """The text, and beneath it the lines of states that have any."""
    colours = {app.theme_variables[name].lower(): letter for name, letter in LETTERS.items()}
    states = [
        f"{number:>3} {''.join(_letters(segment, colours) for segment in line).rstrip()}"
        for number, line in enumerate(lines, 1)
    ]
    return "\n".join([text_of(lines), "", *[line for line in states if line.strip(" 0123456789")], ""])


def _letters(segment: Any, colours: dict[str, str]) -> str:
    colour = None if segment.style is None or segment.style.color is None else segment.style.color
    name = "" if colour is None or colour.triplet is None else colour.triplet.hex.lower()
    letter = colours.get(name, " ")
    return "".join(" " if char == " " else letter * cell_len(char) for char in word(segment))


def faintest(app: Dashboard, lines: list[list[Any]]) -> tuple[float, str]:
    """The word that is told from its ground the least, and by how much (WCAG 2).

    Frames are no words, and what lies behind a dialog is not to be read.
    """
    screen = app.screen
    region = screen.children[0].region if isinstance(screen, ModalScreen) else screen.region
    found = (21.0, "")
    for line in lines[region.y : region.bottom]:
        x = 0
        for text, style, _ in line:
            is_in, x = region.x <= x < region.right, x + cell_len(text)
            if is_in and style is not None and style.color and style.bgcolor and re.search(r"\w", text):
                told = contrast(Color(*style.color.get_truecolor()), Color(*style.bgcolor.get_truecolor()))
                found = min(found, (told, text))
    return found


def luminance(colour: Color) -> float:
    parts = [
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in colour.normalized
    ]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one: Color, other: Color) -> float:
    """As WCAG 2 has it: 1 to 21."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)
