"""Transactions with the Java client: as it speaks to Kafka 4 (KIP-890, part 2), and as before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import reference
from tests.clients.conftest import start_broker
from tests.clients.relay import Relay
from tests.clients.test_transactions import ELSEWHERE, OPTIONS
from tests.processes import Broker

pytestmark = pytest.mark.reference

PROGRAM = Path(__file__).with_name("java") / "Transactions.java"

EXPECTED = """\
open [][a]
committed
aborted between
all [a, b, c]
zombie sends: InvalidProducerEpochException
zombie commits: InvalidProducerEpochException
only mine
aborted for it
it commits: {aborted}
too long: KafkaException
a member
pending {{offsets={{}}}}
offset 3
offset 3 still
stale: CommitFailedException
nobody: CommitFailedException
offset 3
a new member
committed 3
stale: CommitFailedException
committed 3
Ongoing 60000 [admin-0] true
listed true
producers 1 since OptionalLong[0]
unknown: TransactionalIdNotFoundException
fenced and aborted
it commits: ProducerFencedException
never there: nothing
aborted by hand [] Ongoing
again: nothing
each once true
"""


def test_the_java_client_in_transactions_that_raise_their_epoch(tmp_path: Path) -> None:
    broker = start_broker(tmp_path, *OPTIONS)
    try:
        done = reference.run("java", PROGRAM, broker.bootstrap, timeout=500)
    finally:
        broker.stop()
    assert done.stdout == EXPECTED.format(aborted="InvalidTxnStateException")


@pytest.fixture
def relay() -> Iterator[Relay]:
    one = Relay("transaction.version")
    yield one
    one.close()


def test_the_java_client_in_transactions_of_the_old_kind(tmp_path: Path, relay: Relay) -> None:
    if ELSEWHERE:
        pytest.skip("a broker that is there tells its own address, not the relay's")
    advertised = f"advertised.listeners=PLAINTEXT://127.0.0.1:{relay.port}"
    with Broker(tmp_path / "data", *OPTIONS, advertised) as broker:
        relay.to = (broker.host, broker.port)
        done = reference.run("java", PROGRAM, f"127.0.0.1:{relay.port}", timeout=500)
    assert done.stdout == EXPECTED.format(aborted="ProducerFencedException")
