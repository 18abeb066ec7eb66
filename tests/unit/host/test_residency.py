"""How much of a file the kernel holds in memory."""

import os
import sys

import pytest

from ottla.host.residency import residency

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has cachestat")


@linux
def test_what_was_just_written_is_cached_and_what_was_dropped_is_not(tmp_path):
    path = tmp_path / "segment"
    path.write_bytes(bytes(1 << 20))
    found = residency(str(path))
    if found is None:
        pytest.skip("this kernel has no cachestat")
    assert found.cached == 1 << 20
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert residency(str(path)).cached == 0


def test_nothing_is_known_of_a_file_that_is_gone(tmp_path):
    assert residency(str(tmp_path / "gone")) is None
