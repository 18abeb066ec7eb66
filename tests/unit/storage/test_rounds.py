"""Sync rounds."""

from __future__ import annotations

from errno import EIO

import pytest

from ottla.core.ports import DiskError
from ottla.storage.rounds import Covered
from ottla.storage.settings import LogSettings
from ottla.testing.simfile import Fault

from .conftest import Bench, make_batch


def syncs(bench: Bench) -> int:
    return sum(kind == "sync" and path.endswith(".log") for kind, path in bench.disk.log)


def test_an_append_is_flushed_by_the_round_that_began_after_it(bench):
    bench.append(make_batch())
    called = []
    bench.log.on_flushed = lambda: called.append(bench.log.flushed)
    assert bench.log.flushed == 0
    bench.settle()
    assert called == [1]
    assert bench.log.flushed_position().offset == 1
    assert bench.log.recovery_point == 1


def test_an_append_during_a_round_waits_for_the_next(bench):
    bench.append(make_batch())
    bench.loop.run()
    bench.append(make_batch())
    bench.disk.run()
    assert (bench.log.flushed, bench.log.end) == (1, 2)
    bench.settle()
    assert bench.log.flushed == 2


def test_appends_gather_while_a_round_is_in_flight(bench):
    bench.append(make_batch())
    bench.loop.run()
    for _ in range(50):
        bench.append(make_batch())
        bench.loop.run()
    bench.settle()
    assert bench.rounds.rounds_count == 2
    assert syncs(bench) == 2


def test_a_round_covers_new_names_too(bench):
    bench.append(make_batch())
    bench.settle()
    bench.disk.crash("nothing")
    assert "00000000000000000000.log" in bench.disk.names("/data/t-0")


def test_a_rolled_segment_is_still_covered():
    bench = Bench(settings=LogSettings(segment_bytes=200))
    for _ in range(3):
        bench.append(make_batch())
    bench.settle()
    bench.disk.crash("nothing")
    assert len(bench.disk.read_file("/data/t-0/00000000000000000000.log") or b"") > 100


def test_i30_after_a_failed_sync_nothing_is_flushed_any_more(bench):
    offline = []
    bench.rounds.offline = offline.append
    bench.append(make_batch())
    bench.disk.faults = [Fault("sync", EIO)]
    bench.settle()
    bench.append(make_batch())
    bench.settle()
    assert len(offline) == 1
    assert bench.log.flushed == 0
    with pytest.raises(DiskError):
        bench.rounds.sync_all().result()


def test_under_os_an_append_counts_at_once_and_no_round_runs():
    bench = Bench("os")
    bench.append(make_batch())
    bench.settle()
    assert (bench.log.flushed, bench.log.recovery_point) == (1, 0)
    assert bench.rounds.rounds_count == 0


def test_under_os_everything_can_be_synced_on_demand():
    bench = Bench("os")
    bench.append(make_batch())
    done = bench.rounds.sync_all()
    bench.settle()
    assert done.done
    assert bench.log.recovery_point == 1
    assert bench.rounds.sync_all().done


def test_a_sync_of_everything_waits_for_the_round_that_covers_it(bench):
    bench.append(make_batch())
    bench.loop.run()
    done = bench.rounds.sync_all()
    assert not done.done
    bench.settle()
    assert done.done


def test_under_os_flush_messages_starts_a_round():
    bench = Bench("os", LogSettings(flush_messages=3))
    bench.append(make_batch(2))
    bench.settle()
    assert bench.log.recovery_point == 0
    bench.append(make_batch(2))
    bench.settle()
    assert bench.log.recovery_point == 4


def test_under_os_flush_ms_starts_a_round():
    bench = Bench("os", LogSettings(flush_ms=500))
    bench.append(make_batch())
    bench.loop.advance(0.4)
    bench.settle()
    assert bench.log.recovery_point == 0
    bench.loop.advance(0.2)
    bench.settle()
    assert bench.log.recovery_point == 1


def test_under_os_a_roll_starts_a_round():
    bench = Bench("os", LogSettings(segment_bytes=200))
    for _ in range(3):
        bench.append(make_batch())
    bench.settle()
    assert bench.log.recovery_point >= 2


def test_a_round_keeps_the_files_of_a_log_that_closes(bench):
    bench.append(make_batch())
    bench.loop.run()
    bench.log.close()
    bench.settle()
    assert bench.rounds.failure is None


def test_a_log_that_fails_on_being_told_keeps_the_others_of_its_round_from_nothing(bench):
    told: list[str] = []

    class Told:
        def __init__(self, name: str) -> None:
            self.name = name

        def begin_sync(self) -> Covered:
            return Covered([], [], self.synced)

        def synced(self) -> None:
            told.append(self.name)
            assert self.name != "faulty", "a bug in what waits for the log"

    for name in ("first", "faulty", "last"):
        bench.rounds.request(Told(name))
    done = bench.rounds.sync_all()
    with pytest.raises(AssertionError, match="a bug in what waits"):
        bench.settle()
    assert told == ["first", "faulty", "last"]
    assert done.done
    bench.append(make_batch())
    bench.settle()
    assert bench.log.flushed == 1


@pytest.mark.parametrize("when", ["in flight", "failed"])
def test_no_file_of_a_round_that_did_not_come_about_stays_open(when, monkeypatch):
    bench = Bench(settings=LogSettings(segment_bytes=200))
    made = []
    create = bench.disk._create
    monkeypatch.setattr(bench.disk, "_create", lambda *of: (made.append(create(*of)), made[-1])[1])
    bench.append(make_batch(size=100))
    bench.settle()
    bench.append(make_batch(size=100))
    assert [file for file in made if file.path.endswith(".snapshot")]
    bench.loop.run()
    if when == "failed":
        bench.disk.faults = [Fault("sync", EIO)]
        bench.settle()
        assert bench.rounds.failure is not None
    bench.log.close()
    assert [file.path for file in made if not file.closed] == []
