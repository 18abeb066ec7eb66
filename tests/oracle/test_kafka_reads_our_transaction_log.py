"""The coordinators' topics after transactions: Apache Kafka's tool decodes them, entry by entry.

Skipped with a reason where Apache Kafka is not set up.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import reference
from tests.clients.clients import create_topic
from tests.clients.transactors import Confluent
from tests.processes import Broker

pytestmark = pytest.mark.reference

DUMP = "org.apache.kafka.tools.DumpLogSegments"
OPTIONS = ("transaction.state.log.num.partitions=1", "offsets.topic.num.partitions=1")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transaction that was committed with an offset, and one that was aborted."""
    folder = tmp_path_factory.mktemp("transaction-log") / "data"
    with Broker(folder, *OPTIONS) as broker:
        create_topic(broker.bootstrap, "t", 2)
        one = Confluent(broker.bootstrap, "ours")
        one.begin()
        one.send("t", 0, b"a")
        one.send_offsets("g", {("t", 1): 7})
        one.commit()
        one.begin()
        one.send("t", 1, b"b")
        one.flush()
        one.abort()
        one.close()
    return folder


def dumped(directory: Path, topic: str, decoder: str) -> str:
    [path] = (directory / f"{topic}-0").glob("*.log")
    return reference.run("tool", DUMP, decoder, "--files", path).stdout


def test_the_log_of_transactions_is_decoded_step_by_step(directory: Path) -> None:
    said = dumped(directory, "__transaction_state", "--transaction-log-decoder")
    states = re.findall(r'"transactionStatus":(\d)', said)
    # Empty, ongoing with each partition that is added, prepared, complete; and again. What is
    # complete is written if nothing comes next in time, and at a stop; unless that comes before it.
    assert re.fullmatch(r"01+24?1+35?", "".join(states)), said
    assert said.count('"transactionalId":"ours"') == len(states)
    assert '{"topic":"__consumer_offsets","partitionIds":[0]}' in said
    assert "Could not decode" not in said


def test_offsets_of_a_transaction_and_its_marker_are_decoded(directory: Path) -> None:
    said = dumped(directory, "__consumer_offsets", "--offsets-decoder")
    [batch, marker] = [line for line in said.splitlines() if line.startswith("baseOffset")]
    assert "isTransactional: true isControl: false" in batch
    assert "isTransactional: true isControl: true" in marker
    [key] = re.findall(r'"group":"(\w+)","topic":"t","partition":1', said)
    assert key == "g"
    assert '"offset":7' in said
    assert "endTxnMarker: COMMIT" in said
