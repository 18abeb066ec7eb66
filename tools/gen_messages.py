"""Writes src/ottla/protocol/messages/ and apis.py from the schema of the package kio.

    python tools/gen_messages.py            write
    python tools/gen_messages.py --check    fail if what is checked in differs

Owns the way from kio's classes, one for each message and version, to ours, one for all versions.
kio has Kafka's schemas in Python form, and changes them a little: times become timedelta and
datetime, and lose the `Ms` of their names; the zero uuid becomes None. Here both are undone. Only
facts are taken over (names, types, versions, defaults), no sentence of the documentation.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib
import pkgutil
import re
import subprocess
import sys
import types
import typing
import uuid
from pathlib import Path
from typing import Any

from kio.schema.index import api_key_map
from kio.schema.request_header.v2.header import RequestHeader as FlexibleRequestHeader

TARGET = Path(__file__).parent.parent / "src" / "ottla" / "protocol"

# Between controllers, or between a broker and its controller: never on a client's connection.
NOT_FOR_CLIENTS = {52, 53, 54, 56, 58, 59, 62, 63, 67, 70, 73, 82}

NEVER = 0x7FFF
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

# kio's types, in the words of ottla.protocol.schema, and what annotations they get.
WORDS = {
    "error_code": "int16",
    "timedelta_i32": "int32",
    "timedelta_i64": "int64",
    "datetime_i64": "int64",
    "bool": "boolean",
    "bytes": "bytestring",
}
ANNOTATIONS = {
    "boolean": "bool",
    "float64": "float",
    "string": "str",
    "bytestring": "bytes",
    "uuid": "bytes",
}
# Arrays of structs which Kafka's schema makes null by default; kio leaves that out.
NULL_BY_DEFAULT = {
    "ListPartitionReassignmentsRequest": {"topics"},
    "ConsumerGroupHeartbeatRequest": {"topic_partitions"},
    "StreamsGroupHeartbeatRequest": {
        "active_tasks",
        "standby_tasks",
        "warmup_tasks",
        "client_tags",
        "task_offsets",
        "task_end_offsets",
    },
    "StreamsGroupHeartbeatResponse": {
        "status",
        "active_tasks",
        "standby_tasks",
        "warmup_tasks",
        "partitions_by_user_endpoint",
    },
    "StreamsGroupDescribeResponse": {"subtopologies"},
}

ZEROS: dict[str, object] = {"boolean": False, "float64": 0.0, "string": "", "bytestring": b""}


@dataclasses.dataclass
class Field:
    """A field over all versions: which of them have it, and in which it can be None."""

    name: str
    word: str
    of: str | None
    is_array: bool
    tag: int | None
    default: object
    versions: list[int]
    nullable: list[int]


@dataclasses.dataclass
class Message:
    """A request or a response over all versions, with its structs by name, the innermost first."""

    name: str
    kind: str
    key: int
    versions: list[int]
    flexible: int | None
    flexible_header: int
    structs: dict[str, list[Field]]


def our_name(field: dataclasses.Field[Any]) -> str:
    """Kafka's own name of a field, in snake case."""
    is_time = field.metadata.get("kafka_type", "").startswith(("timedelta", "datetime"))
    return f"{field.name}_ms" if is_time else field.name


def default_of(field: dataclasses.Field[Any], word: str, is_array: bool, nullable: bool) -> object:
    """The default as Kafka's schema has it, or what holds in its language where it has none."""
    value = field.default
    if value is dataclasses.MISSING or isinstance(value, uuid.UUID):
        return () if is_array else ZEROS.get(word, 0)
    if isinstance(value, datetime.timedelta):
        return round(value.total_seconds() * 1000)
    if isinstance(value, datetime.datetime):
        return round((value - EPOCH).total_seconds() * 1000)
    if value is None and not nullable:
        return -1  # a time: kio's None
    if value is None or isinstance(value, tuple):
        return value
    plain = {"boolean": bool, "float64": float, "string": str, "bytestring": bytes}
    return plain.get(word, int)(value)


def field_of(field: dataclasses.Field[Any], version: int) -> tuple[Field, type | None]:
    """A field as one version has it, and the class of its struct if it is one."""
    inner: Any = field.type
    optional = typing.get_origin(inner) in (types.UnionType, typing.Union)
    if optional:
        (inner,) = (each for each in typing.get_args(inner) if each is not types.NoneType)
    is_array = typing.get_origin(inner) is tuple
    if is_array:
        inner = typing.get_args(inner)[0]
    of: Any = inner if dataclasses.is_dataclass(inner) else None
    kafka_type = field.metadata.get("kafka_type", "struct")
    word = WORDS.get(kafka_type, kafka_type)
    # kio's None for a uuid or a time is a value in Kafka: sixteen zeros, and -1
    nullable = optional and (is_array or not (word == "uuid" or kafka_type == "datetime_i64"))
    made = Field(
        name=our_name(field),
        word=word,
        of=of.__name__ if of else None,
        is_array=is_array,
        tag=field.metadata.get("tag"),
        default=None if of and not is_array else default_of(field, word, is_array, nullable),
        versions=[version],
        nullable=[version] if nullable else [],
    )
    return made, of


def merge(known: list[Field], new: list[Field]) -> None:
    """Add one version's fields to those of earlier versions, keeping the order of both."""
    at = 0
    names = {field.name for field in new}
    for field in new:
        index = next((i for i, each in enumerate(known) if each.name == field.name), None)
        if index is None:
            while at < len(known) and known[at].name not in names:
                at += 1  # a field that has gone stands before the one that takes its place
            known.insert(at, field)
            at += 1
            continue
        assert index >= at, f"{field.name} changes its place"
        same = known[index]
        for what in ("word", "of", "is_array", "tag", "default"):
            assert getattr(same, what) == getattr(field, what), (field, same)
        same.versions += field.versions
        same.nullable += field.nullable
        at = index + 1


def collect(cls: type, version: int, structs: dict[str, list[Field]]) -> None:
    """Take over a class and, before it, those of the structs inside it."""
    fields = []
    for each in dataclasses.fields(cls):
        field, of = field_of(each, version)
        fields.append(field)
        if of is not None:
            collect(of, version, structs)
        assert of is None or dataclasses.fields(of), "a struct inside that is empty in a version"
    known = structs.setdefault(cls.__name__, [])
    if not any(version in field.versions for field in known):  # a struct that is used twice
        merge(known, fields)


def arrange(name: str, structs: dict[str, list[Field]], ordered: dict[str, list[Field]]) -> None:
    """Put a struct into `ordered` after those inside it: a name must be there before it is used."""
    for field in structs[name]:
        if field.of is not None and field.of not in ordered:
            arrange(field.of, structs, ordered)
    ordered[name] = structs[name]


def message_of(api: str, kind: str) -> Message:
    """Combine all of kio's versions of a request or a response."""
    package = importlib.import_module(f"kio.schema.{api}")
    versions = sorted(int(m.name[1:]) for m in pkgutil.iter_modules(package.__path__))
    structs: dict[str, list[Field]] = {}
    flexible, flexible_header = [], []
    for version in versions:
        module = importlib.import_module(f"kio.schema.{api}.v{version}.{kind}")
        root: Any = next(
            each
            for each in vars(module).values()
            if dataclasses.is_dataclass(each)
            and vars(each)["__module__"] == module.__name__
            and vars(each)["__type__"].name == kind
        )
        collect(root, version, structs)
        flexible += [version] if root.__flexible__ else []
        if root.__header_schema__ is FlexibleRequestHeader:
            flexible_header.append(version)
    name: str = root.__name__
    ordered: dict[str, list[Field]] = {}
    arrange(name, structs, ordered)
    assert ordered.keys() == structs.keys()
    nulls = NULL_BY_DEFAULT.get(name, set())
    for field in (field for fields in ordered.values() for field in fields):
        if field.name in nulls and field.nullable:
            field.default = None
    key = int(root.__api_key__)
    return Message(
        name,
        kind,
        key,
        versions,
        flexible[0] if flexible else None,
        flexible_header[0] if flexible_header else NEVER + 1,
        ordered,
    )


def annotation(field: Field, kind: str) -> str:
    if field.word == "records":
        return "memoryview | None" if kind == "request" else "Records"
    inner = field.of or ANNOTATIONS.get(field.word, "int")
    whole = f"list[{inner}]" if field.is_array else inner
    return f"{whole} | None" if field.nullable else whole


def declaration(field: Field, versions: list[int], kind: str) -> str:
    """The line that declares a field; `versions`, those of its struct, are not repeated."""
    options = []
    first, last = min(versions), max(versions)
    assert field.versions == list(range(field.versions[0], field.versions[-1] + 1)), field
    if field.default != (() if field.is_array else ZEROS.get(field.word, 0)) and not field.of:
        options.append(f"default={field.default!r}")
    if field.of and field.is_array and field.default is None:
        options.append("default=None")
    if field.versions[0] > first:
        options.append(f"since={field.versions[0]}")
    if field.versions[-1] < last:
        options.append(f"until={field.versions[-1]}")
    if field.nullable:
        assert field.nullable == [v for v in field.versions if v >= field.nullable[0]], field
        options.append(f"null_since={field.nullable[0]}")
    if field.tag is not None:
        options.append(f"tag={field.tag}")
    if field.word in {"uuid", "records"}:
        options = [each for each in options if not each.startswith("default=")]
    if field.is_array:
        word = "array"
        options.insert(0, field.of or f"t.{field.word}")
    elif field.of:
        word = "nullable_struct" if field.nullable else "struct"
        options.insert(0, field.of)
    else:
        word = field.word
    return f"    {field.name}: {annotation(field, kind)} = t.{word}({', '.join(options)})"


def module_of(request: Message, response: Message) -> str:
    """The source of one API's module."""
    title = request.name.removesuffix("Request")
    first, last = request.versions[0], request.versions[-1]
    lines = [
        f'"""{title}, key {request.key}, versions {first} to {last}: its request and its response.',
        "",
        "Generated by tools/gen_messages.py: change that, not this.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
    ]
    body: list[str] = []
    shared = request.structs.keys() & response.structs.keys()
    for message in (request, response):
        renamed = {name: f"{message.kind.capitalize()}{name}" for name in shared}
        for name, fields in message.structs.items():
            if name == message.name:
                versions = message.versions
                options = (
                    f"key={message.key}, kind={message.kind!r}, versions={(first, last)}, "
                    f"flexible={message.flexible}"
                )
                body += ["", "", f"class {name}(t.Message, {options}):"]
            else:
                versions = [version for field in fields for version in field.versions]
                body += ["", "", f"class {renamed.get(name, name)}(t.Struct):"]
            if not fields:
                body.append('    """Nothing in any version."""')
            for field in fields:
                if field.of in renamed:
                    field.of = renamed[field.of]
                body.append(declaration(field, versions, message.kind))
    if any(": Records =" in line for line in body):
        lines += [
            "from typing import TypeAlias",
            "",
            "from ottla.core.model import FileSlice",
            "from ottla.protocol import schema as t",
            "",
            "Records: TypeAlias = bytes | memoryview | FileSlice | None",
        ]
    else:
        lines.append("from ottla.protocol import schema as t")
    return "\n".join(lines + body) + "\n"


APIS_HEAD = '''\
"""The APIs of Apache Kafka that a client can call: keys, names, modules and versions.

Generated by tools/gen_messages.py: change that, not this. Says what can be spoken; what is
served is in `handlers/registry.py`. Importing it imports no message.
"""

from __future__ import annotations

from importlib import import_module

from ottla.protocol.schema import Message
'''

APIS_TAIL = '''

def request_class(key: int) -> type[Message]:
    """The request of an API. Imports its module at first. Raises KeyError for another key."""
    return _load(key, "Request")


def response_class(key: int) -> type[Message]:
    """The response of an API. Imports its module at first. Raises KeyError for another key."""
    return _load(key, "Response")


def _load(key: int, kind: str) -> type[Message]:
    module = import_module(f"ottla.protocol.messages.{MODULES[key]}")
    found: type[Message] = getattr(module, f"{API_NAMES[key]}{kind}")
    return found
'''


def apis_of(requests: dict[int, tuple[str, Message]]) -> str:
    """The source of apis.py."""
    tables: list[tuple[str, str, dict[int, object]]] = [
        ("API_NAMES: dict[int, str]", "Kafka's own names, by key.", {}),
        ("MODULES: dict[int, str]", "Where an API's messages are: modules of `messages`.", {}),
        ("RANGES: dict[int, tuple[int, int]]", "The first and last version that is declared.", {}),
        (
            "FIRST_FLEXIBLE: dict[int, int]",
            "From which version on a request has header v2; one that none reaches for never.\n\n"
            "A response has header v1 from the same version on, ApiVersions excepted: always v0.",
            {},
        ),
    ]
    for key, (api, message) in requests.items():
        values = (
            message.name.removesuffix("Request"),
            api,
            (message.versions[0], message.versions[-1]),
            message.flexible_header,
        )
        for (_, _, table), value in zip(tables, values, strict=True):
            table[key] = value
    lines = [APIS_HEAD]
    for name, text, table in tables:
        lines += [f"{name} = {{", *(f"    {key}: {value!r}," for key, value in table.items()), "}"]
        lines += [f'"""{text}"""', ""]
    return "\n".join(lines) + APIS_TAIL


def formatted(source: str) -> str:
    """As ruff lays it out, so that the checks of the rest of the code hold for this too."""
    ruff = Path(sys.executable).parent / "ruff"
    command = [str(ruff), "format", "--stdin-filename", str(TARGET / "x.py"), "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=True)
    return done.stdout


def generate() -> dict[Path, str]:
    """What each file has to hold."""
    files: dict[Path, str] = {}
    requests: dict[int, tuple[str, Message]] = {}
    for key, api in sorted(api_key_map.items()):
        if key in NOT_FOR_CLIENTS:
            continue
        request, response = message_of(api, "request"), message_of(api, "response")
        assert request.versions == response.versions
        assert re.sub(r"(?<!^)(?=[A-Z])", "_", request.name).lower() == f"{api}_request", api
        assert response.name == request.name.replace("Request", "Response")
        requests[key] = api, request
        files[TARGET / "messages" / f"{api}.py"] = formatted(module_of(request, response))
    files[TARGET / "apis.py"] = formatted(apis_of(requests))
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate the declarations of Kafka's messages.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    check: bool = parser.parse_args().check
    files = generate()
    there = {path for path in (TARGET / "messages").glob("*.py") if path.name != "__init__.py"}
    stale = there - files.keys()
    changed = [p for p, text in files.items() if not p.exists() or p.read_text("utf-8") != text]
    if not check:
        for path in changed:
            path.write_text(files[path], "utf-8")
        for path in stale:
            path.unlink()
        print(f"{len(changed)} of {len(files)} files written, {len(stale)} removed")
        return 0
    for path in [*changed, *stale]:
        print(f"{path} is not what tools/gen_messages.py makes")
    return 1 if changed or stale else 0


if __name__ == "__main__":
    sys.exit(main())
