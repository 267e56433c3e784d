"""What stands where there is nothing to show: what is wrong, and how to put it right. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_meter_mcp.core.text import shown
from agent_meter_mcp.core.value import Value

if TYPE_CHECKING:
    from .view import Style

USUAL = "~/.agent-meter/meter.db"
WAITING = "It is opened by itself as soon as that has changed; r looks again now."
NOTHING_THERE = (
    "Nothing is at {where}. The first agent that uses the server makes a ledger there, and so does:"
)


class Face(Value):
    """`title` is for the line on top; `command` puts it right, and can be copied."""

    title: str
    style: Style
    heading: str
    text: str
    command: str = ""
    after: str = ""


_FACES: dict[str, tuple[str, Style, str]] = {
    "not_found": ("NO LEDGER YET", "warn", "There is no ledger yet"),
    "store_busy": ("LOCKED", "warn", "Another process holds the ledger"),
    "store_full": ("DISK FULL", "alarm", "The disk is full"),
    "store_read_only": ("NO ACCESS", "alarm", "The ledger cannot be opened"),
    "store_unusable": ("NO LEDGER", "alarm", "There is no ledger that could be used"),
    "store_too_new": ("TOO NEW", "alarm", "A newer version has written this ledger"),
    "unauthorized": ("KEY REFUSED", "alarm", "The meter does not accept the key"),
    "forbidden": ("NOT ALLOWED", "alarm", "This is not for you to see"),
    "unreachable": ("NO ANSWER", "alarm", "The meter does not answer"),
    "overloaded": ("BUSY", "warn", "The meter has too much to do"),
}
REFUSALS = ("unauthorized", "forbidden")
"""What no waiting ends."""
OTHER_KEY = "Start it again with the right key: --key-file FILE, or in AGENT_METER_KEY."
_UNKNOWN: tuple[str, Style, str] = ("NO DATA", "alarm", "The ledger cannot be read")
FIRST_RECORD = "record --agent me --service test"
_COMMANDS = {"not_found": FIRST_RECORD, "store_unusable": "doctor", "store_read_only": "doctor"}
"""What finds out more, or puts it right."""


def opening(where: str) -> Face:
    return Face("opening", "dim", "Opening", shown(where))


def trouble(code: str, message: str, where: str) -> Face:
    """Of an error's code and what it says."""
    title, style, heading = _FACES.get(code, _UNKNOWN)
    command = _command(where, _COMMANDS[code]) if code in _COMMANDS else ""
    text = NOTHING_THERE.format(where=shown(where)) if code == "not_found" and command else shown(message)
    return Face(title, style, heading, text, command, OTHER_KEY if code in REFUSALS else WAITING)


def empty(where: str) -> Face:
    """A ledger in which nobody has recorded anything."""
    command = _command(where, FIRST_RECORD)
    text = (
        "Register the server with an agent, and all that it uses is shown here. To see how that looks, record"
        " something yourself:"
        if command
        else "Point an agent at this meter, and all that it uses is shown here."
    )
    return Face("● LIVE", "good", "No usage yet", text, command)


def _command(where: str, rest: str) -> str:
    """Nothing for a meter that is elsewhere, or a path that cannot be typed."""
    if "://" in where or not where.isprintable():
        return ""
    from shlex import quote

    home, path = ("~/", where[2:]) if where.startswith("~/") else ("", where)
    return f"agent-meter {rest}" if where == USUAL else f"agent-meter --db {home}{quote(path)} {rest}"
