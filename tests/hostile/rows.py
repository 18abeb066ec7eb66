"""The broker that one-request rows of the hostile table are sent to, and its limits.

What is expected is the table's column "Ours". After each row the next well-formed connection
works, and the broker's memory and open files are back. Rows about connections and their limits
are in test_limits.py, those about bytes in pieces in test_frames.py, too.
"""

from __future__ import annotations

from tests.hostile.conftest import Start
from tests.hostile.wire import (
    Victim,
    batch,
    produce,
    produced,
)

MAX = 2**31 - 1
FETCH_MAX = 1 << 20
SESSIONS_MAX = 20
PARKED_MAX = 20
PRODUCERS_MAX = 50
AUTO_MAX = 3
WIDE = 30
WIDE_BATCH = 100_000
UNKNOWN_ID = b"\x01" * 16


def broker_of_rows(start: Start) -> Victim:
    """One broker for all rows, its limits low enough to be reached."""
    victim = start(
        f"fetch.max.bytes={FETCH_MAX}",
        "fetch.max.wait.ms.limit=700",
        f"fetch.parked.max={PARKED_MAX}",
        f"max.incremental.fetch.session.cache.slots={SESSIONS_MAX}",
        f"producer.ids.per.partition.max={PRODUCERS_MAX}",
        f"auto.create.topics.request.max={AUTO_MAX}",
        "max.partitions.per.topic=40",
        "max.partitions.total=200",
    )
    victim.create("header")
    victim.create("records", record_validation="records")
    victim.create("small", max_message_bytes=100_000, record_validation="records")
    victim.create("short", max_message_bytes=4 << 20, segment_bytes=1 << 20)
    victim.create("compacted", cleanup_policy="compact")
    victim.create("wide", WIDE)
    victim.create("a.b")
    with victim.peer() as peer:
        full = batch(bytes(WIDE_BATCH))
        for number in range(WIDE):
            assert produced(peer.ask(produce("wide", (number, full)), 9))[0] == 0
        # The worker process comes with the first batch that is too large to be opened here.
        assert produced(peer.ask(produce("records", (0, batch(bytes(40_000)))), 9))[0] == 0
    victim.remember()
    return victim
