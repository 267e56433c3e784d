"""What programs read: one JSON document, in the shapes that the MCP tools answer with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pydantic import BaseModel


def print_document(result: BaseModel | dict[str, Any]) -> None:
    """On stdout. All but ASCII is escaped, so that nothing in it can reach a terminal."""
    data = result if isinstance(result, dict) else result.model_dump(mode="json")
    click.echo(json.dumps(data, indent=2))


def read_object(text: str, field: str) -> str:
    """A JSON object as canonical JSON: sorted keys, no spaces. Raises InvalidInput, names `field`."""
    from agent_meter_mcp.core.errors import InvalidInput

    try:
        value = json.loads(text, parse_constant=_refuse)
        if not isinstance(value, dict):
            raise ValueError
        canonical = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        canonical.encode()
    except (ValueError, RecursionError):
        raise InvalidInput(
            field, """must be a JSON object of finite numbers, such as '{"page": 7}'"""
        ) from None
    return canonical


def _refuse(constant: str) -> None:
    raise ValueError(constant)
