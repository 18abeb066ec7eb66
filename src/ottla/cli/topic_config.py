"""`ottla topic config`: a topic's options, shown, set and taken back.

Owns what it asks of a cluster and what it prints. Which options there are, the broker says.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ottla.cli.admin import connected, outcome
from ottla.cli.client import PATIENCE_S, Cluster, admin_library, existing_topic, setting
from ottla.cli.errors import BadInput, nearest
from ottla.cli.render import counted, object_line
from ottla.host.terminal import DIM, painted

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from ottla.cli import arguments

SOURCES = {
    "DYNAMIC_TOPIC_CONFIG": "topic",
    "DYNAMIC_BROKER_CONFIG": "broker, changed while it runs",
    "DYNAMIC_DEFAULT_BROKER_CONFIG": "all brokers, changed while they run",
    "STATIC_BROKER_CONFIG": "broker",
    "DEFAULT_CONFIG": "default",
}
"""Where a value comes from, in Kafka's words and in ours."""


def run(options: arguments.TopicConfig) -> int:
    """Change what is to be changed, else show. Raises BadInput, CommandError."""
    words = options.settings or []
    wanted = [word.strip() for word in words if "=" not in word]
    where = f"ottla topic config {options.name}"
    changed = dict(setting(word, where) for word in words if "=" in word)
    if (changed or options.delete) and (wanted or options.all):
        raise BadInput("show options or change them, not both; try: one after the other")
    if both := changed.keys() & set(options.delete):
        raise BadInput(f"{min(both)} is set and deleted at once; try: one of the two")
    cluster, admin = connected(options)
    existing_topic(admin, cluster, options.name)
    if not changed and not options.delete:
        return _show(cluster, admin, options, wanted)
    if options.delete:
        # A broker takes back, without a word, what there is not.
        found = _described(cluster, admin, options.name)
        for name in options.delete:
            _must_be_there(name, found)
    change(cluster, admin, options.name, changed, options.delete)
    done = [f"set {name}={value}" for name, value in changed.items()]
    done += [f"deleted {name}" for name in options.delete]
    if options.json:
        said = {"topic": options.name, "set": changed, "deleted": options.delete}
        sys.stdout.write(object_line(said))
    else:
        sys.stdout.writelines(f"{line}\n" for line in done)
    return 0


def change(
    cluster: Cluster,
    admin: AdminClient,
    topic: str,
    changed: Mapping[str, str],
    deleted: Sequence[str],
) -> None:
    """Set and take back options of a topic, all or none (KIP-339)."""
    lib: Any = admin_library()
    kinds = lib.AlterConfigOpType
    entries = [
        lib.ConfigEntry(name, value, incremental_operation=kinds.SET)
        for name, value in changed.items()
    ]
    entries += [lib.ConfigEntry(name, None, incremental_operation=kinds.DELETE) for name in deleted]
    resource = lib.ConfigResource(lib.ResourceType.TOPIC, topic, incremental_configs=entries)
    futures = admin.incremental_alter_configs([resource], request_timeout=PATIENCE_S)
    outcome(cluster, futures[resource], f"ottla topic config {topic} --all")


def _described(cluster: Cluster, admin: AdminClient, topic: str) -> Mapping[str, Any]:
    lib: Any = admin_library()
    resource = lib.ConfigResource(lib.ResourceType.TOPIC, topic)
    futures = admin.describe_configs([resource], request_timeout=PATIENCE_S)
    found: Mapping[str, Any] = outcome(cluster, futures[resource], "ottla topic config --help")
    return found


def _must_be_there(name: str, found: Mapping[str, Any]) -> None:
    if name not in found:
        meant = nearest(name, list(found))
        raise BadInput(f"topics have no option {name!r}; try: {meant or '--all, which lists them'}")


def _show(
    cluster: Cluster, admin: AdminClient, options: arguments.TopicConfig, wanted: list[str]
) -> int:
    found = _described(cluster, admin, options.name)
    for name in wanted:
        _must_be_there(name, found)
    shown = wanted or sorted(
        name for name, entry in found.items() if options.all or not entry.is_default
    )
    entries = [(name, found[name].value, source_of(found[name])) for name in shown]
    if options.json:
        sys.stdout.writelines(
            object_line({"topic": options.name, "name": name, "value": value, "source": source})
            for name, value, source in entries
        )
        return 0
    for name, value, source in entries:
        origin = painted(f"  # {source}", DIM, sys.stdout)
        sys.stdout.write(f"{name}={'' if value is None else value}{origin}\n")
    if not entries:
        count = counted(len(found), "option")
        sys.stderr.write(f"{options.name} has nothing but defaults; --all shows its {count}\n")
    return 0


def source_of(entry: Any) -> str:
    """Who set a value: the topic, the broker, or nobody."""
    name = getattr(entry.source, "name", None)
    if name is None:  # the library gives a bare number here
        name = admin_library().ConfigSource(entry.source).name
    return SOURCES.get(name, str(name).lower())
