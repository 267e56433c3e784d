"""JSON schemas that fit into a model's context: what pydantic says, without what a reader does not need.

All 13 tools are to be listed in 14 KB, so titles, defaults of null, and definitions that are used once go; a value
or null is one type list; results have no `required`, since all their fields are always there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from pydantic import BaseModel

Schema = dict[str, Any]
_REF = "#/$defs/"


def arguments_schema(model: type[BaseModel]) -> Schema:
    """What a tool takes. Raises nothing that depends on a caller."""
    return _lean(model.model_json_schema(mode="validation"))


def result_schema(model: type[BaseModel]) -> Schema:
    """What a tool gives."""
    schema = _lean(model.model_json_schema(mode="serialization"))
    return cast("Schema", _without_required(schema))


def _lean(schema: Schema) -> Schema:
    definitions: dict[str, Schema] = schema.pop("$defs", {})
    uses = _count_uses([schema, *definitions.values()])
    once = {name: definition for name, definition in definitions.items() if uses.get(name) == 1}
    kept = {name: definition for name, definition in definitions.items() if uses.get(name, 0) > 1}
    lean = cast("Schema", _strip(schema, once))
    if kept:
        lean["$defs"] = {name: _strip(definition, once) for name, definition in kept.items()}
    lean.pop("description", None)
    return lean


def _count_uses(parts: list[Any]) -> dict[str, int]:
    uses: dict[str, int] = {}
    for part in parts:
        if isinstance(part, dict):
            node = cast("Schema", part)
            if "$ref" in node:
                name = str(node["$ref"]).removeprefix(_REF)
                uses[name] = uses.get(name, 0) + 1
            parts.extend(node.values())
        elif isinstance(part, list):
            parts.extend(cast("list[Any]", part))
    return uses


def _strip(node: Any, once: dict[str, Schema]) -> Any:
    """The node without noise, and with definitions that are used once in their place."""
    if isinstance(node, list):
        return [_strip(item, once) for item in cast("list[Any]", node)]
    if not isinstance(node, dict):
        return node
    schema = cast("Schema", node)
    name = str(schema.get("$ref", "")).removeprefix(_REF)
    if name in once:
        own = {key: value for key, value in schema.items() if key != "$ref"}
        return _strip({**{key: value for key, value in once[name].items() if key != "description"}, **own}, once)
    lean: Schema = {}
    for key, value in schema.items():
        if key == "properties":
            lean[key] = {field: _strip(inner, once) for field, inner in value.items()}
        elif key not in ("title", "default") or (key == "default" and value is not None):
            lean[key] = _strip(value, once)
    return _type_or_null(lean)


def _type_or_null(schema: Schema) -> Schema:
    """`anyOf` of a plain type and null, written as a list of types."""
    options = schema.get("anyOf")
    if not isinstance(options, list) or {"type": "null"} not in options or len(options) != 2:
        return schema
    value = next(option for option in cast("list[Schema]", options) if option != {"type": "null"})
    if not isinstance(value.get("type"), str) or "enum" in value:
        return schema
    rest = {key: inner for key, inner in schema.items() if key != "anyOf"}
    return {**value, "type": [value["type"], "null"], **rest}


def _without_required(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_required(item) for item in cast("list[Any]", node)]
    if not isinstance(node, dict):
        return node
    schema = cast("Schema", node)
    return {key: _without_required(value) for key, value in schema.items() if key != "required"}
