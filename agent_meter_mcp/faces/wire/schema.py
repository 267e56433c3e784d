"""JSON schemas that fit into a model's context, straight from the annotations of our models.

All 13 tools are to be listed in 14 KB, so a schema says what a reader needs: an argument that may be left out
is described by the values that it takes otherwise; of results, the fields are told with their types; of what
is inside those, the names; and what another tool spells out is just a list or an object
(`fields.ListElsewhere`). Pydantic's own generator says three times as much, and takes as long as the rest of
the server's start.
"""

from __future__ import annotations

from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, WithJsonSchema
from pydantic_core import PydanticUndefined

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

Schema = dict[str, Any]
_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", NoneType: "null"}


def arguments_schema(model: type[BaseModel]) -> Schema:
    """What a tool takes."""
    schema: Schema = {"type": "object", "properties": {}, "additionalProperties": False}
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    for name, field in sorted(model.model_fields.items(), key=lambda item: item[0] not in required):
        told = _of_field(field)
        if field.description is not None:
            told["description"] = field.description
        if field.default is None:
            _leave_out_null(told, kept=name in getattr(model, "clearable", ()))
        elif field.default is not PydanticUndefined:
            told["default"] = field.default
        schema["properties"][name] = told
    return schema | {"required": required} if required else schema


def result_schema(model: type[BaseModel]) -> Schema:
    """What a tool gives, `message` aside. Every field is always there, and null where there is nothing to
    say."""
    fields = {name: _of_field(field) for name, field in model.model_fields.items() if not field.exclude}
    del fields["message"]
    return {"type": "object", "properties": {name: _without_enum(told) for name, told in fields.items()}}


def _of_field(field: FieldInfo) -> Schema:
    told = next((hint for hint in reversed(field.metadata) if isinstance(hint, WithJsonSchema)), None)
    return dict(told.json_schema or {}) if told is not None else _of(field.annotation)


def _of(kind: Any) -> Schema:
    """The schema of a type."""
    origin, inner = get_origin(kind), get_args(kind)
    if hasattr(kind, "__metadata__"):
        told = next((hint for hint in reversed(kind.__metadata__) if isinstance(hint, WithJsonSchema)), None)
        return dict(told.json_schema or {}) if told is not None else _of(inner[0])
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (Union, UnionType):
        return _of_union([_of(option) for option in inner])
    if origin is list:
        return {"type": "array", "items": _of(inner[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of(inner[1])}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {"properties": {name: {} for name in kind.model_fields}}
    return {"type": _TYPES[kind]}


def _of_union(options: list[Schema]) -> Schema:
    """Kinds of values as one list of types; an integer is a number."""
    together = {key: value for option in options for key, value in option.items() if key != "type"}
    kinds: list[str] = [option.get("type", "string") for option in options]
    if "number" in kinds and "integer" in kinds:
        kinds.remove("integer")
    return {"type": kinds[0] if len(kinds) == 1 else kinds, **together}


def _leave_out_null(told: Schema, *, kept: bool) -> None:
    kinds = told.get("type")
    if isinstance(kinds, list) and not kept:
        told["type"] = kinds[0]
    if "enum" in told:
        told.pop("type", None)


def _without_enum(told: Schema) -> Schema:
    told = {"type": "string"} if list(told) == ["enum"] else told
    return {key: value for key, value in told.items() if key != "enum"}
