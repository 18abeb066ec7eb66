"""How many file descriptors the process may have: asked, and raised as far as it may be.

Owns the one resource limit that a broker comes up against. Must not decide what it is used for.
"""

from __future__ import annotations

import resource
from contextlib import suppress

_ENOUGH = 1 << 20
"""More than connections and logs can use; systems tell limits that they would not honour."""


def descriptors_max() -> int:
    """What the process may have at one time; -1: no limit."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return -1 if soft == resource.RLIM_INFINITY else soft


def raise_descriptors_max() -> None:
    """Take what the system allows anyway: shells start programs with 1024, or 256 on macOS.

    For a process of our own alone: its children, and what it calls, inherit the limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS takes no more than it has for one process
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def open_files_max(limit: int, reserved: int) -> int:
    """How many of `limit` descriptors (-1: none) files of logs may keep while nobody uses them.

    Half of what is not reserved: the other half is for connections, of which each takes two.
    """
    if limit < 0:
        return _ENOUGH // 2
    return max((limit - min(reserved, limit // 4)) // 2, 16)
