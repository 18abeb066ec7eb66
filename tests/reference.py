"""Apache Kafka itself, where it is set up: what the tests compare ottla with.

Owns the search for it, the reason given where it is missing, and that nothing of it outlives the
tests. Set up by `.ci/run`.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import watcher
from tests.leash import leashed
from tests.processes import free_port

# The folder that holds run.sh: beside the checkout unless the environment names another.
REFERENCE = Path(
    os.environ.get("OTTLA_KAFKA_REFERENCE", Path(__file__).parents[2] / "shared" / "kafka")
)
# Not Path.home(): who has none has no reference, but tests.
_CACHE = os.path.expanduser("~/.cache/kafka-reference")
JARS = Path(os.environ.get("KAFKA_REF", _CACHE)) / "libs"


@cache
def missing() -> str | None:
    """Why the reference can't be used here; None if it can."""
    if shutil.which("java") is None:
        return "Apache Kafka is not set up: there is no java"
    if not (REFERENCE / "run.sh").exists():
        return f"Apache Kafka is not set up: there is no {REFERENCE / 'run.sh'}"
    if not JARS.is_dir() or not any(JARS.glob("kafka_*.jar")):
        return f"Apache Kafka is not set up: run {REFERENCE / 'setup.sh'}"
    return None


def version() -> str:
    """Its version, from the name of the broker's jar."""
    return next(JARS.glob("kafka_*.jar")).stem.rpartition("-")[2]


def run(*arguments: str | Path, timeout: float = 400) -> subprocess.CompletedProcess[str]:
    """Call run.sh; skips the test where the reference is missing, fails it where it exits non-zero."""
    with _calling(*arguments) as process:
        return _done(process, timeout)


class Kafka(NamedTuple):
    """Apache Kafka as it runs. It is not our child: run.sh has left it behind, and ended."""

    pid: int
    group: int
    bootstrap: str


def start(port: int, folder: Path, *settings: str) -> Kafka:
    """Start it, formatting the folder if it is new. It ends with the tests, if not by `ended`."""
    with _calling("start", str(port), folder, *settings) as process:
        watcher.hold(process.pid)
        pid, bootstrap, _ = _done(process, 400).stdout.split()[-3:]
        return Kafka(int(pid), process.pid, bootstrap)


def ended(kafka: Kafka) -> None:
    """To be called once it was seen to be gone."""
    watcher.let_go(kafka.group)


@contextmanager
def started(folder: Path, *settings: str, port: int | None = None) -> Iterator[Kafka]:
    """Apache Kafka for a block, killed at its end."""
    kafka = start(port or free_port(), folder, *settings)
    try:
        yield kafka
    finally:
        os.kill(kafka.pid, signal.SIGKILL)
        ended(kafka)


def _calling(*arguments: str | Path) -> subprocess.Popen[str]:
    """run.sh in a session of its own, by whose number all that it starts can be ended."""
    if reason := missing():
        pytest.skip(reason)
    command = ["bash", str(REFERENCE / "run.sh"), *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        leashed(command), stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def _done(process: subprocess.Popen[str], timeout: float) -> subprocess.CompletedProcess[str]:
    arguments = " ".join(process.args[5:])
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"{arguments} took over {timeout:g} s; it said:\n{out[-3000:]}\n{err[-3000:]}")
    assert process.returncode == 0, f"{arguments}\n{out[-3000:]}\n{err[-3000:]}"
    return subprocess.CompletedProcess(process.args, 0, out, err)
