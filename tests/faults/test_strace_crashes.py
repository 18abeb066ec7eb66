"""What a power cut could have left of a real run, by what the program really called (I27, I25).

The broker runs under strace; its calls are replayed into the simulated disk's model, and at many
moments the states that may be found afterwards are opened: every record whose answer had left is
there, what is there was written, and the metadata store is whole and knows the topic.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from pathlib import Path

import pytest

from ottla.bench import pump, wire
from ottla.core.model import TopicPartition
from ottla.host.sqlite_store import FILE_NAME, SqliteStore
from ottla.host.store_mark import SUFFIX
from ottla.storage.checkpoints import MetaProperties, decode_meta_properties
from ottla.storage.directory import LogDirectory
from ottla.storage.settings import LogSettings
from ottla.testing.simcrash import crash_states
from ottla.testing.simdisk import SimDisk
from ottla.testing.simimage import folder_of
from ottla.testing.simloop import SimLoop
from tests.faults.replay import CALLS, Replay
from tests.faults.strace import Call, calls
from tests.faults.test_strace import KEPT, NUMBERS, TOPIC, answers, exchange, written
from tests.processes import Broker

SOAK = os.environ.get("OTTLA_SOAK") == "1"
MOMENTS = 100_000 if SOAK else 120
STATES_PER_MOMENT = 100 if SOAK else 14


class Run:
    """A recorded run: its calls, and where its files were."""

    def __init__(self, recorded: list[Call], path: str) -> None:
        self.calls = recorded
        self.path = path
        self.sent = answers(recorded)
        self.written = written(recorded)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is not installed: apt-get install strace")
    folder = tmp_path_factory.mktemp("replayed")
    trace, data = folder / "trace", folder / "data"
    wrapper = (program, "-f", "-ttt", "-yy", "-xx", "-s", "1048576", "-e", f"trace={CALLS}")
    with Broker(data, KEPT, wrapper=(*wrapper, "-o", str(trace))) as broker:
        pump.ask((broker.host, broker.port), wire.create_topic(TOPIC, 3))
        exchange((broker.host, broker.port))
    return Run(list(calls(Path(trace))), str(data))


def recovered(run: Run, files: dict[str, bytes]) -> dict[int, bytes]:
    """The content of each partition after a start on these files."""
    disk, loop = SimDisk(), SimLoop()
    disk.root = folder_of(files)
    raw = files.get(f"{run.path}/meta.properties")
    me = decode_meta_properties(raw) or MetaProperties("c", 0, "d")
    directory = LogDirectory(run.path, disk, loop, loop, "commit")
    directory.open(lambda _: _Lock(), me, lambda _partition, _id: LogSettings())
    found = {}
    for name, log in directory.logs.items():
        content = b"".join(one.log.read(0, one.size) for one in log.segments)
        found[name.partition] = content
        assert name == TopicPartition(TOPIC, name.partition)
    directory.release()
    return found


class _Lock:
    def release(self) -> None:
        pass


def moments(run: Run, replay: Replay, dice: random.Random) -> list[int]:
    count = sum(1 for _ in Replay(run.path).run(run.calls))
    picked = range(count) if count <= MOMENTS else sorted(dice.sample(range(count), MOMENTS))
    assert not replay.unknown
    return list(picked)


def test_i27_no_state_that_the_recorded_calls_allow_loses_what_was_answered(run):
    seed = int(os.environ.get("OTTLA_SEED", random.SystemRandom().randrange(1 << 30)))
    print(f"\nOTTLA_SEED={seed} repeats the choice of moments and states")
    dice = random.Random(seed)
    whole: dict[int, bytes] = {}
    for call in run.calls:
        if call.name == "pwrite64" and call.path.endswith(".log"):
            partition = int(Path(call.path).parent.name.rpartition("-")[2])
            whole[partition] = whole.get(partition, b"") + call.data()
    assert run.written.keys() >= NUMBERS
    replay = Replay(run.path)
    picked = set(moments(run, replay, dice))
    tried = 0
    for number, place in enumerate(replay.run(run.calls)):
        if number not in picked:
            continue
        acknowledged = {one for one in NUMBERS if run.sent[one] <= place}
        states = list(crash_states(replay.disk, dice, 4))
        for files in [states[0], *dice.sample(states, min(len(states), STATES_PER_MOMENT))]:
            tried += 1
            found = recovered(run, files)
            for partition, content in found.items():
                assert whole[partition].startswith(content), f"call {place}: not what was written"
            there = {
                int(marker)
                for content in found.values()
                for marker in re.findall(rb"marker-(\d{6})-marker", content)
            }
            assert acknowledged <= there, f"call {place}: {sorted(acknowledged - there)} are lost"
    print(f"{tried} states at {len(picked)} of {number + 1} calls that changed files")
    assert tried > 500


def test_i25_the_metadata_store_is_whole_and_knows_the_topic_in_every_state(run, tmp_path):
    dice = random.Random(1)
    replay = Replay(run.path)
    first = min(run.sent[one] for one in NUMBERS)
    picked = set(moments(run, replay, dice)[:: 1 if SOAK else 3])
    written = {c.returned for c in run.calls if FILE_NAME in c.path and c.name == "pwrite64"}
    marks = {c.returned for c in run.calls if c.path.endswith(f"{FILE_NAME}{SUFFIX}")}
    assert written & marks
    tried = 0
    for number, place in enumerate(replay.run(run.calls)):
        # Each mark, and each write that might come after one it should have come before.
        if number not in picked and place not in marks and place not in written:
            continue
        states = list(crash_states(replay.disk, dice, 2))
        for files in dice.sample(states, min(len(states), STATES_PER_MOMENT // 2)):
            keys = keys_of(files, run.path, tmp_path)
            tried += 1
            if place >= first:
                assert any(key.startswith("/t/") for key in keys), f"call {place}: {keys}"
    print(f"\n{tried} states")
    assert tried > 50


def keys_of(files: dict[str, bytes], path: str, folder: Path) -> list[str]:
    """The keys of the store in these files; SQLite must find nothing to complain of."""
    for suffix in ("", "-wal", "-shm", "-journal", SUFFIX):
        file = folder / f"{FILE_NAME}{suffix}"
        file.unlink(missing_ok=True)
        content = files.get(f"{path}/{FILE_NAME}{suffix}")
        if content is not None and suffix != "-shm":  # shared memory, made anew
            file.write_bytes(content)
    store = SqliteStore(str(folder / FILE_NAME), durable=False)  # refused by no legal state
    try:
        assert store._connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return list(store.read("").result().entries)
    finally:
        store.close()
