"""Producer ids: in blocks, from zero, each once."""

import pytest

from ottla.cluster.producer_ids import BLOCK_SIZE, ProducerIds
from ottla.cluster.store import Put, StoreCorrupt, StoreError
from ottla.testing.simstore import SimStore


@pytest.fixture
def store() -> SimStore:
    return SimStore(0, unknown=0.0)


def take(store, ids, count):
    pendings = [ids.next_producer_id() for _ in range(count)]
    store.run()
    return [pending.result() for pending in pendings]


def test_ids_begin_at_zero_and_a_block_costs_one_transaction(store):
    assert take(store, ProducerIds(store), BLOCK_SIZE) == list(range(BLOCK_SIZE))
    assert store.revision == 1


def test_those_who_wait_for_a_block_are_served_in_order_across_blocks(store):
    many = 2 * BLOCK_SIZE + 5
    assert take(store, ProducerIds(store), many) == list(range(many))
    assert store.revision == 3


def test_another_node_or_a_restart_takes_the_next_block(store):
    assert take(store, ProducerIds(store), 1) == [0]
    assert take(store, ProducerIds(store), 1) == [BLOCK_SIZE]


def test_a_store_that_refuses_fails_everyone_who_waits_and_may_be_asked_again(store):
    ids = ProducerIds(store)
    store.close()
    pendings = [ids.next_producer_id() for _ in range(3)]
    for pending in pendings:
        with pytest.raises(StoreError):
            pending.result()
    store._closed = False
    assert take(store, ids, 1) == [0]


def test_a_counter_that_cannot_be_understood_is_refused(store):
    store.transact([], [Put("/pid", b"7")])
    store.run()
    with pytest.raises(StoreCorrupt, match="/pid"):
        take(store, ProducerIds(store), 1)
