"""Our bytes against kio's, for every message in every version.

kio is an independent implementation of Kafka's schemas. An instance is made twice at random, of
our class and of kio's; both have to give the same bytes, and the bytes have to give both back.
"""

from __future__ import annotations

import dataclasses
import datetime
import io
import random
import types
import typing
import uuid
from collections import Counter
from typing import Any

import pytest
from kio.schema.errors import ErrorCode
from kio.schema.index import api_key_map
from kio.serial import entity_reader, entity_writer

from ottla.protocol import apis
from ottla.protocol.codec import CodecError, decoder, encoder
from ottla.protocol.schema import Field, Message, Struct

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

MESSAGES = [
    pytest.param(key, kind, version, id=f"{name}-{kind}-v{version}")
    for key, name in apis.API_NAMES.items()
    for kind in ("request", "response")
    for version in range(apis.RANGES[key][0], apis.RANGES[key][1] + 1)
]

BITS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}


class Maker:
    """Makes pairs of equal instances, ours and kio's. `form` says what stands where there is a choice."""

    def __init__(self, seed: str, form: str, version: int) -> None:
        self.rng = random.Random(seed)
        self.form = form  # empty, null, full or random
        self.version = version

    def struct(self, ours: type[Struct], theirs: Any) -> tuple[Any, Any]:
        our_fields = [field for field in ours.FIELDS if field.is_in(self.version)]
        their_fields = dataclasses.fields(theirs)
        assert len(our_fields) == len(their_fields)
        # kio leaves the order of fields alone, so that names need not be trusted here
        by_name = {name_here(field): field for field in their_fields}
        mine, his = {}, {}
        for field in our_fields:
            other = by_name[field.name]
            pair = self.field(field, other)
            while self.form == "full" and field.tag is not None and pair[0] == field.default:
                pair = self.field(field, other)  # a tagged field is written if it isn't its default
            mine[field.name], his[other.name] = pair
        return ours(**mine), theirs(**his)

    def field(self, field: Field, other: Any) -> tuple[Any, Any]:
        optional, is_array, inner = unwrap(other.type)
        assert is_array == field.is_array
        nullable = field.is_nullable(self.version)
        if nullable:
            assert optional
        if self.form == "empty" and field.tag is not None:
            return default_pair(field, other)
        if nullable and self.chance({"empty": 0, "null": 1, "full": 0}, 0.3):
            return None, None
        if not is_array:
            return self.one(field, other, inner)
        pairs = [self.one(field, other, inner) for _ in range(self.count(field))]
        return [mine for mine, _ in pairs], tuple(his for _, his in pairs)

    def chance(self, fixed: dict[str, int], otherwise: float) -> bool:
        return bool(fixed[self.form]) if self.form in fixed else self.rng.random() < otherwise

    def count(self, field: Field) -> int:
        if self.form == "empty":
            return 0
        if self.form in {"null", "full"}:
            return 1
        if field.kind != "struct" and self.rng.random() < 0.2:
            return self.rng.choice([15, 16, 17, 126, 127, 128, 300])
        return self.rng.choice([0, 1, 1, 2, 3])

    def one(self, field: Field, other: Any, inner: Any) -> tuple[Any, Any]:
        if field.kind == "struct":
            assert field.struct is not None
            return self.struct(field.struct, inner)
        kafka_type = other.metadata["kafka_type"]
        if kafka_type == "error_code":
            code = self.rng.choice(list(ErrorCode))
            return code.value, code
        if kafka_type.startswith(("timedelta", "datetime")):
            return self.time(kafka_type, types.NoneType in typing.get_args(other.type))
        value = self.value(field.kind)
        if kafka_type == "uuid":
            maybe_none = types.NoneType in (*typing.get_args(other.type), *typing.get_args(inner))
            return value, None if maybe_none and not any(value) else uuid.UUID(bytes=value)
        return value, value

    def time(self, kafka_type: str, optional: bool) -> tuple[int, Any]:
        if kafka_type.startswith("datetime"):
            if optional and self.rng.random() < 0.3:
                return -1, None
            ms = self.rng.randrange(1 << 41)
            return ms, EPOCH + datetime.timedelta(milliseconds=ms)
        ms = self.rng.randrange(-(1 << 31), 1 << 31)
        return ms, datetime.timedelta(milliseconds=ms)

    def value(self, kind: str) -> Any:
        rng = self.rng
        empty = self.form == "empty"
        match kind:
            case "boolean":
                return False if empty else rng.random() < 0.5
            case "float64":
                return rng.choice([0.0, -1.5, 1e300, rng.random()])
            case "uint16":
                return rng.choice([0, 1, 0xFFFF, rng.randrange(1 << 16)])
            case "uint32":
                return rng.choice([0, 1, 0xFFFF_FFFF, rng.randrange(1 << 32)])
            case "uuid":
                return bytes(16) if empty or rng.random() < 0.2 else rng.randbytes(16)
            case "string":
                return "" if empty else self.text()
            case "bytes" | "records":
                return b"" if empty else rng.randbytes(self.size())
        half = 1 << (BITS[kind] - 1)
        return 0 if empty else rng.choice([0, -1, 1, half - 1, -half, rng.randrange(-half, half)])

    def size(self) -> int:
        common = self.rng.random() < 0.9
        return self.rng.randrange(12) if common else self.rng.choice([126, 127, 128, 129, 700])

    def text(self) -> str:
        if self.rng.random() < 0.7:
            return "x" * self.size()
        return "".join(self.rng.choices("aé€𝄞\0ottla.-_", k=self.size()))


def name_here(field: Any) -> str:
    """kio's name as Kafka's: its times have lost their unit."""
    is_time = field.metadata.get("kafka_type", "").startswith(("timedelta", "datetime"))
    return f"{field.name}_ms" if is_time else str(field.name)


def unwrap(annotation: Any) -> tuple[bool, bool, Any]:
    """(whether None is allowed, whether it is an array, the type of a value or element)."""
    optional = isinstance(annotation, types.UnionType)
    if optional:
        annotation = next(a for a in typing.get_args(annotation) if a is not types.NoneType)
    if typing.get_origin(annotation) is tuple:
        return optional, True, typing.get_args(annotation)[0]
    return optional, False, annotation


def default_pair(field: Field, other: Any) -> tuple[Any, Any]:
    """The default of a tagged field, ours and kio's; it isn't written, and so must be the same."""
    if field.is_array:
        return (None, None) if field.default is None else ([], ())
    if field.kind == "struct":
        assert field.struct is not None
        return field.default, other.default
    if field.kind == "uuid":
        return field.default, None
    missing = other.default is dataclasses.MISSING
    return field.default, field.default if missing else other.default


def forms(count: int) -> list[str]:
    """Everything empty, null wherever it can be, everything there; and then at random."""
    fixed = ["empty", "null", "full"]
    return fixed + ["random"] * (count - len(fixed))


@pytest.mark.parametrize(("key", "kind", "version"), MESSAGES)
def test_a_message_has_the_bytes_of_kio_and_comes_back_from_them(
    key: int, kind: str, version: int, seed: str, instances: int, tally: Counter[str]
) -> None:
    ours = apis.request_class(key) if kind == "request" else apis.response_class(key)
    theirs = kio_class(key, kind, version)
    encode, decode = encoder(ours, version), decoder(ours, version)
    write, read = entity_writer(theirs), entity_reader(theirs)
    for number, form in enumerate(forms(instances)):
        here = f"OTTLA_SEED={seed}, {ours.__name__} v{version}, instance {number}"
        maker = Maker(f"{here}", form, version)
        mine, his = maker.struct(ours, theirs)
        buffer = io.BytesIO()
        write(buffer, his)
        expected = buffer.getvalue()
        [encoded] = encode(mine)
        assert encoded == expected, f"{here}: {mine}"
        assert read(encoded, 0) == (his, len(encoded)), here
        before = bytes(maker.rng.randrange(9))
        view = memoryview(before + encoded + b"more")
        end = len(before) + len(encoded)
        assert decode(view, len(before)) == (mine, end), here
        tally["instances equal"] += 1
        for cut in cuts(maker.rng, len(encoded)):
            with pytest.raises(CodecError):
                decode(view[: len(before) + cut], len(before))
            tally["prefixes refused"] += 1


def cuts(rng: random.Random, size: int) -> list[int]:
    """Every strict prefix of a short message; of a long one its ends and some between."""
    if size <= 160:
        return list(range(size))
    return [*range(64), *rng.sample(range(64, size - 64), 32), *range(size - 64, size)]


def kio_class(key: int, kind: str, version: int) -> Any:
    module = f"kio.schema.{api_key_map[key]}.v{version}.{kind}"
    return getattr(__import__(module, fromlist=["_"]), f"{apis.API_NAMES[key]}{kind.title()}")


def test_every_message_that_a_client_can_meet_is_declared() -> None:
    between_controllers = {52, 53, 54, 56, 58, 59, 62, 63, 67, 70, 73, 82}
    assert apis.API_NAMES.keys() == api_key_map.keys() - between_controllers
    for key in apis.API_NAMES:
        for cls, kind in (
            (apis.request_class(key), "request"),
            (apis.response_class(key), "response"),
        ):
            message: type[Message] = cls
            assert (key, kind, apis.RANGES[key]) == (message.KEY, message.KIND, message.VERSIONS)
