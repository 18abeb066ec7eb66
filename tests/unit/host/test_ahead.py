"""Reading ahead at a start: only where the disk must be waited for, and never a reason to fail."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ottla.core.model import Offset
from ottla.host import ahead
from ottla.host.ahead import (
    COLD_S,
    SLOW_S,
    Log,
    in_memory,
    read_ahead,
    since_snapshot,
    touch_directory,
    will_read,
)
from ottla.host.residency import residency
from ottla.storage.index import OFFSET_ENTRY
from ottla.storage.scanning import HEADERS_CHUNK


class Looks:
    """What was touched, by a clock that stands still but for that."""

    def __init__(self, takes_s: float, here: bool | None = None) -> None:
        self.takes_s = takes_s
        self.here = here
        self.seen: list[str] = []
        self.now_s = 0.0

    def touch(self, log: Log) -> None:
        self.seen.append(log[0])
        self.now_s += self.takes_s

    def begin(self, paths: list[str]) -> Callable[[], None]:
        logs = [(path, None) for path in paths]
        return read_ahead(logs, self.touch, lambda: self.now_s, lambda _: self.here)

    def read(self, paths: list[str]) -> set[str]:
        self.begin(paths)()
        return set(self.seen)


PATHS = [str(n) for n in range(100)]


def test_directories_in_memory_are_left_alone() -> None:
    assert Looks(COLD_S * 2, here=True).read(PATHS) == set()


def test_where_the_kernel_does_not_tell_a_few_are_looked_at() -> None:
    assert len(Looks(COLD_S / 2).read(PATHS)) == 3


@pytest.mark.parametrize("takes_s", [COLD_S / 2, SLOW_S / 2, SLOW_S * 2])
@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_where_the_disk_is_waited_for_all_are_read(count: int, takes_s: float) -> None:
    assert Looks(takes_s, here=False).read(PATHS[:count]) == set(PATHS[:count])
    if takes_s > COLD_S:
        assert Looks(takes_s).read(PATHS[:count]) == set(PATHS[:count])


def test_a_quick_disk_is_waited_for_before_logs_are_opened_and_a_slow_one_meanwhile() -> None:
    quick = Looks(SLOW_S / 2, here=False)
    quick.begin(PATHS)
    assert set(quick.seen) == set(PATHS)
    go_on = threading.Event()

    class Slow(Looks):
        def touch(self, log: Log) -> None:
            super().touch(log)
            if len(self.seen) > 3:
                go_on.wait()

    slow = Slow(SLOW_S * 2, here=False)
    wait = slow.begin(PATHS)
    assert set(slow.seen) != set(PATHS)
    go_on.set()
    wait()
    assert set(slow.seen) == set(PATHS)


def test_the_kernel_tells_whether_a_log_is_in_memory(tmp_path: Path) -> None:
    assert in_memory((str(tmp_path / "nowhere"), None)) is None
    assert in_memory((str(tmp_path), None)) is True  # there is nothing to wait for
    for name in (*LOG_FILES, "1.log", "empty.index"):
        (tmp_path / name).write_bytes(b"" if "empty" in name else bytes(10_000))
    if in_memory((str(tmp_path), None)) is None:
        pytest.skip("it does not, here")
    assert in_memory((str(tmp_path), None)) is True
    for name, counts in {**dict.fromkeys(LOG_FILES, True), "1.log": False}.items():
        if not dropped(tmp_path / name):
            pytest.skip("pages can't be dropped here")
        assert in_memory((str(tmp_path), None)) is not counts
        (tmp_path / name).read_bytes()


LOG_FILES = ("2.log", "1.index", "2.timeindex", "leader-epoch-checkpoint")


def dropped(path: Path) -> bool:
    """Whether a file's pages are gone from memory."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
    found = residency(str(path))
    return found is not None and found.cached == 0


class Advised:
    """What the kernel is asked to read: names of files, and ranges of bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: dict[str, list[tuple[int, int]]] = {}

        def advise(fd: int, position: int, length: int) -> None:
            if length > 0:
                name = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
                self.seen.setdefault(name, []).append((position, length))

        monkeypatch.setattr(ahead, "_advise", advise)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="names by descriptor")
def test_after_a_clean_stop_a_log_is_read_from_the_last_batch_that_its_index_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [indexed(tmp_path, base, [(9, 1000), (29, 900_000)]) for base in (0, 100, 200)]
    for name in names:
        (tmp_path / name).write_bytes(bytes(1_000_000))
    (tmp_path / f"{200:020d}.index").write_bytes(OFFSET_ENTRY.pack(29, 950_000))
    advised = Advised(monkeypatch)
    touch_directory((str(tmp_path), None))
    assert [advised.seen[name] for name in names] == [
        [(0, 4096)],
        [(0, 4096)],
        [(0, 4096), (950_000, 50_000)],
    ]
    assert len(advised.seen) == 6


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="names by descriptor")
@pytest.mark.parametrize("entry", [b"", b"half", OFFSET_ENTRY.pack(9, -7)])
def test_where_the_last_index_leads_nowhere_the_beginning_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: bytes
) -> None:
    for name, content in {"1.log": bytes(1_000_000), "1.index": entry}.items():
        (tmp_path / name).write_bytes(content)
    advised = Advised(monkeypatch)
    touch_directory((str(tmp_path), None))
    assert advised.seen["1.log"] == [(0, HEADERS_CHUNK)]


@pytest.mark.parametrize("certain", [None, Offset(0), Offset(7)])
def test_what_can_not_be_read_is_passed_over(tmp_path: Path, certain: Offset | None) -> None:
    (tmp_path / "a.log").write_bytes(bytes(1 << 20))
    (tmp_path / "empty").touch()
    (tmp_path / "below").mkdir()
    (tmp_path / "gone.log").symlink_to(tmp_path / "nowhere")
    for name in ("pipe.log", "pipe.index", f"{0:020}.index", "pipe"):
        os.mkfifo(tmp_path / name)
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
