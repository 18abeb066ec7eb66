"""Groups of the new protocol (KIP-848) with librdkafka: sharing, patterns, static members, moves.

Every record is taken once by somebody, whatever happens to the members. Heartbeats are set to come
twice a second, so that a rebalance takes one.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.clients.clients import create_topic
from tests.clients.conftest import start_broker
from tests.processes import RunningBroker

WAIT_S = 120.0
QUICK = (
    "group.consumer.min.heartbeat.interval.ms=300",
    "group.consumer.heartbeat.interval.ms=300",
    "group.consumer.session.timeout.ms=30000",
)


@pytest.fixture
def broker(tmp_path):
    one = start_broker(tmp_path, *QUICK)
    yield one
    one.stop()


class Member:
    """One consumer, polled by hand. `owned` is what it has been given and not given up."""

    def __init__(self, bootstrap: str, group: str, topics: list[str], **config: object) -> None:
        self.values: list[tuple[str, int, int]] = []
        self.errors: list[KafkaError] = []
        self.owned: set[tuple[str, int]] = set()
        settings = {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "group.protocol": "consumer",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "topic.metadata.refresh.interval.ms": 500,
            **{name.replace("_", "."): value for name, value in config.items()},
        }
        self.consumer = Consumer(settings)
        self.consumer.subscribe(topics, on_assign=self._got, on_revoke=self._lost)

    def _got(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.owned |= {(one.topic, one.partition) for one in partitions}
        consumer.incremental_assign(partitions)

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.owned -= {(one.topic, one.partition) for one in partitions}
        consumer.incremental_unassign(partitions)

    def poll(self) -> None:
        for message in self.consumer.consume(500, timeout=0.05):
            if message.error():
                self.errors.append(message.error())
                continue
            self.values.append((message.topic(), message.partition(), message.offset()))
            self.consumer.commit(message=message, asynchronous=True)

    def close(self) -> None:
        self.consumer.close()


@contextmanager
def closing(*members: Member) -> Iterator[None]:
    try:
        yield
    finally:
        for member in members:
            member.close()


def until(condition: Callable[[], bool], *members: Member) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        for member in members:
            member.poll()
        owned = [member.owned for member in members]
        assert time.monotonic() < end, (owned, [member.errors for member in members])


def fill(bootstrap: str, topic: str, partitions: int, count: int) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    for number in range(count):
        producer.produce(topic, value=b"%d" % number, partition=number % partitions)
    assert producer.flush(120) == 0


def shared(count: int, *members: Member) -> Callable[[], bool]:
    """All partitions are owned, as evenly as can be, each by one."""

    def condition() -> bool:
        sizes = sorted(len(member.owned) for member in members)
        union = set().union(*(member.owned for member in members))
        return sum(sizes) == len(union) == count and sizes[-1] - sizes[0] <= 1

    return condition


def committed(member: Member, topic: str, partitions: int) -> int:
    """What the group has committed, over all partitions."""
    wanted = [TopicPartition(topic, number) for number in range(partitions)]
    return sum(max(one.offset, 0) for one in member.consumer.committed(wanted, timeout=120))


def since(offset: int, *members: Member) -> list[tuple[str, int, int]]:
    """What they have read from this offset on, in every partition."""
    return [one for member in members for one in member.values if one[2] >= offset]


def names() -> tuple[str, str]:
    tail = secrets.token_hex(4)
    return f"topic-{tail}", f"group-{tail}"


def test_members_share_the_partitions_and_each_record_comes_once(broker):
    topic, group = names()
    create_topic(broker.bootstrap, topic, 6)
    fill(broker.bootstrap, topic, 6, 600)
    first = Member(broker.bootstrap, group, [topic])
    second = Member(broker.bootstrap, group, [topic])
    third = Member(broker.bootstrap, group, [topic])
    with closing(first, second, third):
        until(shared(6, first, second, third), first, second, third)
        until(
            lambda: len({*first.values, *second.values, *third.values}) == 600,
            first,
            second,
            third,
        )
        fill(broker.bootstrap, topic, 6, 600)
        # What came before the group was settled may have come twice.
        until(lambda: len({*since(100, first, second, third)}) == 600, first, second, third)
        assert len(since(100, first, second, third)) == 600
    assert not first.errors + second.errors + third.errors


def test_when_a_member_leaves_or_dies_the_others_take_over_where_it_stopped(broker):
    topic, group = names()
    create_topic(broker.bootstrap, topic, 4)
    fill(broker.bootstrap, topic, 4, 400)
    first, second = (Member(broker.bootstrap, group, [topic]) for _ in range(2))
    third = Member(broker.bootstrap, group, [topic])
    with closing(first):
        until(shared(4, first, second, third), first, second, third)
        second.close()
        until(shared(4, first, third), first, third)
        third.close()
        until(shared(4, first), first)
        until(lambda: len({*first.values, *second.values, *third.values}) == 400, first)
        until(lambda: committed(first, topic, 4) == 400, first)


def test_offsets_and_members_survive_kill_9_of_the_broker(broker):
    if isinstance(broker, RunningBroker):
        pytest.skip("this broker is not ours to kill")
    topic, group = names()
    create_topic(broker.bootstrap, topic, 4)
    fill(broker.bootstrap, topic, 4, 200)
    first, second = (Member(broker.bootstrap, group, [topic]) for _ in range(2))
    with closing(first, second):
        until(lambda: len({*first.values, *second.values}) == 200, first, second)
        until(shared(4, first, second), first, second)
        until(lambda: committed(first, topic, 4) == 200, first, second)
        owned = set(first.owned), set(second.owned)
        broker.kill()
        broker.restart()
        fill(broker.bootstrap, topic, 4, 200)
        until(lambda: len({*since(50, first, second)}) == 200, first, second)
        until(shared(4, first, second), first, second)
        assert (first.owned, second.owned) == owned
        assert len(since(50, first, second)) == 200


def test_a_pattern_finds_the_topics_that_are_there_and_those_that_come(broker):
    topic, group = names()
    create_topic(broker.bootstrap, f"{topic}-a", 2)
    create_topic(broker.bootstrap, f"other-{topic}", 2)
    member = Member(broker.bootstrap, group, [f"^{topic}-.*"])
    with closing(member):
        until(lambda: len(member.owned) == 2, member)
        create_topic(broker.bootstrap, f"{topic}-b", 3)
        until(lambda: len(member.owned) == 5, member)
        assert {name for name, _ in member.owned} == {f"{topic}-a", f"{topic}-b"}


def test_a_pattern_that_is_none_is_told_to_the_member(broker):
    _, group = names()
    member = Member(
        broker.bootstrap, group, [r"^(x)\1"]
    )  # librdkafka takes it, RE2 knows no back references
    with closing(member):
        until(lambda: bool(member.errors), member)
    assert member.errors[0].code() in (KafkaError.INVALID_REGULAR_EXPRESSION, KafkaError._FATAL)


def test_partitions_that_are_added_are_given_out(broker):
    from confluent_kafka.admin import NewPartitions

    topic, group = names()
    create_topic(broker.bootstrap, topic, 2)
    member = Member(broker.bootstrap, group, [topic])
    with closing(member):
        until(lambda: len(member.owned) == 2, member)
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        for done in admin.create_partitions([NewPartitions(topic, 5)]).values():
            done.result()
        until(lambda: len(member.owned) == 5, member)


def test_h105_a_static_member_comes_back_to_what_it_had_and_nobody_takes_its_place(broker):
    topic, group = names()
    create_topic(broker.bootstrap, topic, 4)
    first = Member(broker.bootstrap, group, [topic], group_instance_id="one")
    second = Member(broker.bootstrap, group, [topic], group_instance_id="two")
    with closing(second):
        until(shared(4, first, second), first, second)
        had = set(first.owned)
        rival = Member(broker.bootstrap, group, [topic], group_instance_id="one")
        until(lambda: bool(rival.errors), rival, first, second)
        assert rival.errors[0].code() in (
            KafkaError.UNRELEASED_INSTANCE_ID,
            KafkaError._FATAL,
        )
        assert first.owned == had
        first.close()
        again = Member(broker.bootstrap, group, [topic], group_instance_id="one")
        with closing(again):
            until(lambda: again.owned == had, again, second)
            assert not second.errors


def test_a_group_moves_from_classic_to_consumer_and_back_while_it_works(broker):
    topic, group = names()
    create_topic(broker.bootstrap, topic, 4)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})

    def kind() -> str:
        listed = admin.list_consumer_groups().result().valid
        return next(one.type.name for one in listed if one.group_id == group)

    def classic() -> Member:
        return Member(
            broker.bootstrap,
            group,
            [topic],
            group_protocol="classic",
            partition_assignment_strategy="cooperative-sticky",
            session_timeout_ms=30000,
            heartbeat_interval_ms=300,
        )

    old = classic()
    until(shared(4, old), old)
    assert kind() == "CLASSIC"
    new = Member(broker.bootstrap, group, [topic])
    until(shared(4, old, new), old, new)
    assert kind() == "CONSUMER"
    fill(broker.bootstrap, topic, 4, 100)
    until(lambda: len({*old.values, *new.values}) == 100, old, new)
    old.close()
    until(shared(4, new), new)
    assert kind() == "CONSUMER"
    back = classic()
    with closing(back):
        until(shared(4, new, back), new, back)
        new.close()
        until(shared(4, back), back)
        assert kind() == "CLASSIC"
        fill(broker.bootstrap, topic, 4, 100)
        until(lambda: len({*old.values, *new.values, *back.values}) == 200, back)
    assert not old.errors + new.errors + back.errors


def test_committing_in_the_name_of_a_stranger_is_refused(broker):
    topic, group = names()
    create_topic(broker.bootstrap, topic, 1)
    member = Member(broker.bootstrap, group, [topic])
    stranger = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": group})
    with closing(member):
        until(shared(1, member), member)
        with pytest.raises(KafkaException) as refused:
            stranger.commit(offsets=[TopicPartition(topic, 0, 7)], asynchronous=False)
        assert refused.value.args[0].code() == KafkaError.UNKNOWN_MEMBER_ID
    stranger.close()
