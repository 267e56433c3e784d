"""Options made from the models that the MCP tools take, so that both faces have the same names and rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.faces.wire.fields import Arguments

ArgumentsT = TypeVar("ArgumentsT", bound=Arguments)
Function = TypeVar("Function", bound=Callable[..., Any])


def from_model(model: type[Arguments], *, leave_out: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """An option for each field: `input_tokens` is `--input-tokens`; one for a list may be repeated."""

    def decorate(function: Function) -> Function:
        for name, field in reversed(model.model_fields.items()):
            if name not in leave_out:
                function = _option(name, field)(function)
        return function

    return decorate


def _option(name: str, field: FieldInfo) -> Callable[[Any], Any]:
    kind, repeated = _kind(field.annotation)
    described = field.description or ""
    flag = f"--{name.replace('_', '-')}"
    if kind is bool:
        return click.option(flag, name, is_flag=True, default=None, help=described)
    return click.option(
        flag, name, type=kind, multiple=repeated, required=field.is_required(), help=described, default=None
    )


def _kind(annotation: Any) -> tuple[Any, bool]:
    """The click type of an annotation, and whether the option may be repeated."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return click.Choice([str(choice) for choice in inner]), False
    if origin is list:
        return _kind(inner[0])[0], True
    if origin is dict:
        return str, False
    parts = [part for part in inner if part is not type(None)]
    if parts:
        kinds = [_kind(part) for part in (parts[:1] if hasattr(annotation, "__metadata__") else parts)]
        return (click.FLOAT, False) if any(kind is click.FLOAT for kind, _ in kinds) else kinds[0]
    return {int: (click.INT, False), float: (click.FLOAT, False), bool: (bool, False)}.get(
        annotation, (str, False)
    )


def sent(model: type[ArgumentsT], values: dict[str, Any]) -> ArgumentsT:
    """The model of what was typed. Raises InvalidInput, which names the first field that is wrong."""
    given: dict[str, Any] = {}
    for name, value in values.items():
        if value is not None and value != ():
            given[name] = [*value] if isinstance(value, tuple) else value
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(field, first["msg"].lower()) from None
