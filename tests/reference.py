"""Apache Kafka itself, where it is set up: what the tests compare ottla with.

Owns the search for it and the reason given where it is missing. Set up by `.ci/run`.
"""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

# The folder that holds run.sh: beside the checkout unless the environment names another.
REFERENCE = Path(
    os.environ.get("OTTLA_KAFKA_REFERENCE", Path(__file__).parents[2] / "shared" / "kafka")
)
JARS = Path(os.environ.get("KAFKA_REF", Path.home() / ".cache" / "kafka-reference")) / "libs"


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
    if reason := missing():
        pytest.skip(reason)
    command = ["bash", str(REFERENCE / "run.sh"), *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as late:
        said = [one.decode(errors="replace") for one in (late.stdout, late.stderr) if one]
        pytest.fail(f"{late}; so far it said:\n" + "\n".join(one[-3000:] for one in said))
    assert done.returncode == 0, (
        f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )
    return done
