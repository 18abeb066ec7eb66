"""DescribeConfigs, key 32, versions 1 to 4.

Topics, brokers (one, or what is set for all), the loggers of a broker, and groups. A broker
answers for itself alone.
v1 synonyms (KIP-226) · v3 types and documentation (KIP-569) · v4 flexible
Not as Kafka: what is asked twice in the same words is told once; settings come in the order of
their names; client metrics are not collected, so nothing is set for them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

from ottla.cluster import keys
from ottla.cluster.configs import ResourceType, wrong_node
from ottla.cluster.image import NO_SETTINGS
from ottla.cluster.names import name_fault
from ottla.core.config_entries import (
    ConfigEntry,
    broker_entries,
    cluster_entries,
    group_entries,
    topic_entries,
    topic_entry,
)
from ottla.handlers.limits import RESOURCES_MAX, too_many
from ottla.handlers.loggers import logger_entries
from ottla.handlers.reply import Reply
from ottla.handlers.timelines import timeline_of
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ottla.handlers.context import Context, Request

TIMELINE = "ottla.timeline"
"""Not a setting: what happened to a group lately, as JSON. Told only to who asks for it by name."""
_DEFAULT, _TEXT = 5, 2

Told: TypeAlias = list[DescribeConfigsResourceResult]
Fault: TypeAlias = tuple[ErrorCode, str]

_UNSERVED = (
    "This most likely occurs because of a request being malformed by the client library or the "
    "message was sent to an incompatible broker. See the broker logs for more details."
)


def handle(context: Context, request: Request[DescribeConfigsRequest]) -> Reply:
    """One result for each resource, in order of first mention.

    INVALID_REQUEST for all where a type is unknown, or there are too many.
    """
    body = request.body
    known = set(ResourceType)
    resources = body.resources
    beyond = too_many(context, request, len(resources), at_most=RESOURCES_MAX)
    if beyond or any(r.resource_type not in known for r in resources):
        fault = (ErrorCode.INVALID_REQUEST, _UNSERVED)
        return Reply(DescribeConfigsResponse(results=[_refused(r, fault) for r in resources]))
    answering = _Answering(context, body)
    # The very same question again would be a whole answer again, for six bytes of it.
    asked = {(r.resource_type, r.resource_name, _keys(r)): r for r in resources}
    return Reply(DescribeConfigsResponse(results=[answering.result(r) for r in asked.values()]))


def _keys(resource: DescribeConfigsResource) -> tuple[str, ...] | None:
    keys = resource.configuration_keys
    return None if keys is None else tuple(keys)


class _Answering:
    """One request. Topics share what they don't set themselves, and the broker is told once."""

    def __init__(self, context: Context, body: DescribeConfigsRequest) -> None:
        self._context = context
        self._image = context.image()
        self._with_synonyms = body.include_synonyms
        self._with_docs = body.include_documentation
        self._found: dict[Callable[..., Iterable[ConfigEntry]], Told] = {}

    def result(self, resource: DescribeConfigsResource) -> DescribeConfigsResult:
        name = resource.resource_name
        found: Told | Fault
        match resource.resource_type:
            case ResourceType.TOPIC:
                found = self._topic(name)
            case ResourceType.BROKER:
                found = self._broker(name)
            case ResourceType.BROKER_LOGGER:
                found = self._loggers(name)
            case ResourceType.GROUP:
                found = self._group(name)
            case _:
                found = []
                if not name:
                    message = "Client metrics subscription name must not be empty"
                    found = (ErrorCode.INVALID_REQUEST, message)
        if isinstance(found, tuple):
            return _refused(resource, found)
        wanted = resource.configuration_keys
        if wanted:
            names = set(wanted)
            found = [one for one in found if one.name in names]
            if resource.resource_type == ResourceType.GROUP and TIMELINE in names:
                found += self._timeline(name)
        return DescribeConfigsResult(
            error_message="",
            resource_type=resource.resource_type,
            resource_name=name,
            configs=found,
        )

    def _topic(self, name: str) -> Told | Fault:
        if fault := name_fault(name):
            return ErrorCode.INVALID_TOPIC_EXCEPTION, fault
        topic = self._image.topics.get(name)
        if topic is None:
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ""
        config = self._context.config
        own = topic.configs
        return [
            self._entry(topic_entry(config, one.name, own)) if one.name in own else one
            for one in self._told_once(topic_entries, config, {})
        ]

    def _broker(self, name: str) -> Told | Fault:
        config = self._context.config
        if not name:
            return self._told_once(cluster_entries, config)
        expected = "{} or empty string,"
        if wrong := wrong_node(name, self._context.node_id, "Broker", expected):
            return ErrorCode.INVALID_REQUEST, wrong
        return self._told_once(broker_entries, config)

    def _loggers(self, name: str) -> Told | Fault:
        if not name:
            return ErrorCode.INVALID_REQUEST, "Broker id must not be empty"
        if wrong := wrong_node(name, self._context.node_id, "Broker", "{}"):
            return ErrorCode.INVALID_REQUEST, wrong
        return self._told_once(logger_entries)

    def _group(self, name: str) -> Told | Fault:
        if not name:
            return ErrorCode.INVALID_REQUEST, "Group name must not be empty"
        settings = self._image.settings.get(keys.group_settings(name), NO_SETTINGS)
        return self._told(group_entries(self._context.config, settings.configs))

    def _timeline(self, name: str) -> Told:
        events = timeline_of(self._context, name)
        if events is None:
            return []
        text = json.dumps(events, separators=(",", ":"))
        return [
            DescribeConfigsResourceResult(
                name=TIMELINE, value=text, read_only=True, config_source=_DEFAULT, config_type=_TEXT
            )
        ]

    def _told_once(self, find: Callable[..., Iterable[ConfigEntry]], *arguments: Any) -> Told:
        if find not in self._found:
            self._found[find] = self._told(find(*arguments))
        return self._found[find]

    def _told(self, entries: Iterable[ConfigEntry]) -> Told:
        return [self._entry(entry) for entry in entries]

    def _entry(self, entry: ConfigEntry) -> DescribeConfigsResourceResult:
        told = DescribeConfigsResourceResult(
            name=entry.name,
            value=entry.text,
            read_only=entry.read_only,
            config_source=entry.source,
            config_type=entry.kind or 0,
            documentation=entry.doc if self._with_docs else None,
        )
        if self._with_synonyms:
            told.synonyms = [
                DescribeConfigsSynonym(name=one.name, value=one.text, source=one.source)
                for one in entry.synonyms
            ]
        return told


def _refused(resource: DescribeConfigsResource, fault: Fault) -> DescribeConfigsResult:
    error, message = fault
    return DescribeConfigsResult(
        error_code=error,
        error_message=message,
        resource_type=resource.resource_type,
        resource_name=resource.resource_name,
    )
