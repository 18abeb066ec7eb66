"""The lock of a data directory: against another process, within this one, and Kafka's kind."""

import os
import subprocess
import sys

import pytest

from ottla.host.lock import DirectoryInUse, lock_directory

TAKE = """
import fcntl, sys
file = open(sys.argv[1] + "/.lock", "r+")
try:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    sys.exit(3)
print("held", flush=True)
sys.stdin.read()
"""


def other_process(directory) -> subprocess.Popen:
    """A process that takes the lock as Java does, and holds it until its input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", TAKE, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen) -> int:
    process.communicate(timeout=60)
    return process.returncode


def test_a_second_holder_in_the_process_is_refused_with_a_sentence(tmp_path):
    lock = lock_directory(str(tmp_path))
    with pytest.raises(DirectoryInUse) as caught:
        lock_directory(str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "choose another directory" in str(caught.value)
    lock.release()


def test_a_directory_reached_by_another_path_is_the_same_directory(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    lock = lock_directory(str(tmp_path / "real"))
    with pytest.raises(DirectoryInUse):
        lock_directory(str(tmp_path / "link"))
    lock.release()


def test_being_refused_does_not_lose_the_lock_of_the_first_holder(tmp_path):
    lock = lock_directory(str(tmp_path))
    with pytest.raises(DirectoryInUse):
        lock_directory(str(tmp_path))
    assert end(other_process(tmp_path)) == 3
    lock.release()


def test_a_lock_taken_as_java_takes_it_keeps_us_out_until_it_ends(tmp_path):
    (tmp_path / ".lock").touch()
    process = other_process(tmp_path)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(DirectoryInUse, match="another process"):
        lock_directory(str(tmp_path))
    end(process)
    lock_directory(str(tmp_path)).release()


def test_a_released_lock_can_be_taken_again_and_released_twice(tmp_path):
    lock = lock_directory(str(tmp_path))
    lock.release()
    lock.release()
    lock_directory(str(tmp_path)).release()
    assert os.listdir(tmp_path) == [".lock"]


def test_a_directory_that_is_not_there_is_not_in_use(tmp_path):
    with pytest.raises(FileNotFoundError):
        lock_directory(str(tmp_path / "none"))


def test_a_forked_process_holds_none_of_its_parents_locks_and_frees_none(tmp_path):
    lock = lock_directory(str(tmp_path))
    child = os.fork()
    if child == 0:
        try:
            lock_directory(str(tmp_path))
        except DirectoryInUse as refused:
            os._exit(0 if "another process" in str(refused) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert end(other_process(tmp_path)) == 3
    lock.release()
