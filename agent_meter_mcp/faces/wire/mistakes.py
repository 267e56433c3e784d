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
    "model_type": "must be an object",
}
"""What is wrong, by pydantic's name of it."""
_TEXTS = {
    "ttl": '"60s"',
    "window": '"1h" or "day"',
    **dict.fromkeys(("occurred_at", "since", "until"), '"2026-01-31T18:00:00Z"'),
}
"""Where a number is a likely guess, how it is written."""
_MEANT = {
    "prompt_tokens": ("input_tokens",),
    "completion_tokens": ("output_tokens",),
    "reasoning_tokens": ("output_tokens",),
    "tokens": ("input_tokens", "output_tokens"),
    "total_tokens": ("input_tokens", "output_tokens"),
    "cached_tokens": ("cache_read_tokens",),
    "cache_read_input_tokens": ("cache_read_tokens",),
    "cache_creation_input_tokens": ("cache_write_tokens",),
    "cost": ("cost_usd",),
    "estimated_cost": ("cost_usd",),
    "timestamp": ("occurred_at",),
    "idempotency_key": ("id",),
    "provider": ("service",),
    "user": ("agent",),
    "period": ("window",),
}
"""What others call it. The letters alone would lead astray: `prompt_tokens` looks more like the output's."""
ALIKE = 0.75
"""How much of a name has to be the same for it to be meant."""


def mistakes(found: Sequence[ErrorDetails], known: Sequence[str], of_what: str) -> str:
    """The first few of them. `known` are the fields that there are, `of_what` says whose: "this tool"."""
    told = [_mistake(details, known, of_what) for details in found[:MISTAKES_MAX]]
    more = f"; and {len(found) - MISTAKES_MAX} more" if len(found) > MISTAKES_MAX else ""
    return "; ".join(told) + more + "."


def first_mistake(error: ValidationError, whole: str = "record") -> InvalidInput:
    """The first thing that is wrong in what other programs send, by its field, or as `whole` of all of it."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = [str(part) for part in first["loc"] if part not in ("int", "float")]
    if path in (["units"], ["durationMs"]) and first["type"] != "missing":
        return InvalidInput(path[0], "must be a number")
    # What pydantic says of those names our classes.
    text = _SAID[first["type"]] if first["type"] == "model_type" else first["msg"]
    return InvalidInput(".".join(path) or whole, text[:1].lower() + text[1:])


def place(details: ErrorDetails) -> str:
    """The field that is wrong, with the way to it."""
    return ".".join(shown(str(part), width=NAME_WIDTH) for part in details["loc"])


def _mistake(details: ErrorDetails, known: Sequence[str], of_what: str) -> str:
    field, kind = place(details), details["type"]
    if kind == "extra_forbidden":
        alike = [name for name in _MEANT.get(field, ()) if name in known]
        alike = alike or difflib.get_close_matches(field, known, n=1, cutoff=ALIKE)
        takes = f"it takes {', '.join(known) or 'none'}"
        hint = f"use {' and '.join(alike)}" if alike else takes
        return f"{field}: is not an argument of {of_what} ({hint})"
    if kind == "literal_error":
        return f"{field}: must be {details.get('ctx', {}).get('expected', 'another value')}"
    if kind == "string_type" and field in _TEXTS:
        return f"{field}: must be text such as {_TEXTS[field]}"
    return f"{field}: {_SAID.get(kind, details['msg'])}"
