"""What the tests start does not outlive them, nor take a port that another run has in mind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import free_port, shuffled_ports, wait_until

ROOT = Path(__file__).parents[2]
HOLDER = """
import subprocess, sys
from tests.leash import leashed
held = subprocess.Popen(leashed(["sleep", "600"]), start_new_session=True)
print(held.pid, flush=True)
held.wait()
"""
SCRIPTED = """
import subprocess, sys
from tests import watcher
script = "sleep 600 >/dev/null 2>&1 & echo $!"
done = subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
watcher.hold(done.pid)
print(done.communicate()[0].decode(), end="", flush=True)
if "let go" in sys.argv:
    watcher.let_go(done.pid)
if "wait" in sys.argv:
    sys.stdin.read()
"""
ASKER = """
import sys
from tests.processes import free_port
print(free_port(), flush=True)
sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what it asks of the kernel")


def _is_there(pid: int, name: bytes) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(name)
    except FileNotFoundError:
        return False


def test_a_leashed_program_ends_with_who_started_it_even_by_kill_9() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        pid = int(holder.stdout.readline())
        wait_until(lambda: _is_there(pid, b"sleep\0"), "a program on a leash")
        holder.kill()
        wait_until(lambda: not _is_there(pid, b"sleep\0"), "its end")


def _run(*arguments: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", *arguments], cwd=ROOT, stdin=pipe, stdout=pipe, text=True
    )


@pytest.mark.parametrize("end", ["by kill -9", "by itself"])
def test_what_a_script_left_running_ends_with_who_ran_it(end: str) -> None:
    killed = end == "by kill -9"
    with _run(SCRIPTED, *["wait"] * killed) as runner:
        assert runner.stdout is not None
        pid = int(runner.stdout.readline())
        if killed:
            wait_until(lambda: _is_there(pid, b"sleep\0"), "what the script runs")
            runner.kill()
        wait_until(lambda: not _is_there(pid, b"sleep\0"), "its end")


def test_what_was_let_go_of_is_not_killed() -> None:
    with _run(SCRIPTED, "let go") as runner:
        out, _ = runner.communicate()  # its watcher has ended, too: at exit that is waited for
        wait_until(lambda: _is_there(int(out), b"sleep\0"), "what the script runs")
        os.kill(int(out), signal.SIGKILL)


def test_a_leashed_program_does_not_begin_where_its_parent_is_gone() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "tests" / "leash.py"), "1", "echo", "begun"],
        capture_output=True,
        check=True,
    )
    assert done.stdout == b""


def test_a_port_that_another_run_has_found_is_not_found_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ASKER],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as asker:
        assert asker.stdout is not None
        taken = int(asker.stdout.readline())
        ports = [taken, taken + 1, taken - 1, *shuffled_ports()]
        monkeypatch.setattr("tests.processes.shuffled_ports", lambda: ports)
        assert free_port() not in (taken - 1, taken, taken + 1)
