"""Every option of Apache Kafka's broker and topics is here, the same, or absent for a reason.

Its own lists are read from its classes, by a Java program: name, type, default, and whether it can
be changed while the broker runs. What is absent or differs is listed here and argued in
docs/COMPATIBILITY.md, and an entry that is no longer needed fails.
"""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from ottla.core import options
from ottla.core.config import Config
from ottla.core.config_entries import ConfigEntry, broker_entries, topic_entries
from ottla.core.passed_over import IGNORED
from tests import reference

pytestmark = pytest.mark.reference

TYPES = ["-", "BOOLEAN", "STRING", "INT", "SHORT", "LONG", "DOUBLE", "LIST", "CLASS", "PASSWORD"]

# Unlike what is passed over these are refused: to go on without them would be worse than an error.
REFUSED = {
    "authorizer.class.name connection.failed.authentication.delay.ms connections.max.reauth.ms "
    "delegation.token.* principal.builder.class sasl.* security.* ssl.*": "it protects something",
    "*.policy.class.name client.quota.callback.class config.providers": "no class is loaded by name",
    "follower.fetch.last.tiered.offset.enable log.local.retention.* remote.*": "no tiered storage",
}
ABSENT_OF_TOPICS = {
    "local.retention.* remote.*": "no tiered storage",
    "*.replication.throttled.replicas": "nothing is replicated",
}
OTHER_DEFAULTS = {
    "group.consumer.max.size",
    "group.initial.rebalance.delay.ms",
    "group.max.size",
    "listeners",
    "log.dir",
    "max.connection.creation.rate",
    "max.connections",
    "max.connections.per.ip",
    "node.id",
    "queued.max.request.bytes",
    "socket.listen.backlog.size",
    "socket.receive.buffer.bytes",
}
NOT_LIVE = {"listeners", "advertised.listeners"}


@pytest.fixture(scope="module")
def kafkas() -> dict[str, dict[str, Any]]:
    program = Path(__file__).with_name("Options.java")
    told: dict[str, dict[str, Any]] = {"broker": {}, "topic": {}}
    for line in reference.run("java", program).stdout.splitlines():
        one = json.loads(line)
        told[one["of"]][one["name"]] = one
    return told


def default_of(entry: ConfigEntry) -> str | None:
    return entry.synonyms[-1].text if entry.synonyms else entry.text


def same(kafka: str | None, ottla: str | None) -> bool:
    return (kafka or None) == (ottla or None)


def reasons(absent: set[str], patterns: dict[str, str]) -> set[str]:
    """What has none; each pattern must be of use."""
    every = [pattern for words in patterns for pattern in words.split()]
    for pattern in every:
        assert any(fnmatchcase(name, pattern) for name in absent), f"{pattern} is not needed"
    return {name for name in absent if not any(fnmatchcase(name, one) for one in every)}


def test_every_option_of_brokers_is_here_or_absent_for_a_reason(kafkas) -> None:
    ours = {entry.name for entry in broker_entries(Config(options.ALL, {}))}
    absent = set(kafkas["broker"]) - ours
    assert reasons(absent, REFUSED) - IGNORED == set()


def test_every_option_of_topics_is_here_or_absent_for_a_reason(kafkas) -> None:
    ours = {entry.name for entry in topic_entries(Config(options.ALL, {}), {})}
    assert reasons(set(kafkas["topic"]) - ours, ABSENT_OF_TOPICS) == set()


def test_options_of_brokers_have_kafkas_types_defaults_and_moments(kafkas) -> None:
    differ = set()
    for entry in broker_entries(Config(options.ALL, {})):
        kafka = kafkas["broker"].get(entry.name)
        if kafka is None:
            continue
        assert TYPES[entry.kind or 0] == kafka["type"], entry.name
        if not same(kafka["default"], default_of(entry)):
            differ.add(entry.name)
        if entry.name not in NOT_LIVE:
            assert entry.read_only != kafka["live"], entry.name
    assert differ == OTHER_DEFAULTS


def test_options_of_topics_have_kafkas_types_and_defaults(kafkas) -> None:
    for entry in topic_entries(Config(options.ALL, {}), {}):
        kafka = kafkas["topic"].get(entry.name)
        if kafka is not None:
            assert TYPES[entry.kind or 0] == kafka["type"], entry.name
            assert same(kafka["default"], default_of(entry)), entry.name
