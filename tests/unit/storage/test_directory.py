"""A log directory: identity, lock, clean marker, checkpoints, logs that come and go."""

from __future__ import annotations

from errno import EEXIST, EIO

import pytest

from ottla.core.model import LeaderEpoch, TopicId, TopicPartition
from ottla.core.pending import Pending
from ottla.core.ports import (
    CreateFile,
    DiskError,
    MakeDirectory,
    RemoveTree,
    SyncDirectory,
    UnlinkFile,
)
from ottla.storage.checkpoints import MetaProperties
from ottla.storage.directory import LogDirectory, WrongDirectory, partition_of
from ottla.storage.settings import LogSettings
from ottla.testing.simdisk import SimDisk
from ottla.testing.simfile import Fault
from ottla.testing.simimage import files_below
from ottla.testing.simloop import SimLoop

from .conftest import TOPIC_ID, make_batch

ME = MetaProperties("cluster", 0, "directory")
T0 = TopicPartition("t", 0)
MARKER = "/data/.kafka_cleanshutdown"


class Lock:
    def __init__(self) -> None:
        self.held = True

    def release(self) -> None:
        self.held = False


class World:
    def __init__(self) -> None:
        self.disk = SimDisk(1)
        self.loop = SimLoop()
        self.lock = Lock()

    def start(self, me: MetaProperties = ME) -> LogDirectory:
        self.lock = Lock()
        directory = LogDirectory("/data", self.disk, self.loop, self.loop, "commit")
        directory.open(lambda _: self.lock, me, lambda _name, _id: LogSettings())
        return directory

    def settle(self) -> None:
        while self.loop.turn() or self.disk.busy:
            self.disk.step()

    def append(self, directory: LogDirectory, name: TopicPartition = T0) -> None:
        log = directory.logs.get(name) or directory.create(name, TOPIC_ID, LogSettings())
        batch = make_batch()
        if log.prepare(batch.length, LeaderEpoch(1), 0) is not None:
            self.settle()
        log.append(batch, LeaderEpoch(1))


@pytest.fixture
def world() -> World:
    return World()


def test_a_new_directory_gets_an_identity_and_an_old_one_keeps_its_own(world):
    world.start().stop(1)
    other = MetaProperties("cluster", 0, "another")
    assert world.start(other).identity == ME


@pytest.mark.parametrize("me", [MetaProperties("x", 0, "d"), MetaProperties("cluster", 1, "d")])
def test_a_directory_of_others_is_refused_and_let_go(world, me):
    world.start().stop(1)
    with pytest.raises(WrongDirectory):
        world.start(me)
    assert not world.lock.held


def test_i26_two_brokers_never_write_to_one_directory_under_two_ids_and_nothing_of_it_changes(
    world,
):
    """And one whose disk was emptied comes back as another directory, not as the one it was."""
    directory = world.start()
    world.append(directory)
    was = directory.identity
    directory.stop(1)
    before = files_below(world.disk.root)
    with pytest.raises(WrongDirectory, match="node 0, not 1"):
        world.start(MetaProperties(ME.cluster_id, 1, "another"))
    assert files_below(world.disk.root) == before
    world.disk = SimDisk()
    emptied = world.start(MetaProperties(ME.cluster_id, 0, "new"))
    assert emptied.identity.directory_id != was.directory_id
    assert not emptied.was_clean
    assert not emptied.logs


def test_an_identity_that_can_not_be_believed_is_made_anew(world):
    world.start().stop(1)
    file = world.disk.open("/data/meta.properties")
    file.write(b"x", 12)
    directory = world.start()
    assert directory.identity == ME
    assert directory.rebuilt == ["/data/meta.properties"]


def test_a_checkpoint_with_a_digit_gone_wrong_is_not_believed(world):
    directory = world.start()
    world.append(directory)
    world.append(directory)
    world.settle()
    directory.logs[T0].set_start(1)
    directory.stop(1)
    raw = world.disk.read_file("/data/log-start-offset-checkpoint")
    at = raw.index(b"t 0 1") + 4
    world.disk.open("/data/log-start-offset-checkpoint").write(b"2", at)
    directory = world.start()
    assert directory.logs[T0].start == 0
    assert directory.rebuilt == ["/data/log-start-offset-checkpoint"]


def test_a_stop_with_a_damaged_log_is_not_marked_as_clean(world):
    directory = world.start()
    world.append(directory)
    directory.logs[T0].failed = True
    directory.stop(7)
    assert world.disk.read_file(MARKER) is None


def test_a_log_without_an_id_that_was_never_synced_gets_no_recovery_point(world):
    """With one, the next start would take it for the log of the topic that is so named by then."""
    directory = world.start()
    world.append(directory)
    world.settle()
    world.disk.kill()
    world.disk.perform_now([UnlinkFile("/data/t-0/partition.metadata")])
    for name in ("recovery-point-offset-checkpoint", "log-start-offset-checkpoint"):
        world.disk.perform_now([UnlinkFile(f"/data/{name}")])
    for _ in range(2):
        directory = world.start()
        assert T0 not in directory.adoptable
        assert directory.logs[T0].end == 1


def test_i32_a_clean_stop_is_marked_and_the_mark_is_gone_durably_before_anything_is_written(world):
    directory = world.start()
    world.append(directory)
    directory.stop(7)
    assert world.disk.read_file(MARKER) == b'{"version":0,"brokerEpoch":7}'
    assert not world.lock.held
    directory = world.start()
    assert directory.was_clean
    world.disk.crash("nothing")
    assert world.disk.read_file(MARKER) is None


def test_a_stop_after_a_failed_sync_is_not_clean(world):
    directory = world.start()
    world.append(directory)
    world.disk.faults = [Fault("sync", EIO)]
    world.settle()
    directory.stop(7)
    assert world.disk.read_file(MARKER) is None


def test_a_stop_that_can_not_sync_is_not_clean_and_lets_go(world):
    directory = world.start()
    world.append(directory)
    world.disk.faults = [Fault("sync", EIO)]
    with pytest.raises(DiskError):
        directory.stop(7)
    assert world.disk.read_file(MARKER) is None
    assert not world.lock.held


def test_everything_survives_a_power_cut_after_a_clean_stop(world):
    directory = world.start()
    world.append(directory)
    directory.stop(1)
    world.disk.crash("nothing")
    log = world.start().logs[T0]
    assert (log.end, log.topic_id) == (1, TOPIC_ID)


def test_checkpoints_name_what_is_durable(world):
    directory = world.start()
    world.append(directory)
    world.settle()
    world.append(directory)
    done = directory.checkpoint()
    while not done.done:
        world.disk.step()
    assert world.disk.read_file("/data/recovery-point-offset-checkpoint") == (
        b"0\n2\nt 0 1\n~checksum 0 4247571722\n"
    )
    assert world.disk.read_file("/data/log-start-offset-checkpoint") == b"0\n1\n~checksum 0 0\n"


def test_a_raised_start_is_still_raised_after_a_restart(world):
    directory = world.start()
    world.append(directory)
    world.append(directory)
    world.settle()
    directory.logs[T0].set_start(1)
    directory.stop(1)
    assert world.start().logs[T0].start == 1


def test_a_deleted_log_is_gone_and_a_namesake_begins_anew(world):
    directory = world.start()
    world.append(directory)
    gone = directory.delete(T0)
    log = directory.create(T0, TopicId(bytes(16)), LogSettings())
    waiting = log.prepare(80, LeaderEpoch(1), 0)
    assert waiting is not None
    world.settle()
    assert gone.done
    assert waiting.done
    assert "t-0" not in world.disk.names("/data")
    world.append(directory)
    assert log.end == 1


@pytest.mark.parametrize("topic", ["t" * 249, "\N{SNOWMAN}" * 80, "\udcff" * 240])
def test_a_log_with_the_longest_of_names_can_be_deleted_and_set_aside(world, topic):
    name = TopicPartition(topic, 0)
    directory = world.start()
    world.append(directory, name)
    gone = directory.delete(name)
    world.settle()
    gone.result()
    world.append(directory, name)
    [aside] = directory.set_aside([name])
    assert aside.endswith(f"-0.{TOPIC_ID.hex()}-stray")
    assert aside.rpartition("/")[2] in world.disk.names("/data")
    assert world.start().logs == {}


def test_logs_of_one_name_and_id_are_set_aside_one_after_the_other(world):
    several = [TopicPartition("t" * 248 + end, 0) for end in "ab"]  # the same once they are cut
    kept = set()
    for _ in range(2):
        directory = world.start()
        for name in several:
            world.append(directory, name)
        kept |= set(directory.set_aside(several))
    assert len(kept) == 4
    assert {path.rpartition("/")[2] for path in kept} <= set(world.disk.names("/data"))
    assert world.start().logs == {}


def test_what_checkpoints_say_of_a_log_that_is_not_here_is_forgotten_at_a_start(world):
    directory = world.start()
    world.append(directory)
    world.append(directory)
    world.settle()
    directory.starts.move(directory.logs[T0], 1)
    directory.checkpoints.note_cleaned(T0, 2)
    world.settle()
    directory.stop(1)
    world.disk.perform_now([RemoveTree("/data/t-0"), SyncDirectory("/data")])
    directory = world.start()
    assert directory.was_clean
    assert not directory.checkpoints.cleaned
    for name in ("recovery-point-offset", "log-start-offset", "cleaner-offset"):
        assert b"t 0" not in world.disk.read_file(f"/data/{name}-checkpoint")
    world.append(directory)
    world.settle()
    world.disk.kill()
    log = world.start().logs[T0]
    assert (log.start, log.end) == (0, 1)


def test_the_first_start_of_a_new_directory_writes_no_checkpoints(world):
    world.start()
    assert world.disk.names("/data") == ["meta.properties"]


def test_a_log_that_could_not_be_deleted_keeps_its_namesake_out(world):
    directory = world.start()
    world.append(directory)
    world.disk.faults = [Fault("rename", EIO)]
    gone = directory.delete(T0)
    world.settle()
    with pytest.raises(DiskError):
        gone.result()
    assert directory.create(T0, TopicId(bytes(16)), LogSettings()).failed


def test_a_log_is_not_deleted_under_a_round_that_syncs_its_directory(world):
    directory = world.start()
    world.append(directory)
    world.loop.run()
    directory.delete(T0)
    world.settle()
    assert directory.rounds.failure is None


def test_what_was_on_its_way_out_is_removed_at_the_next_start(world):
    world.start().stop(1)
    world.disk._make_directory("/data/t-1.0123-delete")
    world.disk.perform_now([CreateFile("/data/t-1.0123-delete/x")])
    world.start()
    world.settle()
    assert "t-1.0123-delete" not in world.disk.names("/data")


@pytest.mark.parametrize(
    ("name", "partition"),
    [
        ("t-0", ("t", 0)), ("a-b.c-12", ("a-b.c", 12)), ("t", None), ("-0", None), ("t-01", None),
        ("t-x", None), ("t-0.abc-delete", None), ("t-0-future", None), ("t-0-stray", None),
        ("__cluster_metadata-0", None), ("__consumer_offsets-3", ("__consumer_offsets", 3)),
    ],
)  # fmt: skip
def test_a_directory_name_says_which_partition_it_is(name, partition):
    assert partition_of(name) == partition


def test_a_log_that_nothing_changed_since_a_clean_stop_takes_no_sync_to_stop_again(world):
    directory = world.start()
    world.append(directory)
    world.settle()
    directory.stop(1)
    directory = world.start()
    world.disk.log.clear()
    directory.stop(2)
    assert [path for _, path in world.disk.log if "/t-0" in path] == []
    directory = world.start()
    assert directory.was_clean
    world.append(directory)
    world.disk.log.clear()
    directory.stop(3)
    assert ("sync", "/data/t-0/00000000000000000000.log") in world.disk.log
    assert world.start().logs[T0].end == 2


def test_a_log_that_was_on_disk_takes_no_sync_to_open_after_a_crash(world):
    directory = world.start()
    for _ in range(3):
        world.append(directory)
    world.settle()
    directory.checkpoint()
    world.settle()
    for _ in range(2):  # the first start may have had to make the indexes
        world.disk.kill()
        world.disk.log.clear()
        world.start()
    assert [path for _, path in world.disk.log if "/t-0" in path] == []


def test_a_log_that_stood_still_after_a_clean_stop_takes_no_sync_to_open_after_a_crash(world):
    directory = world.start()
    for _ in range(3):
        world.append(directory)
    world.settle()
    directory.stop(1)  # adds the last entry of the time index
    world.start()
    world.disk.kill()
    world.disk.log.clear()
    world.start()
    assert [path for _, path in world.disk.log if "/t-0" in path] == []


def test_logs_are_made_durable_together_after_a_crash(world):
    directory = world.start()
    for topic in ("t", "u", "v"):
        world.append(directory, TopicPartition(topic, 0))
    world.disk.kill()
    world.disk.log.clear()
    world.start()
    kinds = [kind for kind, path in world.disk.log if "-0" in path]
    assert kinds.count("sync") >= 3
    assert kinds == sorted(kinds, key=("sync", "sync directory").index)


FOREIGN = {
    "/data/notes-1": b"a file",
    "/data/backup-1/report.tmp": b"what a sweep would remove",
    "/data/backup-1/old.index": b"as an index without its log",
    "/data/backup-1/2026/x.log": b"",
}


@pytest.mark.parametrize("clean", [True, False])
def test_folders_and_files_of_somebody_s_are_left_as_they_are(world, clean):
    """Though their names are like those of partitions, of topics that come and go besides."""
    directory = world.start()
    world.append(directory)
    world.settle()
    if clean:
        directory.stop(1)
    else:
        world.disk.kill()
    for path, content in FOREIGN.items():
        folder = path.rpartition("/")[0]
        world.disk.perform_now([MakeDirectory(folder), CreateFile(path, content)])
    directory = world.start()
    assert directory.logs.keys() == {T0}
    for name in (TopicPartition("backup", 1), TopicPartition("notes", 1)):
        log = directory.create(name, TOPIC_ID, LogSettings())
        for _ in range(2):
            refused = log.prepare(100, LeaderEpoch(1), 0)
            world.settle()
            with pytest.raises(DiskError) as caught:
                refused.result()
            assert (caught.value.action, caught.value.errno) == ("make directory", EEXIST)
        directory.checkpoint()
        world.settle()
        gone = directory.delete(name)
        world.settle()
        gone.result()
    directory.stop(2)
    world.disk.kill()
    world.start().stop(3)
    assert {path: world.disk.read_file(path) for path in FOREIGN} == FOREIGN


def test_where_somebody_s_folder_is_moved_away_the_log_is_made(world):
    directory = world.start()
    world.disk.perform_now([MakeDirectory("/data/t-0"), CreateFile("/data/t-0/x")])
    log = directory.create(T0, TOPIC_ID, LogSettings())
    log.prepare(100, LeaderEpoch(1), 0)
    world.settle()
    world.disk.perform_now([RemoveTree("/data/t-0")])
    world.append(directory)
    world.settle()
    assert directory.logs[T0].flushed == 1


def test_a_log_whose_first_files_were_refused_uses_the_directory_that_was_made(world):
    directory = world.start()
    log = directory.create(T0, TOPIC_ID, LogSettings())
    world.disk.faults.append(Fault("create", EIO, ".index"))
    log.prepare(100, LeaderEpoch(1), 0)
    world.settle()
    assert "t-0" in world.disk.names("/data")
    world.append(directory)
    world.settle()
    assert directory.logs[T0].flushed == 1


def test_a_deleted_log_keeps_its_name_until_the_round_in_flight_is_over(world, monkeypatch):
    directory = world.start()
    world.append(directory)
    world.settle()
    held: Pending[None] = Pending()
    monkeypatch.setattr(world.disk, "sync", lambda _files, _directories: held)
    world.append(directory)
    world.settle()
    gone = directory.delete(T0)
    world.settle()
    assert "t-0" in world.disk.names("/data")
    assert not gone.done
    held.complete(None)
    world.settle()
    assert "t-0" not in world.disk.names("/data")
    gone.result()
