"""The OpenAPI of bodies that are read without FastAPI, which knows nothing of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from agent_meter_mcp.faces.wire.arguments import RecordUsage
from agent_meter_mcp.faces.wire.sessions import SESSION
from agent_meter_mcp.faces.wire.upstream import ADAPTER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel


def list_body(field: str, entry: Mapping[str, Any], maximum: int, *beside: str) -> dict[str, Any]:
    """An object with a list of entries; `beside` it, texts."""
    properties: dict[str, Any] = {
        field: {"type": "array", "items": entry, "minItems": 1, "maxItems": maximum},
        **{name: {"type": "string"} for name in beside},
    }
    return _body({"type": "object", "required": [field, *beside], "properties": properties})


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """As the model has it."""
    return _body(_inlined(model.model_json_schema()))


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def records_schema() -> dict[str, Any]:
    """A record in either shape."""
    return {"anyOf": [_inlined(ADAPTER.json_schema()), _inlined(TypeAdapter(RecordUsage).json_schema())]}


def session_schema() -> dict[str, Any]:
    return _inlined(SESSION.json_schema())


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Without references, which would lead nowhere inside another document."""
    definitions = schema.pop("$defs", {})

    def resolved(part: Any) -> Any:
        if isinstance(part, dict):
            found: dict[str, Any] = part  # pyright: ignore[reportUnknownVariableType] - it comes from JSON
            name = str(found.get("$ref", "")).rpartition("/")[2]
            if name in definitions:
                return resolved(definitions[name])
            return {key: resolved(value) for key, value in found.items()}
        if isinstance(part, list):
            entries: list[Any] = part  # pyright: ignore[reportUnknownVariableType] - it comes from JSON
            return [resolved(one) for one in entries]
        return part

    return resolved(schema)
