"""The dashboard's own colours: what says how an agent stands can be read on everything that it is written on.

So it is in 256 and in 16 colours, and in the greys that are left where NO_COLOR is set.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from textual.theme import BUILTIN_THEMES, Theme

from agent_meter_mcp.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

AUTO = "auto"
_LIGHT_FROM = 7
"""Of the 16 colours of a terminal, this one and the bright ones are light; 8 is a dark grey."""


def _theme(name: str, *, dark: bool, muted: str, faint: str, boost: str, line: str, **colours: str) -> Theme:
    """Textual mixes `$text-error` and its kind from the colours; here they are the colours themselves."""
    return Theme(
        name,
        **colours,  # pyright: ignore[reportArgumentType] - they are all colours
        boost=boost,
        dark=dark,
        variables={
            "boost": boost,
            "block-cursor-blurred-background": line,
            "text-primary": colours["primary"],
            "text-secondary": colours["secondary"],
            "text-warning": colours["warning"],
            "text-error": colours["error"],
            "text-success": colours["success"],
            "text-accent": colours["accent"],
            "text-muted": muted,
            "text-disabled": faint,
            "foreground-muted": muted,
            "foreground-disabled": faint,
            "border-blurred": faint,
            "footer-key-foreground": colours["accent"],
            "footer-description-foreground": muted,
            "button-color-foreground": colours["background"],
            "block-cursor-background": colours["primary"],
            "block-cursor-foreground": colours["background"],
            "input-selection-background": boost,
        },
    )


DARK = _theme(
    "meter-dark",
    dark=True,
    primary="#79b8ff",
    secondary="#d2a8ff",
    warning="#e3b341",
    error="#ff8a80",
    success="#7ee08a",
    accent="#79b8ff",
    foreground="#d7dce3",
    background="#111316",
    surface="#111316",
    panel="#20242a",
    boost="#24282e",
    line="#33383f",
    muted="#9aa4b1",
    faint="#66707d",
)
LIGHT = _theme(
    "meter-light",
    dark=False,
    primary="#0a4fa0",
    secondary="#6a2aa5",
    warning="#7a4600",
    error="#a8101b",
    success="#0f5c28",
    accent="#0a4fa0",
    foreground="#1f242b",
    background="#fafaf8",
    surface="#fafaf8",
    panel="#e3e6ea",
    boost="#e3e5e8",
    line="#cfd4da",
    muted="#4d5663",
    faint="#7d8693",
)
CONTRAST = _theme(
    "meter-contrast",
    dark=True,
    primary="#9fd0ff",
    secondary="#e2c6ff",
    warning="#ffd866",
    error="#ffa39b",
    success="#8dff9a",
    accent="#9fd0ff",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#161616",
    boost="#1c1c1c",
    line="#2a2a2a",
    muted="#cfcfcf",
    faint="#9a9a9a",
)
THEMES = (DARK, LIGHT, CONTRAST)
_VARIABLES = {
    "alarm": "text-error",
    "warn": "text-warning",
    "good": "text-success",
    "held": "text-secondary",
    "dim": "text-muted",
    "header": "text-muted",
}
"""What a theme calls the colour of a style."""
_BOLD = ("alarm", "held", "header")


def written(style: str) -> str:
    """How what is an alarm, a warning and so on is written, as Textual says it; "" as all else is."""
    return f"{bold(style)}${_VARIABLES[style]}" if style in _VARIABLES else ""


def bold(style: str) -> str:
    return "bold " if style in _BOLD else ""


def colour_of(style: str, variables: Mapping[str, str]) -> str:
    """Among a theme's variables, the colour of what is an alarm, a warning and so on; "" where the terminal's
    own colours are taken."""
    colour = variables.get(_VARIABLES.get(style, ""), "")
    return colour if colour.startswith("#") else ""


def chosen(
    wanted: str, known: Container[str], *, few: bool, environment: Mapping[str, str] = os.environ
) -> str:
    """The theme that is wanted if it is known; else the one that suits the terminal.

    `wanted` "" or "auto" is none in particular: then TEXTUAL_THEME names one. Where there are only a `few`
    colours (16), they are whatever their owner likes, so they are taken as they are.
    """
    if wanted in ("", AUTO):
        wanted = environment.get("TEXTUAL_THEME", "")
    if wanted in known:
        return wanted
    is_light = _is_light(environment)
    its_own = "ansi-light" if is_light else "ansi-dark"
    return its_own if few and its_own in known else (LIGHT if is_light else DARK).name


def check(wanted: str, known: Iterable[str] = (*BUILTIN_THEMES, *(one.name for one in THEMES))) -> None:
    """Raises InvalidInput: there is no such theme."""
    if wanted not in ("", AUTO, *known):
        raise InvalidInput("theme", f"must be {AUTO} or one of {', '.join(sorted(known))}")


def _is_light(environment: Mapping[str, str]) -> bool:
    """Some terminals say their colours in COLORFGBG: "0;15" is black on white."""
    background = environment.get("COLORFGBG", "").rpartition(";")[2]
    return background.isdecimal() and _LIGHT_FROM <= int(background) <= 15 and background != "8"
