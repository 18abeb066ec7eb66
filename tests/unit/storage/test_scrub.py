"""The scrubber reads everything once a pass, no faster than it may, and damage is found."""

from __future__ import annotations

import pytest

from ottla.core.model import Offset
from ottla.core.ports import CreateFile, DiskError
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import BatchView
from ottla.storage.recovery import Hints, open_log
from ottla.storage.scrub import Scrubber
from ottla.storage.segment import new_segment
from ottla.storage.settings import LogSettings
from ottla.testing.simfile import Fault

from .conftest import TOPIC_ID, Bench, make_batch

SETTINGS = LogSettings(segment_bytes=3000, index_interval_bytes=300)
FIRST = "/data/t-0/00000000000000000000"
DAY_S = 24 * 3600.0


@pytest.fixture
def bench() -> Bench:
    bench = Bench(settings=SETTINGS)
    for number in range(60):
        bench.append(make_batch(size=40, timestamp=1000 + number))
    bench.settle()
    return bench


def scrubber(bench: Bench, pause_s: float = DAY_S, rate: int = 1000) -> Scrubber:
    failures: list[DiskError] = []
    pace = (lambda: pause_s, lambda: rate)
    made = Scrubber(bench.disk, bench.loop, lambda: [bench.log], pace, failures.append)
    made.start()
    return made


def pass_time(bench: Bench, seconds: float) -> None:
    for _ in range(round(seconds / 10)):
        bench.loop.advance(10)
        bench.settle()


def test_a_pass_reads_all_but_the_last_segment_at_the_pace_it_may(bench):
    made = scrubber(bench, rate=100)
    pass_time(bench, 3500)
    assert made.bytes_read == 0
    pass_time(bench, 300)
    size = bench.log.size - bench.log.segments[-1].size
    assert 0 < made.bytes_read <= size
    pass_time(bench, size / 100)
    assert made.bytes_read == size
    assert made.passes == 1
    assert bench.log.usable


def test_a_large_segment_is_read_in_pieces_with_a_rest_after_each(bench, monkeypatch):
    monkeypatch.setattr("ottla.storage.scrub.PIECE_BYTES", 700)
    made = scrubber(bench, rate=4)
    size = bench.log.size - bench.log.segments[-1].size
    pass_time(bench, 3600)
    begun = made.bytes_read
    for _ in range(3):
        before = made.bytes_read
        pass_time(bench, 300)
        assert 0 < made.bytes_read - before <= 300 * 4 + 1400
    pass_time(bench, size / 4)
    assert begun < 1400
    assert made.bytes_read == size
    assert bench.log.usable, "a piece begins where the one before ended"


def test_without_an_interval_nothing_is_read(bench):
    made = scrubber(bench, pause_s=0)
    pass_time(bench, 2 * DAY_S / 10)
    assert made.bytes_read == 0


def test_damage_in_what_this_process_wrote_is_found_and_not_served(bench):
    scrubber(bench)
    length = make_batch(size=40, timestamp=1000).length
    bench.disk.open(FIRST + ".log").write(b"\xff", 5 * length + 70)
    assert bench.read(5, 1)[0] == 5, "nobody has looked yet"
    pass_time(bench, 4000)
    assert bench.log.damaged_at == 5
    assert bench.read(0, 10_000) == [0, 1, 2, 3, 4]
    answer = bench.log.read(Offset(5), 1, bench.log.end_position())
    assert answer is ErrorCode.KAFKA_STORAGE_ERROR


def test_what_was_in_the_last_segment_before_this_process_is_read_too(bench):
    bench.disk.perform_now(bench.log.closing_steps())
    bench.disk.kill()
    hints = Hints(clean=True, recovery_point=Offset(60))
    bench.log = bench.open(open_log(bench.disk, "/data/t-0", TOPIC_ID, SETTINGS, hints)[0])
    last = bench.log.segments[-1]
    bench.disk.open(last.log.path).write(b"\xff", 70)
    scrubber(bench)
    pass_time(bench, 4000)
    assert bench.log.damaged_at == last.base_offset


def test_a_disk_that_can_not_read_a_piece_does_not_stop_the_pass(bench):
    made = scrubber(bench)
    bench.disk.faults = [Fault("read")]
    pass_time(bench, 4000)
    assert made.passes == 1
    assert bench.log.usable


def test_a_log_that_is_closed_under_way_is_passed_over(bench):
    made = scrubber(bench, rate=100)
    pass_time(bench, 3620)
    assert made.bytes_read > 0
    bench.log.close()
    pass_time(bench, 4000)
    assert made.passes >= 1


def test_a_scrubber_that_is_stopped_begins_nothing_more(bench):
    made = scrubber(bench)
    made.stop()
    pass_time(bench, 4000)
    assert made.bytes_read == 0


def test_holes_that_compaction_has_left_are_no_damage(bench):
    """Whatever the topic's policy was at the start: the first of its segments is written anew."""
    old = bench.log.segments[0]
    batches, position = [], 0
    raw = old.log.read(0, old.size)
    while position < old.size:
        batches.append(BatchView(memoryview(bytearray(raw)), position))
        position += batches[-1].length
    new = new_segment(old.base_offset, bench.disk.perform_now([*_files(".anew")]))
    for batch in [*batches[:3], *batches[5:]]:
        new.append(batch.view, batch.last_offset, batch.max_timestamp, 300)
    new.opened()
    bench.log.replace([old], new)
    made = scrubber(bench)
    pass_time(bench, 4000)
    assert made.passes == 1
    assert new.damage is None
    assert bench.log.usable
    assert bench.read(0, 1 << 20)[:4] == [0, 1, 2, 5]


def _files(suffix: str) -> list[CreateFile]:
    return [CreateFile(f"{FIRST}{kind}{suffix}") for kind in (".log", ".index", ".timeindex")]
