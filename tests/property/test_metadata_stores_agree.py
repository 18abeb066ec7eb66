"""Two stores, one contract: the real one and the simulated one answer alike.

With no unknown outcomes and one call at a time, every outcome, snapshot and update is equal.
"""

import tempfile

from hypothesis import given
from hypothesis import strategies as st

from ottla.cluster.store import (
    Absent,
    Delete,
    DeletePrefix,
    Present,
    Put,
    SameSince,
    UnchangedSince,
)
from ottla.host.sqlite_store import SqliteStore
from ottla.testing.simstore import SimStore

KEYS = st.sampled_from(["/a", "/a/1", "/a/2", "/b", "/é"])
PREFIXES = st.sampled_from(["/", "/a", "/a/", "/b", "", "/z"])
REVISIONS = st.integers(0, 6)
COMPARES = st.one_of(
    st.builds(Absent, KEYS),
    st.builds(Present, KEYS),
    st.builds(UnchangedSince, KEYS, REVISIONS),
    st.builds(SameSince, KEYS, REVISIONS),
)
# A transaction writes a key at most once, so a prefix stands alone.
WRITES = st.one_of(
    st.lists(
        st.one_of(st.builds(Put, KEYS, st.binary(max_size=3)), st.builds(Delete, KEYS)),
        max_size=3,
        unique_by=lambda write: write.key,
    ),
    st.builds(lambda prefix: [DeletePrefix(prefix)], PREFIXES),
)
TRANSACTIONS = st.lists(st.tuples(st.lists(COMPARES, max_size=2), WRITES, PREFIXES), max_size=10)


@given(TRANSACTIONS)
def test_the_real_and_the_simulated_store_answer_alike(transactions):
    with tempfile.TemporaryDirectory() as directory:
        real, simulated = SqliteStore(f"{directory}/store.sqlite"), SimStore(0, unknown=0.0)
        events = [], []
        real.watch("/a", 1, events[0].append)
        simulated.watch("/a", 1, events[1].append)
        for compares, writes, prefix in transactions:
            answers = [store.transact(compares, writes) for store in (real, simulated)]
            reads = [store.read(prefix) for store in (real,)]
            simulated.run()
            reads.append(simulated.read(prefix))
            simulated.run()
            assert answers[0].result() == answers[1].result()
            assert reads[0].result() == reads[1].result()
        assert events[0] == events[1]
        real.close()
