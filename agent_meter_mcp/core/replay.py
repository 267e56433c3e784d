"""The same id again: is it a duplicate, a correction, or a conflict?

Same content: `duplicate`. Same identity and usage that only grew (streamed counts that were partial):
`corrected`. Anything else is a conflict, and the differing fields are named. A cost that we computed is not
content; one that the caller reported is. A moment that only one of the two states is no difference: what is
sent at once need not be dated, what was kept for later is. Nor is a source that the repeat does not state:
stores take the known one for it then."""

from __future__ import annotations

from .models import TOKEN_FIELDS, Usage, UsageEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

_COUNTED = ("requests", "units_micro", *TOKEN_FIELDS)
_DESCRIPTIVE = ("status_code", "duration_ms", "metadata")


def classify(
    stored: UsageEvent, sent: UsageEvent
) -> tuple[Literal["duplicate", "corrected", "conflict"], tuple[str, ...]]:
    """What `sent` is to the event `stored` under the same key, and the names of the fields that differ."""
    fixed = [
        field
        for field in ("agent", "project", "session")
        if getattr(stored.who, field) != getattr(sent.who, field)
    ]
    fixed += [field for field in ("operation", "source") if getattr(stored, field) != getattr(sent, field)]
    if len({stored.occurred_at_us, sent.occurred_at_us} - {None}) > 1:
        fixed.append("occurred_at_us")
    fixed += [
        field
        for field in ("model", "unit_type")
        if getattr(stored.usage, field) != getattr(sent.usage, field)
    ]
    grown: list[str] = []
    for field in _COUNTED:
        before, after = getattr(stored.usage, field) or 0, getattr(sent.usage, field) or 0
        if after != before:
            (grown if after > before else fixed).append(field)
    grew, shrank = _reported_cost(stored.usage, sent.usage)
    grown += grew
    fixed += shrank
    described = [field for field in _DESCRIPTIVE if getattr(stored, field) != getattr(sent, field)]
    differing = tuple(_public(field) for field in (*fixed, *grown, *described))
    if not differing:
        return ("duplicate", ())
    return ("corrected" if grown and not fixed else "conflict", differing)


def _reported_cost(stored: Usage, sent: Usage) -> tuple[list[str], list[str]]:
    """(["cost_nano_usd"], []) when the reported cost grew, ([], [...]) when it shrank or was taken back."""
    before = stored.cost_nano_usd if stored.cost_source == "reported" else None
    after = sent.cost_nano_usd if sent.cost_source == "reported" else None
    if before == after:
        return [], []
    grew = after is not None and (before is None or after > before)
    return (["cost_nano_usd"], []) if grew else ([], ["cost_nano_usd"])


def _public(field: str) -> str:
    return {"cost_nano_usd": "cost_usd", "units_micro": "units", "occurred_at_us": "occurred_at"}.get(
        field, field
    )
