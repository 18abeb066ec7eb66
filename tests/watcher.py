"""Ends process groups that would outlive the tests: what a script left running in the background.

A leash (`leash.py`) can't hold these, for their parent is the script, which is gone by then. Run as
a program this file learns from its stdin which groups there are, until the tests end, however they
do, and the pipe with them; then it kills those that were not let go.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path


def hold(group: int) -> None:
    """Kill this process group at the end of the tests, unless it is let go before."""
    _tell(f"+{group}")


def let_go(group: int) -> None:
    """It has ended: its number may be another group's from here on."""
    _tell(f"-{group}")


def _tell(word: str) -> None:
    pipe = _watcher().stdin
    assert pipe is not None
    pipe.write(f"{word}\n".encode())  # a line is written whole or not at all
    pipe.flush()


@cache
def _watcher() -> subprocess.Popen[bytes]:
    """In a session of its own: what interrupts or kills the tests must leave it."""
    command = [sys.executable, "-I", "-S", str(Path(__file__))]
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    atexit.register(watcher.communicate)
    return watcher


def main() -> None:
    """Watch until stdin ends."""
    groups = set[int]()
    for line in sys.stdin:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
