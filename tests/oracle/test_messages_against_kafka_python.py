"""Our declarations against the schema files that kafka-python carries, which are Kafka's own.

They are fewer than kio's, but say what kio's don't: the names of times, the defaults as written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest

from ottla.protocol import apis
from ottla.protocol.schema import Field, Message, Struct

KINDS = {"bool": "boolean"}
TEXT_OF_ZERO = {"boolean": "false", "string": "", "bytes": "", "float64": "0.0"}


def schemas() -> Iterator[Any]:
    folder = resources.files("kafka.protocol.schemas.resources")
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(("Request.json", "Response.json")):
            text = re.sub(r"^\s*//.*$", "", file.read_text("utf-8"), flags=re.MULTILINE)
            schema = json.loads(text)
            if schema.get("apiKey") in apis.API_NAMES:
                yield pytest.param(schema, id=schema["name"])


def span(text: str | None) -> range:
    """A span of versions as Kafka writes it: none, 3, 3-5 or 3+."""
    if text is None or text == "none":
        return range(0)
    first, plus, last = text.partition("-") if "-" in text else text.partition("+")
    return range(int(first), int(last) + 1 if last else 1000 if plus else int(first) + 1)


def snake(name: str) -> str:
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()


def facts_there(schema: Any, spec: dict[str, Any], version: int) -> tuple[Any, ...]:
    kind = spec["type"].removeprefix("[]")
    is_array = kind != spec["type"]
    kind = KINDS.get(kind, "struct" if kind[0].isupper() else kind)
    nullable = version in span(spec.get("nullableVersions"))
    tag = spec.get("tag") if version in span(spec.get("taggedVersions")) else None
    default = str(spec.get("default", "" if is_array else TEXT_OF_ZERO.get(kind, "0")))
    default = default.lower() if kind == "boolean" else default
    if kind.startswith(("int", "uint")) and not is_array:
        default = str(int(default, 0))
    if kind in {"struct", "uuid", "records"} and not is_array:
        default = ""  # written down nowhere, or only one is possible
    return kind, is_array, nullable, tag, default


def facts_here(field: Field, version: int) -> tuple[Any, ...]:
    default = "null" if field.default is None else str(field.default).lower()
    if (field.kind == "bytes" and field.default == b"") or field.default == ():
        default = ""
    if field.kind in {"struct", "uuid", "records"} and not field.is_array:
        default = ""
    return field.kind, field.is_array, field.is_nullable(version), field.tag, default


def compare(cls: type[Struct], specs: list[dict[str, Any]], schema: Any, version: int) -> None:
    ours = {field.name: field for field in cls.FIELDS if field.is_in(version)}
    theirs = {snake(spec["name"]): spec for spec in specs if version in span(spec["versions"])}
    assert list(ours) == list(theirs), cls
    common = {each["name"]: each["fields"] for each in schema.get("commonStructs", [])}
    for name, spec in theirs.items():
        field = ours[name]
        assert facts_here(field, version) == facts_there(schema, spec, version), (cls, name)
        if field.struct is not None:
            inner = spec.get("fields") or common[spec["type"].removeprefix("[]")]
            compare(field.struct, inner, schema, version)


@pytest.mark.parametrize("schema", list(schemas()))
def test_a_message_is_declared_as_kafka_declares_it(schema: Any) -> None:
    load = apis.request_class if schema["type"] == "request" else apis.response_class
    cls: type[Message] = load(schema["apiKey"])
    assert cls.__name__ == schema["name"]
    there = span(schema["validVersions"])
    versions = [v for v in range(cls.VERSIONS[0], cls.VERSIONS[1] + 1) if v in there]
    assert versions
    flexible = span(schema["flexibleVersions"])
    assert (flexible[0] if flexible else None) == cls.FLEXIBLE
    for version in versions:
        compare(cls, schema["fields"], schema, version)
