"""`Value`: a class of named, read-only fields, declared as annotations.

It does what a slotted, frozen dataclass does, without importing `dataclasses`: that import (with `inspect`
behind it) takes longer than the start of the interpreter, and a hook that records one event pays for it each
time. The type checker knows these classes as frozen dataclasses and refuses assignment; at run time nothing
does."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**_: object):
        return lambda cls: cls


FEW = 16
"""So many of a class are made before it gets an `__init__` of its own."""


@dataclass_transform(frozen_default=True)
class _ValueType(type):
    """Turns the annotations of a class body into slots and an `__init__` in the order of declaration."""

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> _ValueType:
        own = [field for field in body.get("__annotations__", {}) if not field.startswith("_")]
        defaults: dict[str, Any] = {field: body.pop(field) for field in own if field in body}
        inherited: tuple[str, ...] = ()
        for base in bases:
            inherited += getattr(base, "fields", ())
            defaults = {**getattr(base, "_defaults", {}), **defaults}
        body["__slots__"] = tuple(own)
        body["fields"] = body["__match_args__"] = inherited + tuple(own)
        body["_defaults"] = defaults
        made = super().__new__(mcs, name, bases, body)
        if "__init__" not in body:
            made.__init__ = _first_init(made)
        return made


def _first_init(owner: Any) -> Any:
    """An `__init__` for the first few. To compile one takes as long as making hundreds, and a one-shot
    process makes one or two of a class."""
    made = 0

    def __init__(self: object, *values: object, **named: object) -> None:
        nonlocal made
        made += 1
        fields: tuple[str, ...] = owner.fields
        in_order = dict(zip(fields, values, strict=False))
        given = {**owner._defaults, **in_order, **named}
        is_right = (
            len(values) <= len(fields) and given.keys() == {*fields} and named.keys().isdisjoint(in_order)
        )
        if made > FEW or not is_right:  # that one says what is wrong
            owner.__init__ = _make_init(fields, owner._defaults)
            owner.__init__(self, *values, **named)
            return
        for field in fields:
            setattr(self, field, given[field])

    return __init__


def _make_init(fields: tuple[str, ...], defaults: dict[str, Any]) -> Any:
    parameters = ", ".join(
        f"{field}=_defaults[{field!r}]" if field in defaults else field for field in fields
    )
    lines = "".join(f"\n    self.{field} = {field}" for field in fields) or "\n    pass"
    scope: dict[str, Any] = {"_defaults": defaults}
    exec(f"def __init__(self, {parameters}):{lines}", scope)
    return scope["__init__"]


class Value(metaclass=_ValueType):
    """Base of all value classes. Subclasses need `from __future__ import annotations`."""

    if TYPE_CHECKING:
        fields: ClassVar[tuple[str, ...]]

    def replace(self, **changes: Any) -> Self:
        """A copy with other values in the fields that are named."""
        return type(self)(**{**self.as_dict(), **changes})

    def as_dict(self) -> dict[str, Any]:
        """Field names and values, in the order of declaration (one level deep)."""
        return {field: getattr(self, field) for field in self.fields}

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        if self is other:
            return True
        for field in self.fields:  # a generator would take twice as long
            if getattr(self, field) != getattr(other, field):
                return False
        return True

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, field) for field in self.fields)))

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        """Pickled by its fields in order, which is a third less than by name."""
        return type(self), tuple(getattr(self, field) for field in self.fields)

    def __repr__(self) -> str:
        shown = ", ".join(f"{field}={getattr(self, field)!r}" for field in self.fields)
        return f"{type(self).__name__}({shown})"
