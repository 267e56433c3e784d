"""One table: what each failure is called at each face.

An MCP tool answers with the error's text and what to do next, HTTP with a status, a command with an exit
code. Programs read the code, never the text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from agent_meter_mcp.core.errors import MeterError

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
"""What being over a limit is called over HTTP: a problem's type, as it is registered."""


class Shape(NamedTuple):
    """`next_step` is added to the error's text where a model or a person reads it; "" where that says it."""

    http_status: int
    exit_code: int
    next_step: str = ""


SHAPES = {
    "invalid_input": Shape(422, 2, "Nothing was changed."),
    "not_found": Shape(404, 3),
    "conflict": Shape(409, 4),
    "forbidden": Shape(403, 77),
    "unauthorized": Shape(401, 77, "Nothing was changed."),
    "store_error": Shape(500, 74),
    "store_busy": Shape(503, 75),
    "store_full": Shape(507, 74),
    "store_read_only": Shape(500, 73),
    "store_unusable": Shape(500, 65),
    "store_too_new": Shape(500, 78),
    "overloaded": Shape(503, 75),
    "unreachable": Shape(503, 69, "Start the meter, or try again in a moment."),
    "error": Shape(500, 70),
}
"""By the code of a MeterError. Exit codes from 64 on are those of sysexits.h."""
META = "agent-meter/error"
"""Where a tool's error has, in its `_meta`, the members that a problem document of HTTP has."""


def shape_of(error: MeterError) -> Shape:
    return SHAPES[error.code]


def members_of(error: MeterError) -> dict[str, str]:
    """What programs read: `code` is its stable name, `field` the field that is wrong."""
    field = getattr(error, "field", None)
    return {"code": error.code} if field is None else {"code": error.code, "field": field}


def text_of(error: MeterError) -> str:
    """What is wrong, where, and how to put it right, as a model or a person reads it."""
    text, step = str(error), shape_of(error).next_step
    if not step or step in text:
        return text
    return f"{text} {step}" if text.endswith((".", "?")) else f"{text}. {step}"
