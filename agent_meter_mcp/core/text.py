"""Agents' text is hostile: what may come in, and what is safe to show."""

from __future__ import annotations

from .errors import InvalidInput

NAME_MAX = 128
ID_MAX = 256
REASON_MAX = 500
METADATA_BYTES_MAX = 8 * 1024
METADATA_DEPTH_MAX = 32
NAME_WIDTH, REASON_WIDTH = 64, 200
"""How much of a name, and of a reason, is shown in a sentence."""
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'")  # noqa: RUF001 - full-width ones count


def name(value: str, field: str, *, maximum: int = NAME_MAX) -> str:
    """`value` if it is 1..`maximum` printable characters without leading or trailing spaces.

    Raises:
        InvalidInput: names `field`, says what is wrong.
    """
    if value and len(value) <= maximum and value.isprintable() and value[0] != " " and value[-1] != " ":
        return value  # most are, and a batch has thousands of them
    if not value:
        raise InvalidInput(field, "must not be empty")
    if len(value) > maximum:
        raise InvalidInput(field, f"is {len(value)} characters long; at most {maximum} are allowed")
    if not value.isprintable():
        raise InvalidInput(field, "must be printable characters only (no control codes or line breaks)")
    if value != value.strip():
        raise InvalidInput(field, "must not begin or end with a space")
    return value


def optional_name(value: str | None, field: str, *, maximum: int = NAME_MAX) -> str | None:
    """As `name`, and None stays None."""
    return None if value is None else name(value, field, maximum=maximum)


def shown(value: str, *, width: int | None = None) -> str:
    """`value` made harmless for a terminal or a log line: what is not printable becomes its escape.

    Bidirectional controls and zero-width characters are not printable in Python's sense, so they go too.
    `width` shortens to that many characters, with an ellipsis.
    """
    safe = (
        value
        if value.isprintable()
        else "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in value
        )
    )
    return safe if width is None or len(safe) <= width else safe[: max(width - 1, 0)] + "…"


def guarded(text: str) -> str:
    """What a spreadsheet takes for text. One apostrophe less gives back what it was."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def from_header(value: bytes) -> str:
    """What a header of HTTP says: UTF-8, as curl and most others send it, or Latin-1, as JavaScript does."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
