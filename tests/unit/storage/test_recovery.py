"""The table of cases: what is found after a stop, and what is done about it."""

from __future__ import annotations

import pytest

from ottla.core.model import Offset
from ottla.core.ports import CreateFile, SyncFile, UnlinkFile
from ottla.protocol.errors import ErrorCode
from ottla.storage.checkpoints import encode_epochs
from ottla.storage.findings import Case, Finding
from ottla.storage.log import Opened
from ottla.storage.recovery import Hints, open_log
from ottla.storage.settings import LogSettings

from .conftest import TOPIC_ID, Bench, make_batch

SETTINGS = LogSettings(segment_bytes=1000, index_interval_bytes=100)
FIRST = "/data/t-0/00000000000000000000"


@pytest.fixture
def bench() -> Bench:
    """Thirty batches of one record by one producer, in several segments, all synced."""
    bench = Bench(settings=SETTINGS)
    for number in range(30):
        bench.append(make_batch(size=20, timestamp=1000 + number, producer=(7, 0, number)))
    bench.settle()
    return bench


def reopen(
    bench: Bench, *, clean: bool = False, recovery_point: int = 0
) -> tuple[Opened, list[Finding]]:
    bench.disk.kill()
    hints = Hints(clean, Offset(recovery_point))
    opened, findings = open_log(bench.disk, "/data/t-0", TOPIC_ID, SETTINGS, hints)
    bench.log = bench.open(opened)
    return opened, findings


def cases(findings: list[Finding]) -> list[Case]:
    return [finding.case for finding in findings]


def edit(bench: Bench, path: str, position: int, data: bytes) -> None:
    bench.disk.open(path).write(data, position)


def last(bench: Bench) -> str:
    return bench.log.segments[-1].log.path


def stop(bench: Bench) -> None:
    bench.disk.perform_now(bench.log.closing_steps())


def test_after_a_clean_stop_nothing_is_read_but_the_end(bench):
    stop(bench)
    reads = []
    opener = bench.disk.open

    def spy(path):
        file = opener(path)
        read = file.read
        file.read = lambda position, length: (reads.append(path), read(position, length))[1]
        return file

    bench.disk.open = spy
    opened, findings = reopen(bench, clean=True, recovery_point=30)
    assert findings == []
    assert bench.log.end == 30
    assert len([path for path in reads if path.endswith(".log")]) <= len(opened.segments) + 1
    assert opened.producers.get(7) is not None


@pytest.mark.parametrize("recovery_point", [0, 29, 30])
def test_an_empty_segment_hides_nothing_where_the_one_before_goes_on(bench, recovery_point):
    base = int(bench.log.segments[-1].base_offset) + 1
    assert base < 29
    bench.disk.perform_now([CreateFile(f"/data/t-0/{base:020d}.log")])
    opened, findings = reopen(bench, recovery_point=recovery_point)
    assert not opened.failed
    assert bench.log.end == 30
    assert Case.DAMAGED not in cases(findings)
    assert f"{base:020d}.log" not in bench.disk.names("/data/t-0")


def test_an_empty_segment_at_the_end_is_damage_where_more_was_synced(bench):
    base = int(bench.log.end)
    bench.disk.perform_now([CreateFile(f"/data/t-0/{base:020d}.log")])
    opened, findings = reopen(bench, recovery_point=base + 2)
    assert opened.failed
    assert Case.DAMAGED in cases(findings)


def test_a_log_shorter_than_at_its_clean_stop_is_not_believed(bench):
    stop(bench)
    bench.disk.open(last(bench)).truncate(10)
    _, findings = reopen(bench, clean=True, recovery_point=30)
    assert Case.END_MISSING in cases(findings)
    assert Case.DAMAGED in cases(findings)
    assert bench.log.failed


def test_a_clean_stop_whose_recovery_points_are_lost_costs_nothing(bench):
    stop(bench)
    _, findings = reopen(bench, clean=True, recovery_point=0)
    assert Case.END_MISSING in cases(findings)
    assert not bench.log.failed
    assert bench.log.end == 30
    assert bench.read(0)[0] == 0


def test_an_unclean_log_that_is_whole_is_kept_whole(bench):
    _, findings = reopen(bench)
    assert findings == []
    assert bench.log.end == 30


@pytest.mark.parametrize("cut", [1, 40, 61, 75])
def test_a_torn_last_batch_is_cut(bench, cut):
    file = bench.disk.open(last(bench))
    whole = file.size()
    length = whole // (30 - bench.log.segments[-1].base_offset)
    file.truncate(whole - cut)
    _, findings = reopen(bench)
    assert cases(findings) == [Case.TORN_TAIL]
    assert bench.log.end == 29
    assert bench.log.segments[-1].log.size() == whole - length
    assert reopen(bench)[1] == []
    assert bench.append(make_batch(), epoch=2) == 29


def test_a_tail_of_zeros_is_cut(bench):
    file = bench.disk.open(last(bench))
    edit(bench, last(bench), file.size(), bytes(5000))
    _, findings = reopen(bench)
    assert cases(findings) == [Case.TORN_TAIL]
    assert bench.log.end == 30


def test_damage_with_a_sound_batch_behind_it_is_kept_as_evidence(bench):
    before = bench.disk.read_file(last(bench))
    edit(bench, last(bench), 70, b"\xff")
    end = bench.log.segments[-1].base_offset
    _, findings = reopen(bench)
    assert cases(findings)[0] is Case.DAMAGED
    assert bench.log.failed
    assert bench.log.end == end
    assert len(bench.disk.read_file(last(bench)) or b"") <= len(before)
    assert bench.read(0)[0] == 0


def test_a_leader_epoch_that_falls_is_damage(bench):
    end = bench.log.segments[-1].size
    length = make_batch(size=20, producer=(7, 0, 29)).length
    edit(bench, last(bench), end - length + 12, (0).to_bytes(4))
    _, findings = reopen(bench)
    assert cases(findings)[0] is Case.DAMAGED
    assert bench.log.failed
    assert bench.log.end == 29


def test_damage_in_what_was_synced_is_never_cut(bench):
    file = bench.disk.open(last(bench))
    file.truncate(file.size() - 5)
    size = file.size()
    _, findings = reopen(bench, recovery_point=30)
    assert cases(findings)[0] is Case.DAMAGED
    assert bench.disk.open(file.path).size() == size
    assert bench.log.failed


def test_a_log_that_ends_before_what_was_synced_is_damaged(bench):
    segment = bench.log.segments[-1]
    bench.disk.open(segment.log.path).truncate(segment.size // (30 - segment.base_offset))
    for _ in range(2):
        reopen(bench, recovery_point=30)
        assert bench.log.failed


def test_every_flipped_bit_past_the_recovery_point_is_noticed(bench):
    path = last(bench)
    raw = bench.disk.read_file(path)
    unchecked = set(range(12, 16))  # the leader epoch: outside the checksum, as Kafka has it
    for at in [n for n in range(100) if n not in unchecked]:
        edit(bench, path, at, bytes([raw[at] ^ 0x04]))
        _, findings = reopen(bench)
        assert cases(findings)[0] in (Case.DAMAGED, Case.TORN_TAIL), at
        assert bench.log.end < 30
        bench.disk.open(path).truncate(0)
        edit(bench, path, 0, raw)


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
@pytest.mark.parametrize("clean", [True, False])
def test_a_missing_or_garbled_index_is_made_anew(bench, suffix, clean):
    stop(bench)
    raw = bench.disk.read_file(FIRST + suffix)
    bench.disk.open(FIRST + suffix).truncate(len(raw) - 3)
    reopen(bench, clean=clean, recovery_point=30 if clean else 0)
    assert bench.log.end == 30
    assert bench.disk.read_file(FIRST + suffix) == raw
    folder, name = bench.disk._parent(FIRST + suffix)
    del folder.names[name]
    reopen(bench, clean=clean, recovery_point=30 if clean else 0)
    assert bench.disk.read_file(FIRST + suffix) == raw


def test_an_index_without_a_log_and_files_aside_are_removed(bench):
    for name in ("00000000000000000099.index", "leader-epoch-checkpoint.tmp", "1.log.deleted"):
        bench.disk._create(f"/data/t-0/{name}", b"x")
    _, findings = reopen(bench)
    assert sorted(cases(findings), key=str) == [Case.LEFTOVER, Case.LEFTOVER, Case.ORPHAN]
    assert reopen(bench)[1] == []


def test_producers_come_from_the_newest_sound_snapshot_and_the_log(bench):
    newest = [n for n in bench.disk.names("/data/t-0") if n.endswith(".snapshot")][-1]
    edit(bench, f"/data/t-0/{newest}", 8, b"\xff")
    opened, findings = reopen(bench)
    assert cases(findings) == [Case.SNAPSHOT_UNSOUND]
    repeated = make_batch(size=20, producer=(7, 0, 29))
    assert opened.producers.check(repeated).base_offset == 29
    assert opened.producers.check(make_batch(producer=(7, 0, 30))) is None
    wrong = opened.producers.check(make_batch(producer=(7, 0, 32)))
    assert wrong is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_a_snapshot_past_the_end_is_removed(bench):
    bench.disk._create("/data/t-0/00000000000000000031.snapshot", b"x")
    _, findings = reopen(bench)
    assert cases(findings) == [Case.SNAPSHOT_AHEAD]
    assert "00000000000000000031.snapshot" not in bench.disk.names("/data/t-0")


@pytest.mark.parametrize("content", [b"", b"0\n1\n9 x\n"])
def test_leader_epochs_that_can_not_be_read_come_from_the_batches(bench, content):
    bench.append(make_batch(), epoch=3)
    bench.disk._create("/data/t-0/leader-epoch-checkpoint", content)
    opened, _ = reopen(bench, recovery_point=29)
    assert opened.epochs.entries() == [(1, 0), (3, 30)]
    written = bench.disk.read_file("/data/t-0/leader-epoch-checkpoint")
    assert written == encode_epochs(opened.epochs.entries())


def test_an_empty_segment_after_a_cut_is_removed():
    bench = Bench(settings=LogSettings(segment_bytes=200))
    bench.append(make_batch())
    bench.append(make_batch())
    assert bench.log.prepare(80, 1, 0) is not None
    bench.settle()
    bench.disk.open(FIRST + ".log").truncate(100)
    _, findings = reopen(bench)
    assert cases(findings) == [Case.TORN_TAIL, Case.EMPTY_SEGMENT, Case.SNAPSHOT_AHEAD]
    assert bench.log.end == 1


@pytest.mark.parametrize("clean", [True, False])
def test_a_first_segment_that_was_compacted_to_nothing_leaves_the_start_where_it_was(bench, clean):
    stop(bench)
    second = bench.log.segments[1].base_offset
    for suffix in (".log", ".index", ".timeindex"):
        bench.disk.open(FIRST + suffix).truncate(0)
    for _ in range(2):  # as Kafka leaves it: there is no checkpoint of a start that is a segment's
        bench.disk.kill()
        hints = Hints(clean, Offset(30))
        opened, _ = open_log(
            bench.disk, "/data/t-0", TOPIC_ID, SETTINGS.replace(compacted=True), hints
        )
        bench.log = bench.open(opened)
        assert not opened.failed
        assert (bench.log.start, bench.log.end) == (0, 30)
        assert bench.read(Offset(0))[0] == second
    assert bench.append(make_batch(), epoch=2) == 30


@pytest.mark.parametrize("clean", [True, False])
def test_a_first_segment_that_is_empty_without_compaction_has_lost_what_was_in_it(bench, clean):
    stop(bench)
    bench.disk.open(FIRST + ".log").truncate(0)
    bench.disk.kill()
    hints = Hints(clean, Offset(30), start_certain=True)
    opened, findings = open_log(bench.disk, "/data/t-0", TOPIC_ID, SETTINGS, hints)
    assert Case.DAMAGED in cases(findings)
    assert opened.failed


def test_a_log_that_lost_all_above_its_start_goes_on_at_its_start(bench):
    bench.disk.kill()
    for segment in bench.log.segments[1:]:
        bench.disk.perform_now([UnlinkFile(file.path) for file in segment.files()])
    hints = Hints(start=Offset(25))
    opened, findings = open_log(bench.disk, "/data/t-0", TOPIC_ID, SETTINGS, hints)
    assert Case.BELOW_START in cases(findings)
    bench.log = bench.open(opened)
    assert (bench.log.start, bench.log.end) == (25, 25)
    assert bench.append(make_batch(), epoch=2) == 25


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("lost", [0, 1])
def test_a_segment_that_is_gone_from_among_those_on_disk_for_certain_is_damage(bench, lost, clean):
    stop(bench)
    bench.disk.kill()
    gone = bench.log.segments[lost]
    bench.disk.perform_now([UnlinkFile(file.path) for file in gone.files()])
    hints = Hints(clean, Offset(30), start_certain=True)
    opened, _ = open_log(bench.disk, "/data/t-0", TOPIC_ID, SETTINGS, hints)
    bench.log = bench.open(opened)
    served: list[int] = []
    while bases := bench.read(len(served)):
        served += bases
    assert served == list(range(gone.base_offset))
    assert bench.log.failed


def test_a_directory_without_segments_is_an_empty_log(bench):
    opened, findings = open_log(bench.disk, "/data/none-0", TOPIC_ID, SETTINGS, Hints())
    assert (opened.segments, findings) == ([], [])


def test_of_two_batches_that_overlap_neither_is_believed(bench):
    base = int(bench.log.segments[-1].base_offset)
    assert base + 4 < 30
    position = bench.log.segments[-1].locate(base + 1, 1000).position
    stop(bench)
    edit(bench, last(bench), position, (base + 2).to_bytes(8))  # as if a hole were before it
    bench.disk.open(last(bench).replace(".log", ".index")).truncate(0)
    bench.disk.kill()
    opened, _ = open_log(
        bench.disk,
        "/data/t-0",
        TOPIC_ID,
        SETTINGS.replace(compacted=True),
        Hints(False, Offset(30)),
    )
    bench.log = bench.open(opened)
    assert opened.failed
    assert bench.read(base) == [base]


def test_a_torn_tail_that_was_cut_does_not_come_back(bench):
    file = bench.disk.open(last(bench))
    size = file.size()
    file.write(b"torn", size)
    bench.disk.perform_now([SyncFile(file)])
    reopen(bench, recovery_point=30)
    bench.disk.crash("nothing")
    assert bench.disk.open(last(bench)).size() == size


def test_snapshots_where_segments_begin_stay(bench):
    stop(bench)
    bases = {f"{one.base_offset:020d}.snapshot" for one in bench.log.segments[1:]}
    assert len(bases) > 1
    reopen(bench, clean=True, recovery_point=30)
    assert bases <= set(bench.disk.names("/data/t-0"))
