"""What settings would become, or why they can't: decisions without any effect.

Owns the allow-list (H78: nothing is stored whose name is not known), the checks in Apache Kafka
4.3.1's words, and what SET, DELETE, APPEND and SUBTRACT mean (KIP-339). Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

from ottla.cluster import keys
from ottla.cluster.image import NO_SETTINGS, ClusterImage, Settings
from ottla.cluster.names import name_fault
from ottla.cluster.topics import Refused
from ottla.core.config import Config, InvalidConfig, Kind, Option
from ottla.core.config_entries import inherited
from ottla.core.group_options import GROUP_BOUNDS, GROUP_OPTIONS
from ottla.core.model import NodeId, TopicId
from ottla.core.passed_over import IGNORED
from ottla.core.topic_config import check_topic_config
from ottla.core.topic_options import TOPIC_OPTIONS
from ottla.core.value import Value
from ottla.protocol.errors import ErrorCode

SETTINGS_MAX = 10_000
"""Brokers and groups that may have settings of their own: anybody may name a group."""


class ResourceType(IntEnum):
    """org.apache.kafka.common.config.ConfigResource.Type, as on the wire."""

    TOPIC = 2
    BROKER = 4
    BROKER_LOGGER = 8
    CLIENT_METRICS = 16
    GROUP = 32


class ConfigOp(IntEnum):
    """org.apache.kafka.clients.admin.AlterConfigOp.OpType, as on the wire."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


class Alteration(Value):
    """What a request wants of one resource: `changes` are (name, operation, text).

    With `replaces_all` what is not named is no longer set: so the older AlterConfigs means it.
    """

    resource_type: int
    name: str
    changes: Sequence[tuple[str, int, str | None]]
    replaces_all: bool = False


class Planned(Value):
    """Settings as they would be, at `key` of the store.

    `revision` is that of those they are made from, and `topic_id` the topic's they are for.
    """

    key: str
    revision: int
    configs: Mapping[str, str]
    unchanged: bool
    topic_id: TopicId | None = None


def plan_alteration(
    wanted: Alteration, image: ClusterImage, config: Config, node_id: NodeId
) -> Planned | Refused:
    """What the settings would be, or the first reason against them."""
    if refused := _malformed(wanted):
        return refused
    match wanted.resource_type:
        case ResourceType.TOPIC:
            return _of_topic(wanted, image, config)
        case ResourceType.BROKER:
            return _of_broker(wanted, image, config, node_id)
        case ResourceType.GROUP:
            return _of_group(wanted, image, config)
        case ResourceType.CLIENT_METRICS:
            message = "Subscription name can't be empty"
            if wanted.name:
                message = "Client metrics are not collected here."
            return Refused(ErrorCode.INVALID_REQUEST, message)
        case other:
            return Refused(ErrorCode.INVALID_REQUEST, f"Unknown resource type {int(other)}")


def lane_of(wanted: Alteration) -> str:
    """Alterations of one lane would get in each other's way."""
    return f"{int(wanted.resource_type)}/{wanted.name}"


def _malformed(wanted: Alteration) -> Refused | None:
    names = [name for name, _, _ in wanted.changes]
    if len(set(names)) < len(names):
        return Refused(ErrorCode.INVALID_REQUEST, "Error due to duplicate config keys")
    nulls = [n for n, op, text in wanted.changes if text is None and op != ConfigOp.DELETE]
    if nulls:
        message = f"Null value not supported for : {','.join(nulls)}"
        return Refused(ErrorCode.INVALID_REQUEST, message)
    strange = [op for _, op, _ in wanted.changes if not ConfigOp.SET <= op <= ConfigOp.SUBTRACT]
    if strange:
        return Refused(ErrorCode.INVALID_REQUEST, f"Unknown config operation {strange[0]}")
    return None


def _of_topic(wanted: Alteration, image: ClusterImage, config: Config) -> Planned | Refused:
    if not wanted.name:
        return Refused(ErrorCode.INVALID_REQUEST, "Default topic resources are not allowed.")
    if fault := name_fault(wanted.name):
        return Refused(ErrorCode.INVALID_TOPIC_EXCEPTION, fault)
    topic = image.topics.get(wanted.name)
    if topic is None:
        message = f"The topic '{wanted.name}' does not exist."
        return Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, message)
    before = Settings(topic.configs, topic.configs_revision)
    after = _after(wanted, before, TOPIC_OPTIONS, config)
    if isinstance(after, Refused):
        return after
    try:
        check_topic_config(config, after)
    except InvalidConfig as fault_:
        return Refused(ErrorCode.INVALID_CONFIG, str(fault_))
    return _planned(keys.configs_key(topic.id), before, after, topic.id)


def _of_broker(
    wanted: Alteration, image: ClusterImage, config: Config, node_id: NodeId
) -> Planned | Refused:
    key = keys.ALL_BROKERS
    if wanted.name:
        if wrong := wrong_node(wanted.name, node_id):
            return Refused(ErrorCode.INVALID_REQUEST, wrong)
        key = keys.broker_settings(node_id)
    set_names = [name for name, op, _ in wanted.changes if op != ConfigOp.DELETE]
    fixed = [
        name
        for name in set_names
        if name in IGNORED or (name in config.names and not config.is_live(name))
    ]
    if fixed:
        message = f"Cannot update these configs dynamically: [{', '.join(fixed)}]"
        return Refused(ErrorCode.INVALID_REQUEST, message)
    for name in set_names:
        if name not in config.names:
            return Refused(ErrorCode.INVALID_CONFIG, f"Unknown broker config name: {name}")
    before = image.settings.get(key, NO_SETTINGS)
    known = {name: option for name, (option, _) in config.names.items()}
    after = _after(wanted, before, known, config)
    if isinstance(after, Refused):
        return after
    try:
        for name, text in after.items():
            if name in set_names:
                config.check(name, text)
    except InvalidConfig as fault:
        return Refused(ErrorCode.INVALID_REQUEST, str(fault))
    return _planned(key, before, after)


def wrong_node(name: str, node_id: NodeId, kind: str = "Node", expected: str = "{},") -> str | None:
    """Why `name` is not that of this node, or None if it is.

    Kafka says it of a `kind`, and what it `expected`, in other words for each request.
    """
    digits = name.removeprefix("-")
    if not digits.isascii() or not digits.isdecimal():
        return f"{kind} id must be an integer, but it is: {name}"
    if name != str(node_id):
        return f"Unexpected broker id, expected {expected.format(node_id)} but received {name}"
    return None


def _of_group(wanted: Alteration, image: ClusterImage, config: Config) -> Planned | Refused:
    if not wanted.name:
        return Refused(ErrorCode.INVALID_REQUEST, "Default group resources are not allowed.")
    key = keys.group_settings(wanted.name)
    before = image.settings.get(key, NO_SETTINGS)
    after = _after(wanted, before, GROUP_OPTIONS, config)
    if isinstance(after, Refused):
        return after
    try:
        for name, text in after.items():
            _check_of_group(name, text, config)
    except InvalidConfig as fault:
        return Refused(ErrorCode.INVALID_CONFIG, str(fault))
    if after and key not in image.settings and len(image.settings) >= SETTINGS_MAX:
        message = f"Settings are kept for {SETTINGS_MAX} brokers and groups at most."
        return Refused(ErrorCode.POLICY_VIOLATION, message)
    return _planned(key, before, after)


def _check_of_group(name: str, text: str, config: Config) -> None:
    option = GROUP_OPTIONS.get(name)
    if option is None:
        raise InvalidConfig(f"Unknown group config name: {name}")
    value = option.parse(text)
    least, most = GROUP_BOUNDS[name]
    if value < config[least]:
        raise InvalidConfig(f"{name} must be greater than or equal to {least.name}")
    if value > config[most]:
        raise InvalidConfig(f"{name} must be less than or equal to {most.name}")


def _planned(
    key: str, before: Settings, after: Mapping[str, str], topic_id: TopicId | None = None
) -> Planned:
    return Planned(key, before.revision, after, after == before.configs, topic_id)


def _after(
    wanted: Alteration, before: Settings, known: Mapping[str, Option[Any]], config: Config
) -> dict[str, str] | Refused:
    """The settings after all operations, not yet checked."""
    after = {} if wanted.replaces_all else dict(before.configs)
    for name, op, text in wanted.changes:
        if op == ConfigOp.DELETE:
            after.pop(name, None)
        elif op == ConfigOp.SET:
            after[name] = text or ""
        else:
            option = known.get(name)
            if option is None or option.kind is not Kind.LIST:
                return Refused(ErrorCode.INVALID_CONFIG, _no_list(wanted, ConfigOp(op), name))
            now = after.get(name)
            if now is None:
                now = inherited(config, option) or ""
            after[name] = _changed_list(now, ConfigOp(op), text or "")
    return after


def _no_list(wanted: Alteration, op: ConfigOp, name: str) -> str:
    if wanted.resource_type == ResourceType.BROKER:
        return f"Config value {op.name.lower()} is not allowed for config key: {name}"
    return f"Can't {op.name} to key {name} because its type is not LIST."


def _changed_list(now: str, op: ConfigOp, text: str) -> str:
    items, given = _items(now), _items(text)
    if op is ConfigOp.APPEND:
        return ",".join(dict.fromkeys([*items, *given]))
    return ",".join(item for item in items if item not in given)


def _items(text: str) -> list[str]:
    return [item for item in map(str.strip, text.split(",")) if item]
