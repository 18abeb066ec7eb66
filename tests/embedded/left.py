"""What a process has: threads, descriptors, children and temporary files, to compare before and after.

Owns the counting. Linux only, since it reads /proc.
"""

import os
import tempfile
import threading
from contextlib import suppress
from pathlib import Path


def everything() -> dict[str, list[str]]:
    """All that a broker could leave behind in this process, by name."""
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "descriptors": _descriptors(),
        "children": sorted(_children()),
        "temporary files": sorted(os.listdir(tempfile.gettempdir())),
    }


def _descriptors() -> list[str]:
    found = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one that listed them
            found.append(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
    return sorted(found)


def _children() -> list[str]:
    found = []
    for task in Path("/proc/self/task").iterdir():
        # A thread that was joined may be on its last instructions in the kernel.
        with suppress(FileNotFoundError, ProcessLookupError):
            found += (task / "children").read_text().split()
    return found
