"""A file that is opened under one name while the next step gives it another. Real files."""

import pytest

from ottla.core.ports import CreateFile, DiskError, OpenFile, RenamePath
from ottla.host.disk import OsDisk


@pytest.fixture(params=[False, True], ids=["linux", "portable"])
def disk(request):
    disk = OsDisk(lambda call: call(), portable=request.param)
    yield disk
    disk.close()


def test_a_file_that_is_renamed_next_is_known_by_its_name_to_come(disk, tmp_path):
    old, new = f"{tmp_path}/segment.swap", f"{tmp_path}/segment"
    made, beside = disk.perform_now([CreateFile(old, b"new"), CreateFile(new, b"old")])
    [file] = disk.perform_now([OpenFile(old, becomes=new)])
    file.retain()
    assert file.read(0, 10) == b"new"
    disk.perform_now([RenamePath(old, new)])
    assert file.path == new
    assert file.read(0, 10) == b"new"
    file.release()
    for one in (made, beside, file):
        one.close()


def test_a_file_that_is_not_there_can_not_be_opened(disk, tmp_path):
    with pytest.raises(DiskError, match="missing"):
        disk.perform_now([OpenFile(f"{tmp_path}/missing", becomes=f"{tmp_path}/any")])
