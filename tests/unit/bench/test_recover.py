"""How starts are measured: what is refused before anything is written, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ottla.bench import dropping, even, pump, recover, recover_figures
from ottla.bench.recover_figures import GIB, Figure, Found, Line, Timed
from ottla.bench.stats import spread
from ottla.bench.wire import batch, produce, produce_to_many


def found_with(line: Line, seconds: list[float], **of: float) -> Found:
    found = Found(int(of.get("partitions", 2000)), of.get("gib", 20.0), 1.0, unsynced_bytes=GIB)
    found.starts[line] = [Timed(s / 2, s, s / 4) for s in seconds]
    return found


def row_of(found: Found, line: Line) -> list[str]:
    return next(row for row in recover_figures.rows(found) if row[0] == line.value)


def test_a_disk_without_room_is_refused_with_what_to_do() -> None:
    wanted = recover.Wanted()
    with pytest.raises(ValueError, match=r"20 GiB of logs need 45\.0 GiB .* --gib, or .* TMPDIR"):
        recover.check(wanted, "/tmp/x", 44 * GIB, "ext4")
    recover.check(wanted, "/tmp/x", 46 * GIB, "ext4")


def test_a_folder_in_memory_is_refused_since_nothing_in_it_is_ever_cold() -> None:
    with pytest.raises(ValueError, match=r"in memory \(tmpfs\)"):
        recover.check(recover.Wanted(), "/tmp/x", 100 * GIB, "tmpfs")


def test_no_more_is_left_unsynced_than_all_of_the_logs() -> None:
    assert recover.Wanted(gib=0.5).unsynced_gib == 0.5
    assert recover.Wanted(gib=50).unsynced_gib == 1.0


def test_a_start_is_judged_by_its_last_partition_and_by_the_median() -> None:
    row = row_of(found_with(Line.CLEAN_COLD, [0.8, 0.9, 1.7]), Line.CLEAN_COLD)
    assert row[1:] == ["0.450", "0.900", "0.225", "0.900 s", "0.800", "1.70", "≤ 1.00 s", "yes"]


@pytest.mark.parametrize(("seconds", "met"), [(2.0, "no"), (0.9, "in the best round")])
def test_a_budget_that_is_missed_says_whether_the_best_round_met_it(
    seconds: float, met: str
) -> None:
    found = found_with(Line.CLEAN_WARM, [seconds, 3.0, 4.0])
    assert row_of(found, Line.CLEAN_WARM)[-1] == met


def test_a_rate_is_what_is_read_in_the_time_beyond_a_start_without_logs() -> None:
    found = found_with(Line.UNSYNCED_WARM, [0.25 + GIB / 2e9])
    found.empty = [Timed(0.25, 0.25, 0.1), Timed(0.5, 0.5, 0.1)]
    row = row_of(found, Line.UNSYNCED_WARM)
    assert (row[4], row[-2:]) == ("2.00 GB/s", ["≥ 1.00 GB/s", "yes"])


def test_a_larger_broker_than_the_budgets_are_for_has_none() -> None:
    for of in ({"partitions": 2001}, {"gib": 21.0}):
        found = found_with(Line.KILLED_COLD, [60.0], **of)
        assert row_of(found, Line.KILLED_COLD)[-2:] == ["", ""]


def test_what_was_not_measured_is_not_met() -> None:
    assert Figure("x", "s", spread([]), 1.0).met == ""
    assert row_of(Found(1, 1.0, 1.0), Line.CLEAN_WARM)[1] == "-"


def test_json_has_every_round_and_the_conditions() -> None:
    lines = recover_figures.as_json(found_with(Line.KILLED_WARM, [4.0, 6.0]))
    killed = next(one for one in lines if one["what"] == Line.KILLED_WARM.value)
    assert [one["all_s"] for one in killed["rounds"]] == [4.0, 6.0]
    assert killed["met"] == "yes"
    assert lines[-1]["partitions"] == 2000


def test_a_partition_that_lost_records_or_found_more_ends_the_measurement() -> None:
    assert even.ends_at([(0, 10), (0, 10)], 10)
    assert not even.ends_at([(0, 10), (6, -1)], 10)
    with pytest.raises(pump.LoadFailed, match="partition 1 ends at 9, not at 10"):
        even.ends_at([(0, 10), (0, 9)], 10)


def test_a_request_for_one_partition_is_the_same_by_either_way() -> None:
    records = batch(160, 100, 1000)
    pieces = produce_to_many("t", range(3, 4), records, -1)
    assert b"".join(pieces) == produce("t", 3, records, -1)


def test_a_plain_read_takes_in_every_log_below_a_folder(tmp_path: Path) -> None:
    for name, size in (("a-0/1.log", 5), ("a-1/1.log", 3 << 20), ("a-1/1.index", 100)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    assert dropping.read_plainly(str(tmp_path))[0] == 5 + (3 << 20)
