"""Reading ahead at a start: only where the disk must be waited for, and never a reason to fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from ottla.host.ahead import COLD_S, read_ahead, touch_directory


class Looks:
    """What was touched, by a clock that stands still but for that."""

    def __init__(self, takes_s: float) -> None:
        self.takes_s = takes_s
        self.seen: list[str] = []
        self.now_s = 0.0

    def touch(self, path: str) -> None:
        self.seen.append(path)
        self.now_s += self.takes_s

    def read(self, paths: list[str]) -> set[str]:
        read_ahead(paths, self.touch, lambda: self.now_s)
        return set(self.seen)


def test_directories_in_memory_are_left_alone_but_for_a_few() -> None:
    assert len(Looks(COLD_S / 2).read([str(n) for n in range(100)])) == 3


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_where_the_disk_is_waited_for_all_are_read(count: int) -> None:
    paths = [str(n) for n in range(count)]
    assert Looks(COLD_S * 2).read(paths) == set(paths)


def test_what_can_not_be_read_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(bytes(1 << 20))
    (tmp_path / "empty").touch()
    (tmp_path / "below").mkdir()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    touch_directory(str(tmp_path))
    touch_directory(str(tmp_path / "nowhere"))
    touch_directory(str(tmp_path / "a.log"))
