"""How long a broker takes to start: ours, and a peer's on this machine, by its own command line.

Owns the ending and starting of those processes. A peer that is started again stays up afterwards,
as it was before. Reads Linux's /proc.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ottla.bench import contenders, pump
from ottla.bench.contenders import Contender

_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
_PATIENCE_S = 60.0
_REST_S = 0.002


@dataclass(frozen=True, slots=True)
class Start:
    """Milliseconds from a process's start to its first answer; or why that isn't known."""

    name: str
    ms: float | None
    failed: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"who": self.name, "start_ms": self.ms, "why": self.failed or None}


def own(folder: str) -> Start:
    """A new ottla on an empty directory, and its end. Raises pump.LoadFailed."""
    begun = time.perf_counter()
    with contenders.own_broker(f"{folder}/start") as running:
        return Start("ottla", _until_answer(running.address, begun, running.pid))


def again(peer: Contender) -> tuple[Start, int | None]:
    """End a peer (SIGTERM) and run its command line again; how long it took, and its new pid."""
    pid = peer.pid
    if pid is None:
        return Start(peer.name, None, "no process of this machine is known"), None
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
        pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        environment = dict(pair.split(b"=", 1) for pair in pairs if b"=" in pair)
        folder = os.readlink(f"/proc/{pid}/cwd")
        os.kill(pid, signal.SIGTERM)
    except OSError as error:
        return Start(peer.name, None, f"its process can't be ended ({error.strerror})"), pid
    _until_gone(pid)
    begun = time.perf_counter()
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return Start(peer.name, _until_answer(peer.address, begun, process.pid)), process.pid
    except pump.LoadFailed as failure:
        return Start(peer.name, None, str(failure)), None


def _until_gone(pid: int) -> None:
    """Raises pump.LoadFailed if it stays."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        stat = Path(f"/proc/{pid}/stat")
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(_REST_S)
    raise pump.LoadFailed(f"process {pid} does not end")


def _until_answer(address: tuple[str, int], begun: float, pid: int) -> float:
    """Milliseconds until ApiVersions is answered. Raises pump.LoadFailed."""
    while time.perf_counter() - begun < _PATIENCE_S:
        with contextlib.suppress(OSError, pump.LoadFailed):
            pump.ask(address, _API_VERSIONS)
            return (time.perf_counter() - begun) * 1e3
        if not Path(f"/proc/{pid}").exists():
            break
        time.sleep(_REST_S)
    raise pump.LoadFailed("it did not answer after its start")
