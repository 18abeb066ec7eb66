"""Real clients share a topic in classic groups: they come, go, die, and come back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from ottla.cli.groups import timeline
from tests.clients.clients import create_topic
from tests.clients.conftest import start_broker
from tests.leash import leashed
from tests.processes import Broker, wait_until

ELSEWHERE = "OTTLA_TEST_BOOTSTRAP" in os.environ
SESSION_MS, SHORT_SESSION_MS = 30_000, 6000 if ELSEWHERE else 3000
"""Where nobody dies a session is long: a machine that stalls for a while must expel nobody."""
PARTITIONS = 4
WAIT_S = 120.0
MEMBER = Path(__file__).with_name("group_member.py")

COOPERATIVE = {"partition.assignment.strategy": "cooperative-sticky"}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "confluent-range": ("confluent", {"partition.assignment.strategy": "range"}),
    "confluent-cooperative": ("confluent", COOPERATIVE),
    "kafka-python": ("kafka-python", {}),
    "kafka-python-cooperative": ("kafka-python", {"cooperative": True}),
    "aiokafka": ("aiokafka", {}),
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    options = () if ELSEWHERE else ("group.min.session.timeout.ms=1000",)
    one = start_broker(tmp_path_factory.mktemp("groups"), *options)
    yield one
    one.stop()


class Member:
    """A process of `group_member.py`, and what it has said."""

    def __init__(self, group: Group, session_ms: int, more: dict[str, Any]) -> None:
        client, settings = KINDS[group.kind]
        words = [client, group.bootstrap, group.name, group.topic, str(session_ms)]
        self._logged, path = tempfile.mkstemp()
        os.unlink(path)
        self._process = subprocess.Popen(
            leashed([sys.executable, str(MEMBER), *words, json.dumps(settings | more)]),
            stdout=subprocess.PIPE,
            stderr=self._logged,
            text=True,
        )
        self.assigned: list[int] | None = None
        self.read: list[tuple[int, int]] = []
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if isinstance(said, dict):
                self.assigned = said["assigned"]
            else:
                self.read.append((said[0], said[1]))

    def story(self) -> str:
        """What it has, whether it lives, and the last that its client logged."""
        size = os.fstat(self._logged).st_size
        logged = os.pread(self._logged, 8000, max(size - 8000, 0))
        ended = self._process.poll()
        lives = "lives" if ended is None else f"ended with {ended}"
        text = logged.decode(errors="replace")
        return f"{lives}, assigned {self.assigned}, {len(self.read)} records read\n{text}"

    def leave(self) -> None:
        self._end(signal.SIGTERM)

    def die(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(how)
        self._process.wait(WAIT_S)
        self._listener.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def forget(self) -> None:
        self.die()
        os.close(self._logged)


class Group:
    """A topic, a group that reads it, and what was written so far."""

    def __init__(self, bootstrap: str, kind: str, name: str) -> None:
        self.bootstrap = bootstrap
        self.kind = kind
        self.name = self.topic = f"{name}-{kind}-{os.getpid()}"
        self.members: list[Member] = []
        self.written = 0
        create_topic(bootstrap, self.topic, PARTITIONS)

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.forget()

    def join(self, session_ms: int = SESSION_MS, /, **more: Any) -> Member:
        self.members.append(Member(self, session_ms, more))
        return self.members[-1]

    def write(self, count: int = 100) -> None:
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self.bootstrap})
        for number in range(self.written, self.written + count):
            producer.produce(self.topic, str(number), partition=number % PARTITIONS)
        self.written += count
        assert producer.flush(120) == 0

    def counts(self) -> Counter[int]:
        return Counter(value for member in self.members for _, value in member.read)

    def all_is_read(self) -> None:
        read = "every record to be read"
        wait_until(lambda: len(self.counts()) == self.written, read, WAIT_S, self.story)

    def shared_by(self, *members: Member) -> None:
        """Wait until these have all partitions between them, each one has some."""

        def is_shared() -> bool:
            shares = [member.assigned or [] for member in members]
            return all(shares) and sorted(chain(*shares)) == list(range(PARTITIONS))

        wait_until(is_shared, "partitions to be shared out", WAIT_S, self.story)

    def story(self) -> str:
        """What happened to the group as the broker saw it, and what each member makes of it."""
        host, _, port = self.bootstrap.rpartition(":")
        events = timeline(host, int(port), self.name) or []
        lines = [" ".join(map(str, event.values())) for event in events]
        stories = [f"member {at}: {one.story()}" for at, one in enumerate(self.members)]
        return "\n".join(["", *lines, *stories])

    def described(self) -> Any:
        from confluent_kafka.admin import AdminClient

        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        return admin.describe_consumer_groups([self.name])[self.name].result(120)


@EVERY_KIND
def test_members_that_come_and_leave_read_every_record_once(broker: Broker, kind: str) -> None:
    with Group(broker.bootstrap, kind, "come-and-leave") as group:
        group.write()
        first = group.join()
        group.all_is_read()
        second = group.join()
        group.shared_by(first, second)
        group.write()
        group.all_is_read()
        assert {partition for partition, value in second.read if value >= 100} == set(
            second.assigned or []
        )
        first.leave()
        group.shared_by(second)
        group.write()
        group.all_is_read()
        second.leave()
        assert set(group.counts().values()) == {1}
        assert group.described().state.name == "EMPTY"


@EVERY_KIND
def test_what_a_member_that_died_had_goes_to_those_who_live(broker: Broker, kind: str) -> None:
    with Group(broker.bootstrap, kind, "die") as group:
        first, second = group.join(), group.join(SHORT_SESSION_MS)
        group.shared_by(first, second)
        group.write()
        group.all_is_read()
        second.die()
        group.write()
        group.all_is_read()
        group.shared_by(first)


@EVERY_KIND
def test_a_group_goes_on_where_it_had_committed(broker: Broker, kind: str) -> None:
    with Group(broker.bootstrap, kind, "go-on") as group:
        group.write()
        before = group.join()
        group.all_is_read()
        before.leave()
        group.write(20)
        after = group.join()
        group.all_is_read()
        after.leave()
        assert sorted(value for _, value in after.read) == list(range(100, 120))


@pytest.mark.parametrize(
    "kind", ["confluent-range", "confluent-cooperative", "kafka-python", "aiokafka"]
)
def test_a_static_member_that_is_back_in_time_disturbs_nobody(broker: Broker, kind: str) -> None:
    name = "group.instance.id" if kind.startswith("confluent") else "group_instance_id"
    with Group(broker.bootstrap, kind, "static") as group:
        first, second = (group.join(**{name: one}) for one in ("one", "two"))
        group.shared_by(first, second)
        group.write()
        group.all_is_read()
        had = second.assigned
        first.assigned = None
        second.die()
        again = group.join(**{name: "two"})
        group.write()
        group.all_is_read()
        assert again.assigned == had
        assert first.assigned is None, "the other one was not assigned anew"


def test_automatic_commits_are_kept(broker: Broker) -> None:
    with Group(broker.bootstrap, "confluent-range", "automatic") as group:
        group.write()
        member = group.join(**{"enable.auto.commit": True})
        group.all_is_read()
        member.leave()
        group.write(8)
        after = group.join()
        group.all_is_read()
        assert sorted(value for _, value in after.read) == list(range(100, 108))


def test_a_group_lives_through_the_kill_of_its_broker(tmp_path: Path) -> None:
    if ELSEWHERE:
        pytest.skip("this broker is somebody else's")
    broker = start_broker(tmp_path, "group.min.session.timeout.ms=1000")
    try:
        with Group(broker.bootstrap, "confluent-range", "kill") as group:
            first, second = group.join(), group.join()
            group.shared_by(first, second)
            group.write()
            group.all_is_read()
            broker.kill()
            broker.restart()
            group.write()
            group.all_is_read()
            assert set(group.counts().values()) == {1}
    finally:
        broker.stop()
