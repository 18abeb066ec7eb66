"""The notation in which messages are declared: one class for all versions of a message.

Owns the types a field can have, the versions in which it is there, and the making of slotted
classes from declarations. Must not know how a value is laid out in bytes: that is `codec.py`.

    from ottla.protocol import schema as t

    class TopicProduceData(t.Struct):
        name: str = t.string(until=12)
        topic_id: bytes = t.uuid(since=13)
        partition_data: list[PartitionProduceData] = t.array(PartitionProduceData)

reads: two bytes strings and a list; the name up to version 12, the topic id from version 13 on.
`TopicProduceData(name="a")` makes one, all else as Kafka's schema has it by default. A field
that a version doesn't have is its default after decoding, and is passed over in encoding.

Source: the message definitions of Apache Kafka 4.3, whose words (versions, nullableVersions,
taggedVersions, default) these are, in Python's manner; flexible versions are KIP-482.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final, NoReturn, TypeAlias, dataclass_transform

NO_UUID: Final = bytes(16)

FIXED: Final = {
    "boolean": "?",
    "int8": "b",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "float64": "d",
    "uuid": "16s",
}
"""Types whose size is fixed, each with its letter in `struct`. All others bring their length."""


class Field:
    """One field of a struct. `kind` is a key of FIXED, or string, bytes, records or struct.

    Of an array, `kind` is what its elements are. `null_since` is the first version in which
    None is allowed, `tag` the number of a tagged field; None where there is none.
    """

    __slots__ = (
        "default",
        "is_array",
        "kind",
        "name",
        "null_since",
        "since",
        "struct",
        "tag",
        "until",
    )

    def __init__(self, kind: str, default: object, options: dict[str, int]) -> None:
        self.name = ""  # known when the class is made
        self.kind = kind
        self.struct: type[Struct] | None = None
        self.is_array = False
        self.default = default
        self.since: int = options.pop("since", 0)
        self.until: int = options.pop("until", 0x7FFF)
        self.null_since: int | None = options.pop("null_since", None)
        self.tag: int | None = options.pop("tag", None)
        assert not options, f"no such option: {options}"

    def is_in(self, version: int) -> bool:
        """Whether that version of the message has the field."""
        return self.since <= version <= self.until

    def is_nullable(self, version: int) -> bool:
        """Whether None can stand in the field in that version."""
        return self.null_since is not None and version >= self.null_since


# What follows are the words of a declaration. They say Any, so that the annotation beside
# them is the type that a checker sees; their options are those of Field.


def boolean(*, default: bool = False, **options: int) -> Any:
    return Field("boolean", default, options)


def int8(*, default: int = 0, **options: int) -> Any:
    return Field("int8", default, options)


def int16(*, default: int = 0, **options: int) -> Any:
    return Field("int16", default, options)


def uint16(*, default: int = 0, **options: int) -> Any:
    return Field("uint16", default, options)


def int32(*, default: int = 0, **options: int) -> Any:
    return Field("int32", default, options)


def uint32(*, default: int = 0, **options: int) -> Any:
    return Field("uint32", default, options)


def int64(*, default: int = 0, **options: int) -> Any:
    return Field("int64", default, options)


def float64(*, default: float = 0.0, **options: int) -> Any:
    return Field("float64", default, options)


def uuid(**options: int) -> Any:
    """16 raw bytes; there is no null, its place is taken by sixteen zeros."""
    return Field("uuid", NO_UUID, options)


def string(*, default: str | None = "", **options: int) -> Any:
    return Field("string", default, options)


def bytestring(*, default: bytes | None = b"", **options: int) -> Any:
    return Field("bytes", default, options)


def records(**options: int) -> Any:
    """Record batches: a view of the received bytes, or a slice of a file, never a copy."""
    return Field("records", None, options)


Word: TypeAlias = Callable[..., Any]


def array(of: Word | type[Struct], *, default: tuple[()] | None = (), **options: int) -> Any:
    """A list: `array(int32)`, `array(SomeStruct)`. Its default is a fresh empty list, or None."""
    if isinstance(of, type):
        field = Field("struct", default, options)
        field.struct = of
    else:
        element: Field = of()
        field = Field(element.kind, default, options)
    field.is_array = True
    return field


def struct(of: type[Struct], **options: int) -> Any:
    """Another struct in place. Its default is shared and can't be changed: assign another."""
    field = Field("struct", None, options)
    field.struct = of
    field.default = _shared_default(of)
    return field


def nullable_struct(of: type[Struct], **options: int) -> Any:
    """A struct or None (KIP-893); None by default.

    A byte before it tells which: negative for None, but in a tagged field 0. Kafka leaves a tagged
    one out where it is empty, not where it is null, so ours is always written.
    """
    field = Field("struct", None, options)
    field.struct = of
    return field


_FRESH: Final = object()


@dataclass_transform(kw_only_default=True)
class StructMeta(type):
    """Makes a slotted class with a keyword constructor out of a class of declarations."""

    def __new__(
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any
    ) -> StructMeta:
        fields = {key: value for key, value in namespace.items() if isinstance(value, Field)}
        for key, field in fields.items():
            field.name = key
            del namespace[key]  # a class attribute would be in the way of the slot
        namespace["__slots__"] = tuple(fields)
        if fields or "FIELDS" not in namespace:
            namespace["FIELDS"] = tuple(fields.values())
            namespace["__init__"] = _constructor(namespace["FIELDS"])
        return super().__new__(mcs, name, bases, namespace, **options)


def _constructor(fields: tuple[Field, ...]) -> Callable[..., None]:
    """Compile `__init__`: written out, it is three times as fast as a loop over the fields."""
    if not fields:
        return _no_fields
    parameters, lines = [], []
    names: dict[str, object] = {"FRESH": _FRESH}
    for field in fields:
        if field.is_array and field.default is not None:
            parameters.append(f"{field.name}=FRESH")
            lines.append(f"    self.{field.name} = [] if {field.name} is FRESH else {field.name}")
        else:
            names[f"default_{field.name}"] = field.default
            parameters.append(f"{field.name}=default_{field.name}")
            lines.append(f"    self.{field.name} = {field.name}")
    head = f"def __init__(self, *, {', '.join(parameters)}):"
    exec("\n".join([head, *lines]), names)
    made: Callable[..., None] = names["__init__"]  # type: ignore[assignment]  # exec put it there
    return made


def _no_fields(self: Struct) -> None:
    """The constructor of a struct without fields, such as the body of ListGroupsRequest v0."""


class Struct(metaclass=StructMeta):
    """What all messages and their parts are. Compared field by field; not hashable."""

    FIELDS: ClassVar[tuple[Field, ...]] = ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Struct) or other.FIELDS is not self.FIELDS:
            return NotImplemented
        return all(getattr(self, f.name) == getattr(other, f.name) for f in self.FIELDS)

    __hash__ = None  # type: ignore[assignment]  # its fields change

    def __repr__(self) -> str:
        inside = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in self.FIELDS)
        return f"{type(self).__name__}({inside})"


class Message(Struct):
    """A request or a response: a struct that has an API key and versions."""

    KEY: ClassVar[int]
    KIND: ClassVar[str]
    VERSIONS: ClassVar[tuple[int, int]]
    FLEXIBLE: ClassVar[int | None]

    def __init_subclass__(
        cls, *, key: int, kind: str, versions: tuple[int, int], flexible: int | None
    ) -> None:
        """`kind`: request or response; `versions`: first and last; `flexible`: first of KIP-482."""
        cls.KEY = key
        cls.KIND = kind
        cls.VERSIONS = versions
        cls.FLEXIBLE = flexible


def _shared_default(of: type[Struct]) -> Struct:
    """One default for all: making one for each message would cost more than the message.

    A change to it would be a change to every other message's default, so it refuses.
    """
    value = of()
    frozen = type(of.__name__, (of,), {"FIELDS": of.FIELDS, "__init__": of.__init__})
    value.__class__ = frozen
    frozen.__setattr__ = _refuse_change  # type: ignore[assignment,method-assign]
    return value


def _refuse_change(self: Struct, name: str, value: object) -> NoReturn:
    raise AttributeError(
        f"this {type(self).__name__} is the default of every message: "
        f"assign a new one instead of setting {name} to {value!r}"
    )
