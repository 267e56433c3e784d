"""JSON schemas that fit into a model's context: what pydantic says, without what a reader does not need.

All 13 tools are to be listed in 14 KB. So titles go, and so does null where it means "left out"; a value or
null is one list of types. Of results, the fields are told with their types; of what is inside those, the
names; and what another tool spells out is just a list or an object (`fields.ListElsewhere`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from pydantic import BaseModel

Schema = dict[str, Any]
_REF = "#/$defs/"
_NULL = {"type": "null"}
_RESULT_NOISE = ("title", "required", "default", "description", "enum")


def arguments_schema(model: type[BaseModel]) -> Schema:
    """What a tool takes. An argument that may be left out is described by the values that it takes
    otherwise."""
    schema = model.model_json_schema(mode="validation")
    for field in cast("dict[str, Schema]", schema.get("properties", {})).values():
        if field.get("default", ...) is None:
            del field["default"]
            if "anyOf" in field:
                field["anyOf"] = [option for option in field["anyOf"] if option != _NULL]
    return _compact(schema, schema.pop("$defs", {}), ("title",))


def result_schema(model: type[BaseModel]) -> Schema:
    """What a tool gives, `message` aside. Every field is always there, and null where there is nothing to
    say."""
    schema = model.model_json_schema(mode="serialization")
    lean = _compact(schema, schema.pop("$defs", {}), _RESULT_NOISE)
    fields = cast("dict[str, Schema]", lean["properties"])
    del fields["message"]
    for field in fields.values():
        _names_only(field)
        _names_only(field.get("items", {}))
    return lean


def _names_only(schema: Schema) -> None:
    if "properties" in schema:
        schema["properties"] = {field: {} for field in schema["properties"]}
        schema.pop("type", None)


def _compact(node: Any, definitions: dict[str, Schema], noise: tuple[str, ...]) -> Any:
    """The node with definitions in their places, and without noise."""
    if isinstance(node, list):
        return [_compact(item, definitions, noise) for item in cast("list[Any]", node)]
    if not isinstance(node, dict):
        return node
    schema = dict(cast("Schema", node))
    if "$ref" in schema:
        schema = {**definitions[str(schema.pop("$ref")).removeprefix(_REF)], **schema}
    lean: Schema = {}
    for key, value in schema.items():
        if key == "properties":
            lean[key] = {field: _compact(inner, definitions, noise) for field, inner in value.items()}
        elif key not in noise:
            lean[key] = _compact(value, definitions, noise)
    if "enum" in lean:
        del lean["type"]
    return _one_type(lean)


def _one_type(schema: Schema) -> Schema:
    """`anyOf` of kinds of values, as one list of types; an integer is a number."""
    options = cast("list[Schema]", schema.get("anyOf", []))
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    if len(options) == 1:
        return {**options[0], **rest}
    if not options or not all(isinstance(option.get("type"), str) for option in options):
        return schema
    kinds = [str(option["type"]) for option in options]
    if "number" in kinds and "integer" in kinds:
        kinds.remove("integer")
    inner = {key: value for option in options for key, value in option.items() if key != "type"}
    return {**inner, "type": kinds[0] if len(kinds) == 1 else kinds, **rest}
