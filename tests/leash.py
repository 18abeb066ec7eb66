"""Runs a program that is killed when the tests are, however they end: `leashed(command)`.

Run as a program: `leash.py PARENT COMMAND...` asks the kernel for that and becomes the command, under
the same process id. Where the kernel can't, the command runs all the same. The parent is the
thread that starts it: to be called from one that lives as long as the tests.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def leashed(command: Sequence[str]) -> list[str]:
    """The command that runs this one so."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main(parent: int, command: list[str]) -> None:
    """Become the command. Ends at once where the parent is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() == parent:
        os.execvp(command[0], command)  # keeps the signal, unless the program is set-uid


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
