"""What a power cut could have left of a run that rolls, deletes, compacts and ends transactions.

As test_strace_crashes.py, whose run only appends: the broker's real calls are replayed into the
simulated disk's model, and at many moments the states that may be found afterwards are opened. At
each, all that had been acknowledged by then holds: records that nobody deleted, the last value of
each key, how transactions ended, where a log starts, and that a deleted topic is gone (I25, I27,
I34). The places in the trace at which something is acknowledged are those of the answers to
requests of our own, sent behind it.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import struct
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from ottla.core.model import Offset, TopicPartition
from ottla.host.sqlite_store import FILE_NAME
from ottla.records.batch import BatchView
from ottla.records.control import ControlType, end_marker_of
from ottla.storage.checkpoints import MetaProperties, decode_meta_properties
from ottla.storage.directory import LogDirectory
from ottla.storage.settings import LogSettings
from ottla.testing.simcrash import crash_states
from ottla.testing.simdisk import SimDisk
from ottla.testing.simimage import folder_of
from ottla.testing.simloop import SimLoop
from tests.clients.clients import create_topic
from tests.faults.replay import CALLS, Replay
from tests.faults.strace import Call, calls
from tests.faults.test_strace import KEPT, answers
from tests.faults.test_strace_crashes import _Lock, keys_of
from tests.processes import Broker, wait_until

SOAK = os.environ.get("OTTLA_SOAK") == "1"
MOMENTS = 100_000 if SOAK else 70
STATES_PER_MOMENT = 60 if SOAK else 8
FIRST_MARK = 1 << 24
"""Correlation ids from here on are ours; clients count from 1."""
ROLLED, DELETED, COMPACTED, MOVED = TOPICS = ("rolled", "deleted", "compacted", "moved")
KEYS = 3
SMALL = {"segment_index_bytes": "40", "index_interval_bytes": "0", "file_delete_delay_ms": "0"}
OPTIONS = (
    KEPT,
    "log.cleaner.backoff.ms=200",
    "transaction.state.log.num.partitions=1",
    "offsets.topic.num.partitions=1",
)
CUT = Offset(15)


class Fact(NamedTuple):
    """A record that is there from one mark on, until another."""

    topic: str
    number: int
    since: int
    until: int | None = None


class Told:
    """What clients were told, and marks: requests whose answers say in the trace when that was."""

    def __init__(self, broker: Broker) -> None:
        self.address = (broker.host, broker.port)
        self.marks = 0
        self.facts: list[Fact] = []
        self.commits: list[int] = []
        self.cut = self.gone = (0, 0)
        """Marks before and behind DeleteRecords, and the deletion of a topic."""

    def mark(self) -> int:
        """All that was acknowledged before has been when this is answered."""
        self.marks += 1
        with socket.create_connection(self.address, timeout=60) as sock:
            request = struct.pack(">hhih", 18, 0, FIRST_MARK + self.marks, -1)
            sock.sendall(struct.pack(">i", len(request)) + request)
            with sock.makefile("rb") as stream:
                (size,) = struct.unpack(">i", stream.read(4))
                assert len(stream.read(size)) == size
        return self.marks


def value(topic: str, number: int) -> bytes:
    return f"<{topic}:{number:06}>".encode()


def program(broker: Broker, told: Told) -> None:
    """Everything that changes files, each a few times."""
    from confluent_kafka import Producer

    create_topic(broker.bootstrap, ROLLED, 1, **SMALL)
    create_topic(broker.bootstrap, DELETED, 1, **SMALL)
    compacting = {"cleanup_policy": "compact", "min_cleanable_dirty_ratio": "0.01"}
    create_topic(broker.bootstrap, COMPACTED, 1, **SMALL, **compacting)
    create_topic(broker.bootstrap, MOVED, 1)
    producer = Producer({"bootstrap.servers": broker.bootstrap, "acks": "all", "linger.ms": 0})
    for topic, count in ((ROLLED, 24), (DELETED, 9), (COMPACTED, 21)):
        for number in range(count):
            producer.produce(topic, value(topic, number), b"key-%d" % (number % KEYS), 0)
            assert producer.flush(60) == 0
            if number % KEYS == KEYS - 1:
                since = told.mark()
                told.facts += [Fact(topic, one, since) for one in range(number - 2, number + 1)]
    transact(broker, told)
    delete(broker, told)
    cleaned = broker.directory / "cleaner-offset-checkpoint"
    # How far depends on where segments end, and that on when the rounds of syncs come.
    upto = re.compile(rf"^{COMPACTED} 0 (?:1[2-9]|2\d)$", re.MULTILINE)
    wait_until(lambda: cleaned.exists() and bool(upto.search(cleaned.read_text())), "a compaction")
    told.mark()


def transact(broker: Broker, told: Told) -> None:
    from confluent_kafka import Producer

    settings = {"bootstrap.servers": broker.bootstrap, "transactional.id": "mover", "linger.ms": 0}
    producer = Producer(settings)
    producer.init_transactions(60)
    for number in range(6):
        producer.begin_transaction()
        producer.produce(MOVED, value(MOVED, number), partition=0)
        assert producer.flush(60) == 0
        if number % 2:
            producer.abort_transaction(60)
        else:
            producer.commit_transaction(60)
        since = told.mark()
        told.facts.append(Fact(MOVED, number, since))
        if number % 2 == 0:
            told.commits.append(since)


def delete(broker: Broker, told: Told) -> None:
    from confluent_kafka import TopicPartition as At
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    before = told.mark()
    for done in admin.delete_records([At(ROLLED, 0, CUT)]).values():
        done.result(60)
    told.cut = before, told.mark()
    for done in admin.delete_topics([DELETED]).values():
        done.result(60)
    told.gone = told.cut[1], told.mark()
    wait_until(lambda: not list(broker.directory.glob(f"{DELETED}-0*")), "the files to go")


class Run:
    """A recorded run: its calls, where its files were, what was told and when."""

    def __init__(self, recorded: list[Call], path: str, told: Told) -> None:
        self.calls = recorded
        self.path = path
        self.told = told
        sent = answers(recorded)
        self.at = {mark: sent[FIRST_MARK + mark] for mark in range(1, told.marks + 1)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    program_of = shutil.which("strace")
    if program_of is None:
        pytest.skip("strace is not installed: apt-get install strace")
    pytest.importorskip("confluent_kafka")
    folder = tmp_path_factory.mktemp("upkeep")
    trace, data = folder / "trace", folder / "data"
    wrapper = (program_of, "-f", "-ttt", "-yy", "-xx", "-s", "1048576", "-e", f"trace={CALLS}")
    with Broker(data, *OPTIONS, wrapper=(*wrapper, "-o", str(trace))) as broker:
        told = Told(broker)
        program(broker, told)
    return Run(list(calls(Path(trace))), str(data), told)


def recovered(run: Run, files: dict[str, bytes]) -> dict[str, tuple[Offset, bytes]]:
    """The start and the content of each log after a start on these files, by directory name."""
    disk, loop = SimDisk(), SimLoop()
    disk.root = folder_of(files)
    raw = files.get(f"{run.path}/meta.properties")
    me = decode_meta_properties(raw) or MetaProperties("c", 0, "d")
    directory = LogDirectory(run.path, disk, loop, loop, "commit")

    def settings(partition: TopicPartition, _id: object) -> LogSettings:
        return LogSettings(compacted=partition.topic not in (ROLLED, DELETED, MOVED))

    directory.open(lambda _: _Lock(), me, settings)
    found = {}
    for name, log in directory.logs.items():
        content = b"".join(one.log.read(0, one.size) for one in log.segments)
        found[f"{name.topic}-{name.partition}"] = (log.start, content)
    directory.release()
    return found


def judge(run: Run, place: int, found: dict[str, tuple[Offset, bytes]]) -> None:
    """All that had been acknowledged when the call at `place` returned holds."""
    told = run.told
    there = {
        (topic.decode(), int(number))
        for _, content in found.values()
        for topic, number in re.findall(rb"<(\w+):(\d{6})>", content)
    }
    newest = Counter[int]()
    for topic, number in there:
        if topic == COMPACTED:
            newest[number % KEYS] = max(newest[number % KEYS], number)
    gone_from = {DELETED: run.at[told.gone[0]], ROLLED: run.at[told.cut[0]]}
    for fact in told.facts:
        if run.at[fact.since] > place:
            continue
        if fact.topic == COMPACTED:
            assert newest[fact.number % KEYS] >= fact.number, f"{fact} at call {place}"
        elif place < gone_from.get(fact.topic, place + 1) or (
            fact.topic == ROLLED and fact.number >= CUT
        ):
            assert (fact.topic, fact.number) in there, f"{fact} at call {place}"
    if place >= run.at[told.cut[1]]:
        assert found[f"{ROLLED}-0"][0] >= CUT, f"deleted records are back at call {place}"
    if f"{MOVED}-0" in found:
        judge_transactions(run, place, found)


def batches_of(content: bytes) -> list[BatchView]:
    found, at = [], 0
    while at < len(content):
        found.append(BatchView(memoryview(content), at))
        at += found[-1].length
    return found


def judge_transactions(run: Run, place: int, found: dict[str, tuple[Offset, bytes]]) -> None:
    """The marker behind each is the right one; where it is missing, what is to be is known."""
    ends: dict[int, ControlType] = {}
    number = -1
    for batch in batches_of(found[f"{MOVED}-0"][1]):
        if batch.is_control:
            ends[number] = end_marker_of(batch).type
        else:
            (at,) = re.findall(rb"<moved:(\d{6})>", bytes(batch.view))
            number = int(at)
    for number, end in ends.items():
        assert end is (ControlType.ABORT if number % 2 else ControlType.COMMIT), number
    acknowledged = sum(run.at[mark] <= place for mark in run.told.commits)
    missing = [2 * at for at in range(acknowledged) if 2 * at not in ends]
    assert len(missing) <= 1
    if missing:
        _, content = found["__transaction_state-0"]
        assert decided(content) >= acknowledged, f"a commit is forgotten at call {place}"


def decided(content: bytes) -> int:
    """How many commits the coordinator's log says are decided."""
    from ottla.coordinator.entries.transaction_log import decode_entry
    from ottla.coordinator.transaction.states import TransactionState
    from ottla.records.reader import pairs_of

    found = 0
    for batch in batches_of(content):
        for key, raw in pairs_of(batch):
            entry = decode_entry(key, raw)
            state = getattr(entry, "state", None)
            found += state is TransactionState.PREPARE_COMMIT
    return found


NAMES = ("rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "ftruncate", "truncate")


def moments(run: Run, dice: random.Random) -> tuple[set[int], Counter[str]]:
    """Which of the calls that changed something to stop at: half of them change names or cut."""
    by_place = {call.returned: call for call in run.calls}
    replay = Replay(run.path)
    changed = list(replay.run(run.calls))
    assert replay.unknown == set(), "the model doesn't know these calls"
    kinds = Counter(by_place[place].name for place in changed)
    names = [place for place in changed if by_place[place].name in NAMES]
    picked = dice.sample(names, min(len(names), MOMENTS // 2))
    return {*picked, *dice.sample(changed, min(len(changed), MOMENTS // 2))}, kinds


def test_i27_i34_no_state_of_rolls_deletion_compaction_and_transactions_loses_what_was_told(
    run: Run, tmp_path: Path
) -> None:
    seed = int(os.environ.get("OTTLA_SEED", random.SystemRandom().randrange(1 << 30)))
    print(f"\nOTTLA_SEED={seed} repeats the choice of moments and states")
    dice = random.Random(seed)
    picked, kinds = moments(run, dice)
    replay = Replay(run.path)
    tried = 0
    for place in replay.run(run.calls):
        if place not in picked:
            continue
        states = list(crash_states(replay.disk, dice, 4))
        for files in [states[0], *dice.sample(states, min(len(states), STATES_PER_MOMENT))]:
            tried += 1
            judge(run, place, recovered(run, files))
            if tried % 8 == 0 and f"{run.path}/{FILE_NAME}" in files:
                keys = keys_of(files, run.path, tmp_path)
                if place >= run.at[run.told.gone[1]]:
                    assert not any(DELETED in key for key in keys), keys
    print(
        f"{tried} states at {len(picked)} of {kinds.total()} calls that changed files: {dict(kinds)}"
    )
    assert tried > 300


def test_the_recorded_run_did_all_that_it_is_recorded_for(run: Run) -> None:
    paths = [call.names() for call in run.calls if call.name.startswith("rename")]
    ends = Counter(Path(new).suffix for names in paths for new in names[1:])
    gone = [one for call in run.calls if call.name.startswith("unlink") for one in call.names()]
    made = {
        call.path for call in run.calls if call.name == "openat" and "O_CREAT" in call.arguments
    }
    for topic in (ROLLED, DELETED, COMPACTED):
        rolled = [one for one in made if f"/{topic}-0/" in one and one.endswith(".log")]
        assert len(rolled) > 2, f"{topic} was not rolled"
    assert ends[".swap"] >= 1, "nothing was compacted"
    assert sum(f"/{ROLLED}-0/" in one for one in gone) > 2, "no segment was deleted"
    assert any(DELETED in one for one in gone), "no topic was deleted"


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("copy_file_range", "4<%s>, NULL, 5<%s>, NULL, 10, 0", "copy_file_range"),
        ("pwritev2", "4<%s>, [], 1, 0, 0", "pwritev2"),
        ("syncfs", "4<%s>", "syncfs"),
        ("sync", "", "sync"),
        ("io_uring_setup", "8, {}", "io_uring_setup"),
        ("fallocate", "4<%s>, FALLOC_FL_PUNCH_HOLE|FALLOC_FL_KEEP_SIZE, 0, 512",
         "fallocate(FALLOC_FL_PUNCH_HOLE|FALLOC_FL_KEEP_SIZE)"),
    ],
)  # fmt: skip
def test_a_call_that_the_model_does_not_know_is_named(name: str, arguments: str, said: str) -> None:
    path = "".join(f"\\x{byte:02x}" for byte in b"/data/f")
    replay = Replay("/data")
    made = Call("openat", f'AT_FDCWD</>, "{path}", O_RDWR|O_CREAT', 0, 0, 4, path)
    list(replay.run([made, Call(name, arguments.replace("%s", path), 1, 1, 0)]))
    assert replay.unknown == {said}
