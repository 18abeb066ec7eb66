"""The Java client's round trip, with its defaults (acks=all, idempotent), each codec, also after kill -9."""

import secrets
from pathlib import Path

import pytest

from tests import reference
from tests.clients import flights
from tests.clients.clients import CODECS
from tests.processes import RunningBroker

PROGRAM = Path(__file__).with_name("java") / "RoundTrip.java"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The flights as lines of partition, timestamp, key, value."""
    file = tmp_path_factory.mktemp("java") / "flights.tsv"
    with file.open("wb") as out:
        for partition, records in enumerate(flights.by_partition()):
            for record in records:
                out.write(b"%d\t%d\t%s\t%s\n" % (partition, *record[:3]))
    return file


@pytest.mark.reference
def test_the_java_client_reads_what_it_wrote_before_and_after_kill_9(broker, table):
    expected = "".join(f"ok {codec} {flights.COUNT}\n" for codec in CODECS)
    prefix = f"java-{secrets.token_hex(4)}"
    for what in ("write", "read"):
        done = reference.run(
            "java", PROGRAM, what, broker.bootstrap, table, prefix, *CODECS, timeout=500
        )
        assert done.stdout == expected
        if what == "write" and not isinstance(broker, RunningBroker):
            broker.kill()
            broker.restart()
