"""What is wrong with what a caller sent, field by field. Says nothing of the values."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.text import NAME_WIDTH, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

MISTAKES_MAX = 3
_SAID = {
    "missing": "is required",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large",
    "dict_type": "must be an object",
    "list_type": "must be a list",
}
"""What is wrong, by pydantic's name of it."""


def mistakes(found: Sequence[ErrorDetails], known: Sequence[str], of_what: str) -> str:
    """The first few of them. `known` are the fields that there are, `of_what` says whose: "this tool"."""
    told = [_mistake(details, known, of_what) for details in found[:MISTAKES_MAX]]
    more = f"; and {len(found) - MISTAKES_MAX} more" if len(found) > MISTAKES_MAX else ""
    return "; ".join(told) + more + "."


def first_mistake(error: ValidationError) -> InvalidInput:
    """The first thing that is wrong in what other programs send, with the name of its field."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = [str(part) for part in first["loc"] if part not in ("int", "float")]
    if path in (["units"], ["durationMs"]) and first["type"] != "missing":
        return InvalidInput(path[0], "must be a number")
    text = first["msg"]
    return InvalidInput(".".join(path) or "record", text[:1].lower() + text[1:])


def place(details: ErrorDetails) -> str:
    """The field that is wrong, with the way to it."""
    return ".".join(shown(str(part), width=NAME_WIDTH) for part in details["loc"])


def _mistake(details: ErrorDetails, known: Sequence[str], of_what: str) -> str:
    field, kind = place(details), details["type"]
    if kind == "extra_forbidden":
        alike = difflib.get_close_matches(field, known, n=1)
        hint = f"use {alike[0]}" if alike else f"it takes {', '.join(known)}" if known else "it takes none"
        return f"{field}: is not an argument of {of_what} ({hint})"
    if kind == "literal_error":
        return f"{field}: must be {details.get('ctx', {}).get('expected', 'another value')}"
    return f"{field}: {_SAID.get(kind, details['msg'])}"
