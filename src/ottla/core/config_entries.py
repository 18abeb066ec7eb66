"""Settings as tools show them: what is in force, who set it, and what it overrides.

Owns the form and the order of Kafka's answer to DescribeConfigs (synonyms, KIP-226). Pure; must
not know messages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from ottla.core.config import BrokerName, Config, Kind, Option
from ottla.core.group_options import GROUP_OPTIONS
from ottla.core.topic_options import TOPIC_OPTIONS


class Source(IntEnum):
    """Who set a value: org.apache.kafka.clients.admin.ConfigEntry.ConfigSource, as on the wire."""

    TOPIC = 1
    BROKER = 2
    CLUSTER = 3
    FILE = 4
    DEFAULT = 5
    LOGGER = 6
    GROUP = 8


class Synonym(NamedTuple):
    """One of the values that a setting could have; the first one found is in force."""

    name: str
    text: str
    source: Source


class ConfigEntry(NamedTuple):
    """One setting. `text` is what is in force, None for what Kafka calls null."""

    name: str
    text: str | None
    source: Source
    read_only: bool
    kind: Kind | None
    doc: str
    synonyms: tuple[Synonym, ...]


def topic_entries(config: Config, own: Mapping[str, str]) -> Iterator[ConfigEntry]:
    """Every setting of a topic whose own ones are `own`, by name."""
    for name in sorted(TOPIC_OPTIONS):
        yield _scoped(config, TOPIC_OPTIONS[name], own, Source.TOPIC)


def topic_entry(config: Config, name: str, own: Mapping[str, str]) -> ConfigEntry:
    """One setting of a topic. Raises KeyError where no option has the name."""
    return _scoped(config, TOPIC_OPTIONS[name], own, Source.TOPIC)


def created_entries(config: Config, own: Mapping[str, str]) -> Iterator[ConfigEntry]:
    """The same as CreateTopics tells them: text as it was sent, and no name left out (KIP-525)."""
    for name in sorted(TOPIC_OPTIONS):
        option = TOPIC_OPTIONS[name]
        entry = _scoped(config, option, own, Source.TOPIC)
        if name in own:
            yield entry._replace(text=own[name])
        else:
            yield entry._replace(source=_source(_all_synonyms(config, option)))


def group_entries(config: Config, own: Mapping[str, str]) -> Iterator[ConfigEntry]:
    """Every setting of a group whose own ones are `own`, by name."""
    for name in sorted(GROUP_OPTIONS):
        yield _scoped(config, GROUP_OPTIONS[name], own, Source.GROUP)


def broker_entries(config: Config) -> Iterator[ConfigEntry]:
    """Every setting of this broker, by each name it can be given under."""
    texts = config.texts
    for name in sorted(config.names):
        option, one = config.names[name]
        synonyms = _broker_synonyms(config, name)
        text = _default(option, one)
        if name in texts:
            text = option.text(option.parse(texts[name], name)) if one.factor == 1 else texts[name]
        kind = option.kind if one.factor == 1 else Kind.INT
        yield ConfigEntry(
            name, text, _source(synonyms), not config.is_live(name), kind, option.doc, synonyms
        )


def cluster_entries(config: Config) -> Iterator[ConfigEntry]:
    """What is set for all brokers while they run, by name; nothing else is shown there."""
    for name in sorted(config.cluster_wide):
        option, _ = config.names[name]
        text = config.cluster_wide[name]
        synonym = Synonym(name, text, Source.CLUSTER)
        yield ConfigEntry(name, text, Source.CLUSTER, False, option.kind, option.doc, (synonym,))


def _scoped(
    config: Config, option: Option[Any], own: Mapping[str, str], source: Source
) -> ConfigEntry:
    synonyms = _broker_synonyms(config, option.broker_names[0].name)
    if option.name in own:
        text = option.text(option.parse(own[option.name]))
        synonyms = (Synonym(option.name, text or "", source), *synonyms)
    else:
        text = inherited(config, option)
    return ConfigEntry(
        option.name, text, _source(synonyms), False, option.kind, option.doc, synonyms
    )


def inherited(config: Config, option: Option[Any]) -> str | None:
    """What holds for a topic or group that sets nothing of its own, as text."""
    base = option if option.scope == "topic" else config.names[option.broker_names[0].name][0]
    return option.text(config[base])


def _source(synonyms: tuple[Synonym, ...]) -> Source:
    return synonyms[0].source if synonyms else Source.DEFAULT


def _broker_synonyms(config: Config, name: str) -> tuple[Synonym, ...]:
    """What this and the other names of its option are set to, the strongest first.

    Kafka leaves out whatever comes before the name asked for itself: so a topic that lives by the
    broker's `log.retention.hours` is said to live by the default. Tools know it so.
    """
    found = _all_synonyms(config, config.names[name][0])
    own = next((at for at, one in enumerate(found) if one.name == name), len(found))
    return found[own:]


def _all_synonyms(config: Config, option: Option[Any]) -> tuple[Synonym, ...]:
    names = option.broker_names or (BrokerName(option.name),)
    found = [
        Synonym(one.name, layer[one.name], source)
        for layer, source in (
            (config.own, Source.BROKER),
            (config.cluster_wide, Source.CLUSTER),
            (config.given, Source.FILE),
        )
        for one in names
        if one.name in layer
    ]
    for one in names:
        default = _default(option, one)
        if default is not None:
            found.append(Synonym(one.name, default, Source.DEFAULT))
    return tuple(found)


def _default(option: Option[Any], name: BrokerName) -> str | None:
    if name.unset:
        return None
    if name.factor == 1:
        return option.text(option.default)
    return str(option.default // name.factor)
