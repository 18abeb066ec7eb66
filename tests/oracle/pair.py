"""The two brokers that are asked the same: Apache Kafka and ottla, each on an empty directory.

Owns their start and end. Must not know what they are asked. A running one of either kind can be
named in the environment, for who writes cases: OTTLA_ANSWERS_KAFKA, OTTLA_TEST_BOOTSTRAP.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests import reference
from tests.oracle.answers.peer import Peer
from tests.processes import Broker, RunningBroker, free_port

# As Apache Kafka's own of the reference, so that defaults are the same.
OPTIONS = (
    "num.partitions=4",
    "log.segment.bytes=268435456",
    "log.retention.hours=24",
    "min.insync.replicas=1",
    "default.replication.factor=1",
)


class Peers(NamedTuple):
    kafka: Peer
    ottla: Peer


@contextmanager
def both(folder: Path, *options: str) -> Iterator[Peers]:
    """Both brokers with node id 0; `options` are of both. Skips where there is no Apache Kafka."""
    given = os.environ.get("OTTLA_ANSWERS_KAFKA")
    running = os.environ.get("OTTLA_TEST_BOOTSTRAP")
    ours = RunningBroker(running) if running else Broker(folder / "ottla", *OPTIONS, *options)
    port = free_port()
    settings = ("node.id=0", f"controller.quorum.voters=0@127.0.0.1:{port + 1}", *options)
    with ExitStack() as started:
        if given is None:
            kafka = started.enter_context(reference.started(folder / "kafka", *settings, port=port))
            given = kafka.bootstrap
        broker = started.enter_context(ours)
        peers = Peers(Peer("kafka", given), Peer("ottla", broker.bootstrap))
        yield peers
        for peer in peers:
            peer.close()
    # An index for each partition, 20 MiB each: too much to keep for the next runs.
    shutil.rmtree(folder / "kafka", ignore_errors=True)
