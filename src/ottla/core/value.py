"""Value: small immutable records without what `dataclass` costs at import.

Owns how such a class gets its slots, constructor, equality, hash and repr. To define a frozen,
slotted dataclass takes 0.6 ms, since it compiles eight methods and makes the class twice; what a
start needs defines fifty of them. Here nothing is compiled. To make an instance costs 1 to 2 µs,
three times a dataclass's: not for what is made on every request.

To a reader and to a type checker a Value is a frozen dataclass (PEP 681): annotated fields in
order, defaults behind them. Only the checker holds it frozen. A default must be immutable, since
all instances share it.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self, dataclass_transform


@dataclass_transform(frozen_default=True)
class _ValueType(type):
    """Turns the annotations of a class body into slots."""

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> _ValueType:
        fields = tuple(body.get("__annotations__", ())) if bases else ()
        body["_defaults"] = {field: body.pop(field) for field in fields if field in body}
        body["__slots__"] = body["__match_args__"] = fields
        return super().__new__(cls, name, bases, body)


class Value(metaclass=_ValueType):
    """Base of immutable records. A class derives from it directly and annotates its fields."""

    __match_args__: ClassVar[tuple[str, ...]]
    _defaults: ClassVar[dict[str, Any]]

    def __init__(self, *values: Any, **named: Any) -> None:
        fields = _fields(self)
        if named or len(values) != len(fields):
            values = _complete(type(self), values, named)
        for name, value in zip(fields, values, strict=True):
            setattr(self, name, value)

    def replace(self, **changes: Any) -> Self:
        """The same with other values for some fields. Raises TypeError for a field unknown."""
        kept = {name: getattr(self, name) for name in _fields(self)}
        return type(self)(**kept | changes)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _fields(self))

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in _fields(self))))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in _fields(self))
        return f"{type(self).__qualname__}({fields})"


def _fields(value: Value) -> tuple[str, ...]:
    return type(value).__match_args__


def _complete(cls: type[Value], values: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
    """All values in the order of the fields. Raises TypeError for one too many or too few."""
    fields = cls.__match_args__
    given = dict(zip(fields, values, strict=False))
    both = given.keys() & named.keys()
    unknown = named.keys() - set(fields)
    if both or unknown or len(values) > len(fields):
        raise TypeError(f"{cls.__name__} takes {', '.join(fields)}, each once")
    complete = {**cls._defaults, **given, **named}
    missing = [name for name in fields if name not in complete]
    if missing:
        raise TypeError(f"{cls.__name__} needs {', '.join(missing)}")
    return tuple(complete[name] for name in fields)
