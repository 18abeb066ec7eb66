"""What the kernel says about a process is read as it is meant."""

import io
import os
import tempfile

import pytest

from ottla.bench import usage

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2384 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1
   1: 0100007F:2384 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 222 1
   2: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1
"""


def test_the_times_of_a_process_whose_name_has_spaces_and_parentheses():
    stat = "17 (a) b (c) S 1 1 1 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 8 0 55 1 2\n"
    assert usage.stat_times(stat) == (103, 24)


def test_the_socket_that_listens_is_told_from_its_connections():
    assert usage.listening_inodes(TCP, 0x2384) == {"111"}
    assert usage.listening_inodes(TCP, 1) == set()


def test_time_that_the_host_took_is_a_share_of_all():
    before = "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2 3\n"
    after = "cpu  150 0 150 875 0 0 0 25 0 0\ncpu0 1 2 3\n"
    assert usage.stolen_share(before, after) == pytest.approx(0.125)


def test_nothing_is_stolen_in_no_time():
    line = "cpu  100 0 100 800 0 0 0 0 0 0\n"
    assert usage.stolen_share(line, line) == 0.0


def test_what_is_spent_is_a_difference():
    spent = usage.Cpu(2.0, 3.0) - usage.Cpu(0.5, 1.0)
    assert (spent.user, spent.system, spent.total) == (1.5, 2.0, 3.5)


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs Linux's /proc")
def test_this_process_has_memory_and_is_its_own_family():
    assert os.getpid() in usage.family(os.getpid())
    assert usage.resident_bytes(os.getpid()) > 1 << 20
    assert usage.cpu(os.getpid()).total >= 0


def test_the_machine_is_one_line():
    assert "\n" not in usage.machine()
    assert "Python" in usage.machine()


@pytest.mark.parametrize("piece_bytes", [100, 16 << 10, 1 << 20])
def test_memory_is_touched_in_pieces_as_large_as_the_loads(monkeypatch, piece_bytes):
    written = []

    class File(io.RawIOBase):
        def write(self, data):
            written.append(len(data))

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: File())
    usage.touch_memory(20, piece_bytes)
    assert set(written) == {4096, max(4096, piece_bytes)}
    assert sum(written) == 20 << 20


def test_no_memory_is_touched_if_none_is_asked_for(monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", None)
    usage.touch_memory(0)


MOUNTS = """\
22 1 0:1 / / rw shared:1 - ext4 /dev/root rw
23 22 0:2 / /tmp rw shared:2 master:1 - tmpfs tmpfs rw
24 23 0:3 / /tmp/on\\040disk rw - xfs /dev/sdb rw
25 22 0:4 / /tmpother rw - btrfs /dev/sdc rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/x", "ext4"),
        ("/tmp/x", "tmpfs"),
        ("/tmp", "tmpfs"),
        ("/tmp/on disk/y", "xfs"),
        ("/tmpother/y", "btrfs"),
        ("/tmpo", "ext4"),
    ],
)
def test_a_path_lies_on_the_nearest_mount(path, kind):
    assert usage.file_system(path, MOUNTS) == kind
