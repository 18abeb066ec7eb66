"""The pump compiled (pump.c), to see whether the one in Python was the limit.

Owns its compilation, where this machine has a C compiler, and its one run. It has no idempotent
producers and looks at no error codes: what it sends has been answered well before.
"""

from __future__ import annotations

import atexit
import shutil
import struct
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from ottla.bench import pump

_SOURCE = Path(__file__).with_name("pump.c")
_NATIVE_INT = struct.Struct("i")


def compiler() -> str | None:
    """The C compiler of this machine."""
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


@cache
def _program() -> str:
    """Compiled once in a process; raises LoadFailed where that can't be."""
    found = compiler()
    if found is None:
        raise pump.LoadFailed("there is no C compiler")
    folder = mkdtemp(prefix="ottla-pump-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    command = [found, "-O2", "-o", f"{folder}/pump", str(_SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise pump.LoadFailed("pump.c doesn't compile here")
    return f"{folder}/pump"


def told(line: str) -> pump.Measured:
    """What the program printed. Of the latencies it tells three, which stand for all."""
    fields = line.split()
    answers, bytes_in, bytes_out = map(int, fields[:3])
    seconds, cpu_s, p50, p99, p999 = map(float, fields[3:])
    latencies = [p50] * 990 + [p99] * 9 + [p999]
    return pump.Measured(answers, bytes_in, bytes_out, seconds, latencies, cpu_s)


def run(address: tuple[str, int], load: pump.Load) -> pump.Measured:
    """As pump.run. Raises LoadFailed."""
    words = [address[0], str(address[1]), str(load.depth), str(load.seconds), str(load.answers_max)]
    requests = b"".join(_NATIVE_INT.pack(len(one)) + one for one in load.requests)
    done = subprocess.run(
        [_program(), *words], input=requests, capture_output=True, check=False, timeout=600
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise pump.LoadFailed(f"the compiled pump failed: {said or done.returncode}")
    return told(done.stdout.decode())
