"""How long a start takes: from the process being started to its first ApiVersions answer.

    python -m ottla.bench.start [RUNS]

Owns three figures: an empty directory, the same after kill -9 with a little data, and the import
of the package alone. Each is the least, the median and the greatest of some runs, and each run
finds our modules compiled, as every start but the first does.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from ottla.bench import pump, wire

_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
_DEADLINE_S = 30.0


def _environment(cache: str) -> dict[str, str]:
    """This process's, with compiled modules in `cache` even where writing them is turned off."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def until_served(
    directory: str, port: int, environment: dict[str, str]
) -> tuple[subprocess.Popen[bytes], float]:
    """Start a broker and ask until it answers; the process and the seconds. Raises LoadFailed."""
    command = [sys.executable, "-m", "ottla", "serve", "--data-dir", directory]
    command += ["--listen", f"127.0.0.1:{port}"]
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    while time.perf_counter() - begun < _DEADLINE_S and process.poll() is None:
        try:
            pump.ask(("127.0.0.1", port), _API_VERSIONS)
        except ConnectionError:
            time.sleep(0.001)
            continue
        return process, time.perf_counter() - begun
    process.kill()
    raise pump.LoadFailed("ottla serve did not answer")


def _write_a_little(port: int) -> None:
    records = wire.batch(100, 100, int(time.time() * 1000))
    pump.ask(("127.0.0.1", port), wire.create_topic("little", 4))
    for partition in range(4):
        for _ in range(50):
            pump.ask(("127.0.0.1", port), wire.produce("little", partition, records, -1))


def _end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    process.send_signal(how)
    process.wait()


def starts(runs: int, environment: dict[str, str]) -> tuple[list[float], list[float]]:
    """Seconds of each start: on an empty directory, and after kill -9 with 4 partitions of data."""
    fresh, killed = [], []
    for turn in range(runs + 1):
        with tempfile.TemporaryDirectory(prefix="ottla-start-") as directory:
            port = _free_port()
            process, seconds = until_served(directory, port, environment)
            fresh += [seconds] if turn else []  # the first compiles
            _write_a_little(port)
            _end(process, signal.SIGKILL)
            process, seconds = until_served(directory, port, environment)
            killed += [seconds] if turn else []
            _end(process, signal.SIGTERM)
    return fresh, killed


def import_seconds(runs: int, environment: dict[str, str]) -> list[float]:
    """Seconds that `import ottla` takes in an interpreter that has just begun."""
    code = "import time; a = time.perf_counter(); import ottla; print(time.perf_counter() - a)"
    command = [sys.executable, "-c", code]
    outputs = (
        subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        for _ in range(runs)
    )
    return [float(output) for output in outputs]


def main(argv: Sequence[str]) -> int:
    runs = int(argv[0]) if argv else 7
    with tempfile.TemporaryDirectory(prefix="ottla-compiled-") as cache:
        environment = _environment(cache)
        try:
            fresh, killed = starts(runs, environment)
        except pump.LoadFailed as failure:
            print(f"no measurement: {failure}", file=sys.stderr)
            return 1
        imports = import_seconds(runs, environment)
    for name, seconds in (
        ("import ottla", imports),
        ("start to first ApiVersions answer", fresh),
        ("the same after kill -9, small data", killed),
    ):
        least, middle, most = min(seconds), statistics.median(seconds), max(seconds)
        print(
            f"{name:<36} least {least * 1e3:6.0f} ms, median {middle * 1e3:6.0f} ms,"
            f" greatest {most * 1e3:6.0f} ms"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
