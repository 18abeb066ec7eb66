"""`ottla group`: list, describe, delete, and the offsets that groups have committed.

Owns what these commands ask of a cluster and what they print. A group's timeline, which no client
library knows, is asked for as a setting of the group, over a plain connection.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, cast

from ottla.cli.admin import connected, outcome
from ottla.cli.client import (
    PATIENCE_S,
    Cluster,
    address,
    admin_library,
    library,
    metadata,
    wording,
)
from ottla.cli.errors import BadInput, CommandError, nearest
from ottla.cli.render import counted, object_line, table, time_text
from ottla.cli.where import parse_start
from ottla.host.terminal import BOLD, DIM, escaped, painted

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from ottla.cli import arguments

Place = tuple[str, int]
TIMELINE = "ottla.timeline"
_DESCRIBE_CONFIGS, _VERSION, _GROUP_TYPE = 32, 4, 32


def show_list(options: arguments.GroupList) -> int:
    cluster, admin = connected(options)
    found = outcome(cluster, admin.list_consumer_groups(request_timeout=PATIENCE_S))
    for error in found.errors:
        raise CommandError(str(error))
    for group in sorted(found.valid, key=lambda one: one.group_id):
        state = group.state.name.lower()
        said = {"group": group.group_id, "state": state, "type": group.type.name.lower()}
        sys.stdout.write(object_line(said) if options.json else f"{escaped(group.group_id)}\n")
    return 0


def describe(options: arguments.GroupDescribe) -> int:
    """State, members and their partitions; with --timeline what happened lately."""
    cluster, admin = connected(options)
    found = _described(cluster, admin, options.group)
    events = None
    if options.timeline:
        # Over TLS or behind a login our own connection would only be refused.
        plain = cluster.extra.get("security.protocol", "plaintext").lower() == "plaintext"
        if plain:
            events = timeline(*address(options.bootstrap.split(",")[0]), options.group)
        if events is None:
            raise CommandError(
                f"there is no timeline of {options.group}; ottla keeps one of each group whose "
                "members did something since its start, and tells it without TLS"
            )
    if options.json:
        sys.stdout.write(
            object_line(_fields(found) | ({} if events is None else {"timeline": events}))
        )
        return 0
    heading = f"{escaped(found.group_id)}: {found.state.name.lower()}, "
    heading += counted(len(found.members), "member")
    if found.partition_assignor:
        heading += f", {found.partition_assignor}"
    sys.stdout.write(painted(heading, BOLD, sys.stdout) + "\n")
    rows = [("member", "client", "host", "partitions")]
    rows += [
        (one.member_id, one.client_id, one.host, " ".join(_owned(one)) or "-")
        for one in _members(found)
    ]
    if len(rows) > 1:
        sys.stdout.writelines(table(rows, _heading))
    if events is not None:
        sys.stdout.writelines(_timeline_lines(events))
    return 0


def _described(cluster: Cluster, admin: AdminClient, group: str) -> Any:
    futures = admin.describe_consumer_groups([group], request_timeout=PATIENCE_S)
    found = outcome(cluster, futures[group])
    if found.state.name == "DEAD":
        raise _unknown(cluster, admin, group)
    return found


def _unknown(cluster: Cluster, admin: AdminClient, group: str) -> BadInput:
    listed = outcome(cluster, admin.list_consumer_groups(request_timeout=PATIENCE_S))
    meant = nearest(group, [one.group_id for one in listed.valid])
    return BadInput(f"there is no group {group!r}; try: {meant or 'ottla group list'}")


def _members(found: Any) -> list[Any]:
    return sorted(found.members, key=lambda one: str(one.member_id))


def _owned(member: Any) -> list[str]:
    places = member.assignment.topic_partitions if member.assignment else []
    return sorted(f"{one.topic}-{one.partition}" for one in places)


def _fields(found: Any) -> dict[str, Any]:
    return {
        "group": found.group_id,
        "state": found.state.name.lower(),
        "assignor": found.partition_assignor,
        "members": [
            {
                "member": one.member_id,
                "instance": one.group_instance_id,
                "client": one.client_id,
                "host": one.host,
                "partitions": _owned(one),
            }
            for one in _members(found)
        ],
    }


def _timeline_lines(events: list[dict[str, Any]]) -> list[str]:
    rows = [("time", "what", "generation", "after ms", "who and why")]
    for event in events:
        took = "-" if event["took_ms"] is None else str(event["took_ms"])
        words = f"{event['member']} {event['text']}".strip() or "-"
        at = time_text(event["at_ms"])
        rows.append((at, event["kind"], str(event["generation"]), took, words))
    return table(rows, _heading)


def _heading(line: str) -> str:
    return painted(line, DIM, sys.stdout)


def timeline(host: str, port: int, group: str) -> list[dict[str, Any]] | None:
    """What happened to a group lately, oldest first; None where the broker doesn't know."""
    from ottla.protocol.client import ClientConnection
    from ottla.protocol.codec import decoder, encoder
    from ottla.protocol.messages.describe_configs import (
        DescribeConfigsRequest,
        DescribeConfigsResource,
        DescribeConfigsResponse,
    )

    resource = DescribeConfigsResource(
        resource_type=_GROUP_TYPE, resource_name=group, configuration_keys=[TIMELINE]
    )
    request = DescribeConfigsRequest(resources=[resource])
    connection = ClientConnection("ottla-cli")
    body = cast("list[bytes]", encoder(DescribeConfigsRequest, _VERSION)(request))
    with socket.create_connection((host, port), PATIENCE_S) as sock:
        sock.sendall(connection.request(_DESCRIBE_CONFIGS, _VERSION, body))
        while (room := connection.room()) is not None and (count := sock.recv_into(room)):
            for _, view in connection.answers(count):
                answer = decoder(DescribeConfigsResponse, _VERSION)(view, 0)[0]
                for one in answer.results[0].configs:
                    return cast("list[dict[str, Any]]", json.loads(one.value or "[]"))
                return None
    return None


# --- offsets -------------------------------------------------------------------------------


def offsets(options: arguments.GroupOffsets) -> int:
    """What a group has committed, beside where each partition ends."""
    cluster, admin = connected(options)
    committed = _committed(cluster, admin, options.group)
    if not committed:
        _described(cluster, admin, options.group)
    ends = _ends(cluster, admin, list(committed), admin_library().OffsetSpec.latest())
    rows = [("topic", "partition", "committed", "end", "lag")]
    for (topic, number), offset in sorted(committed.items()):
        end = ends.get((topic, number))
        lag = None if end is None else max(end - offset, 0)
        if options.json:
            said = {"topic": topic, "partition": number, "committed": offset}
            sys.stdout.write(object_line(said | {"end": end, "lag": lag}))
        rows.append((topic, str(number), str(offset), _or_dash(end), _or_dash(lag)))
    if len(rows) == 1:
        sys.stderr.write(f"{escaped(options.group)} has committed nothing\n")
    elif not options.json:
        sys.stdout.writelines(table(rows, _heading))
    return 0


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)


def reset(options: arguments.GroupReset) -> int:
    """Set a group's offsets anew, or with no --execute say what that would do."""
    if (options.to is None) == (options.shift is None):
        raise BadInput("a reset takes one of --to and --shift; try: --to beginning")
    cluster, admin = connected(options)
    committed = _committed(cluster, admin, options.group)
    places = _places(cluster, admin, options.topic) if options.topic else list(committed)
    if not places:
        raise BadInput(f"{options.group} has committed nothing; try: --topic TOPIC")
    wanted = _wanted(cluster, admin, options, committed, places)
    if options.execute:
        _commit(admin, options.group, wanted)
    rows = [("topic", "partition", "committed", "new")]
    for place in sorted(wanted):
        before = committed.get(place)
        if options.json:
            said = {"topic": place[0], "partition": place[1], "before": before}
            said |= {"offset": wanted[place], "done": options.execute}
            sys.stdout.write(object_line(said))
        rows.append((place[0], str(place[1]), _or_dash(before), str(wanted[place])))
    if not options.json:
        sys.stdout.writelines(table(rows, _heading))
        if not options.execute:
            sys.stdout.write("nothing was changed; --execute does it\n")
    return 0


def _wanted(
    cluster: Cluster,
    admin: AdminClient,
    options: arguments.GroupReset,
    committed: dict[Place, int],
    places: list[Place],
) -> dict[Place, int]:
    spec = admin_library().OffsetSpec
    first = _ends(cluster, admin, places, spec.earliest())
    last = _ends(cluster, admin, places, spec.latest())
    missing = [place for place in places if place not in first or place not in last]
    if missing:
        topic, number = missing[0]
        raise CommandError(f"the leader of {topic}-{number} doesn't say what it has; try again")
    aims: dict[Place, int]
    if options.shift is not None:
        # What was never committed begins where a new consumer would, by default.
        aims = {place: committed.get(place, last[place]) + options.shift for place in places}
    else:
        words = {"earliest": "beginning", "latest": "end"}
        text = options.to or ""
        start = parse_start(words.get(text, text), int(time.time() * 1000))
        if start.kind == "beginning":
            aims = first
        elif start.kind == "end":
            aims = last
        elif start.kind == "time":
            found = _ends(cluster, admin, places, spec.for_timestamp(start.value))
            aims = {one: found[one] if found.get(one, -1) >= 0 else last[one] for one in places}
        else:
            aims = dict.fromkeys(places, start.value)
    return {place: min(max(aims[place], first[place]), last[place]) for place in places}


def _places(cluster: Cluster, admin: AdminClient, words: list[str]) -> list[Place]:
    """Partitions of TOPIC or TOPIC:PARTITION. Raises BadInput for one that isn't there."""
    known = metadata(admin, cluster).topics
    places: dict[Place, None] = {}
    for word in words:
        name, colon, number = word.rpartition(":")
        if not (colon and number.isdecimal() and name in known):
            name, number = word, ""
        if name not in known:
            meant = nearest(name, list(known))
            raise BadInput(f"there is no topic {name!r}; try: {meant or 'ottla topic list'}")
        numbers = sorted(known[name].partitions)
        if number and int(number) not in numbers:
            raise BadInput(f"{name} has no partition {number}; try: {name}:{numbers[-1]}")
        places |= dict.fromkeys((name, one) for one in ([int(number)] if number else numbers))
    return list(places)


def _committed(cluster: Cluster, admin: AdminClient, group: str) -> dict[Place, int]:
    asked = library().ConsumerGroupTopicPartitions(group)
    futures = admin.list_consumer_group_offsets([asked], request_timeout=PATIENCE_S)
    found = outcome(cluster, futures[group])
    return {(one.topic, one.partition): one.offset for one in found.topic_partitions}


def _ends(cluster: Cluster, admin: AdminClient, places: list[Place], spec: Any) -> dict[Place, int]:
    """An offset of each partition, by the spec; those whose leader doesn't say are left out."""
    wanted = {library().TopicPartition(*place): spec for place in places}
    if not wanted:
        return {}
    found: dict[Place, int] = {}
    for one, future in admin.list_offsets(wanted, request_timeout=PATIENCE_S).items():
        try:
            found[one.topic, one.partition] = future.result(PATIENCE_S * 2).offset
        except library().KafkaException as error:
            cluster.last_trouble = str(error)
    return found


def _commit(admin: AdminClient, group: str, wanted: dict[Place, int]) -> None:
    kafka = library()
    parts = [kafka.TopicPartition(*place, offset) for place, offset in sorted(wanted.items())]
    asked = kafka.ConsumerGroupTopicPartitions(group, parts)
    try:
        futures = admin.alter_consumer_group_offsets([asked], request_timeout=PATIENCE_S)
        found = futures[group].result(PATIENCE_S * 2)
        errors = [one.error for one in found.topic_partitions if one.error is not None]
    except kafka.KafkaException as exception:
        errors = [exception.args[0]]
    for error in errors:
        if error.code() in {kafka.KafkaError.UNKNOWN_MEMBER_ID, _non_empty()}:
            raise CommandError(
                f"{group} has members, which would commit over it; try: stop them first"
            )
        raise CommandError(wording(error))


def _non_empty() -> int:
    return int(library().KafkaError.NON_EMPTY_GROUP)


def delete(options: arguments.GroupDelete) -> int:
    """Delete groups that nobody is in, with all they have committed."""
    cluster, admin = connected(options)
    names = list(dict.fromkeys(options.groups))
    futures = admin.delete_consumer_groups(names, request_timeout=PATIENCE_S)
    for name in names:
        try:
            futures[name].result(PATIENCE_S * 2)
        except library().KafkaException as error:
            code = error.args[0].code()
            if code == library().KafkaError.GROUP_ID_NOT_FOUND:
                raise _unknown(cluster, admin, name) from None
            if code == _non_empty():
                raise CommandError(f"{name} has members; try: stop them first") from None
            raise CommandError(wording(error.args[0])) from None
        said = {"group": name, "deleted": True}
        sys.stdout.write(object_line(said) if options.json else f"deleted {name}\n")
    return 0
