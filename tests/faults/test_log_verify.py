"""`ottla log verify` where files can't be read: each is a problem of its partition, and told."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from errno import EIO
from pathlib import Path

import pytest

from ottla.cli.log_files import partitions_under
from ottla.cli.log_verify import verify
from ottla.records.builder import build_batch
from ottla.records.reader import Record
from tests.processes import OTTLA

STEM = "0" * 20


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two partitions of one batch."""
    (tmp_path / "meta.properties").write_text("version=1\n")
    for name in ("t-0", "t-1"):
        partition = tmp_path / name
        partition.mkdir()
        (partition / f"{STEM}.log").write_bytes(build_batch([Record(b"k", b"v", 1)], base_offset=0))
        (partition / f"{STEM}.index").write_bytes(b"")
        (partition / f"{STEM}.timeindex").write_bytes(b"")
        (partition / "leader-epoch-checkpoint").write_text("0\n1\n0 0\n")
    return tmp_path


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link_to_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize("become", [a_directory, a_link_to_nowhere])
@pytest.mark.parametrize("name", [f"{STEM}.log", f"{STEM}.timeindex", "leader-epoch-checkpoint"])
def test_a_file_that_can_not_be_read_is_told_and_the_rest_is_checked(
    directory: Path, name: str, become: Callable[[Path], None]
) -> None:
    become(directory / "t-0" / name)
    command = [str(OTTLA), "log", "verify", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"  {name} can't be read: " in done.stdout
    assert "t-1: 1 batch, 1 record, offsets 0 to 0" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("1 problem")
    assert done.stderr == ""


def test_a_bad_sector_is_an_error_and_not_a_signal(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_fd: int, _length: int, _position: int) -> bytes:
        raise OSError(EIO, os.strerror(EIO))

    monkeypatch.setattr(os, "pread", refused)
    [files, _] = partitions_under(str(directory))[0]
    assert verify(files).problems[0] == f"{STEM}.log can't be read: {os.strerror(EIO)}"


def test_a_file_that_goes_while_it_is_looked_at_is_no_problem(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that runs deletes and compacts meanwhile."""
    [files, _] = partitions_under(str(directory))[0]
    listed = files.segments()
    for path in (directory / "t-0").iterdir():
        path.unlink()
    monkeypatch.setattr(type(files), "segments", lambda _: listed)
    assert verify(files).problems == []
