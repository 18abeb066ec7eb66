"""`ottla bench recover` for real, on next to nothing: every start is timed, nothing is left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from ottla.bench.recover_figures import Line

COMMAND = [sys.executable, "-m", "ottla", "bench", "recover"]
SMALL = ["--partitions", "6", "--gib", "0.02", "--rounds", "1"]


def environment(folder: Path) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "TMPDIR": str(folder)}


def test_every_start_is_timed_and_nothing_is_left_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, *SMALL, "--json"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    lines = {line["what"]: line for line in map(json.loads, done.stdout.splitlines())}
    for line in Line:
        [timed] = lines[line.value]["rounds"]
        assert 0 < timed["first_s"] <= timed["all_s"]
        assert timed["cpu_s"] > 0
    assert lines["plain read"]["rounds"][0] > 0
    assert lines["conditions"]["dropped"]
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_it_at_once_and_takes_its_broker_and_its_files_with_it(tmp_path: Path) -> None:
    running = subprocess.Popen(
        [*COMMAND, "--partitions", "50", "--gib", "2"],
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("ottla-recover-*/unsynced/recover-0/*.log")):
        assert time.monotonic() < deadline, "nothing is being filled"
        assert running.poll() is None, running.stderr
    [lock] = tmp_path.glob("ottla-recover-*/unsynced/.lock")
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
    assert not lock.exists()
    assert not brokers_of(tmp_path)


def brokers_of(folder: Path) -> list[str]:
    """Command lines of processes that name a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found
