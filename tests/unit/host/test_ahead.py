"""Reading ahead at a start: only where the disk must be waited for, and never a reason to fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from ottla.core.model import Offset
from ottla.host.ahead import COLD_S, Log, read_ahead, since_snapshot, touch_directory, will_read
from ottla.storage.index import OFFSET_ENTRY


class Looks:
    """What was touched, by a clock that stands still but for that."""

    def __init__(self, takes_s: float) -> None:
        self.takes_s = takes_s
        self.seen: list[str] = []
        self.now_s = 0.0

    def touch(self, log: Log) -> None:
        self.seen.append(log[0])
        self.now_s += self.takes_s

    def read(self, paths: list[str]) -> set[str]:
        wait = read_ahead([(path, None) for path in paths], self.touch, lambda: self.now_s)
        wait()
        return set(self.seen)


def test_directories_in_memory_are_left_alone_but_for_a_few() -> None:
    assert len(Looks(COLD_S / 2).read([str(n) for n in range(100)])) == 3


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_where_the_disk_is_waited_for_all_are_read(count: int) -> None:
    paths = [str(n) for n in range(count)]
    assert Looks(COLD_S * 2).read(paths) == set(paths)


@pytest.mark.parametrize("certain", [None, Offset(0), Offset(7)])
def test_what_can_not_be_read_is_passed_over(tmp_path: Path, certain: Offset | None) -> None:
    (tmp_path / "a.log").write_bytes(bytes(1 << 20))
    (tmp_path / "empty").touch()
    (tmp_path / "below").mkdir()
    (tmp_path / "gone.log").symlink_to(tmp_path / "nowhere")
    touch_directory((str(tmp_path), certain))
    touch_directory((str(tmp_path / "nowhere"), certain))
    touch_directory((str(tmp_path / "a.log"), certain))


def indexed(folder: Path, base: int, entries: list[tuple[int, int]]) -> str:
    (folder / f"{base:020d}.index").write_bytes(b"".join(OFFSET_ENTRY.pack(*e) for e in entries))
    return f"{base:020d}.log"


def test_a_segment_is_read_from_the_last_batch_that_its_index_leads_to_below_what_is_certain(
    tmp_path: Path,
) -> None:
    name = indexed(tmp_path, 100, [(9, 1000), (19, 2000), (29, 3000)])
    found = [will_read(str(tmp_path), [name], Offset(at)) for at in (90, 105, 110, 125, 500)]
    assert found == [{name: 0}, {name: 0}, {name: 1000}, {name: 2000}, {name: 3000}]


def test_segments_below_what_is_certain_are_believed_and_those_above_read_whole(
    tmp_path: Path,
) -> None:
    names = [indexed(tmp_path, base, [(50, 777)]) for base in (0, 100, 200)]
    assert will_read(str(tmp_path), names, None) == {}
    assert will_read(str(tmp_path), names, Offset(180)) == {names[1]: 777, names[2]: 0}


def test_an_index_that_is_lost_or_makes_no_sense_leads_to_the_beginning(tmp_path: Path) -> None:
    name = indexed(tmp_path, 0, [(-5, -700)])
    assert will_read(str(tmp_path), [name, "x.log"], Offset(9)) == {"x.log": 0}
    (tmp_path / f"{0:020d}.index").unlink()
    assert will_read(str(tmp_path), [name], Offset(9)) == {name: 0}


def test_what_producers_did_is_read_since_their_newest_snapshot() -> None:
    names = ["00000000000000000050.snapshot", "00000000000000000070.snapshot", "x.log"]
    assert since_snapshot(names, Offset(90)) == 70
    assert since_snapshot(names, Offset(60)) == 60
    assert since_snapshot(["x.log"], Offset(60)) == 0
    assert since_snapshot(names, None) is None
