"""Cases of transactions: InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn, EndTxn, listing.

What a client may only do once the transaction before has ended is asked again until then, as
clients do; what is compared is what comes after. Producer ids have names of their own.
"""

from __future__ import annotations

from typing import Any

from ottla.protocol.codec import decoder
from ottla.protocol.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from ottla.protocol.messages.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)
from ottla.protocol.messages.describe_transactions import (
    DescribeTransactionsRequest,
    DescribeTransactionsResponse,
)
from ottla.protocol.messages.end_txn import EndTxnRequest
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from ottla.protocol.messages.list_transactions import ListTransactionsRequest
from tests.oracle.answers.case import each, error, success
from tests.oracle.answers.peer import Peer, encoded
from tests.processes import wait_until

INIT, ADD, ADD_OFFSETS, END, DESCRIBE, LIST = 22, 24, 25, 26, 65, 66
SEVERAL, BUMPING = 4, 5
FIND, TRANSACTIONAL = 10, 1
NOT_YET = (
    "coordinator_load_in_progress",
    "coordinator_not_available",
    "not_coordinator",
    "concurrent_transactions",
)
STRANGER = 987_654_321


class Producer:
    """A transactional producer of this case's own, as far as it has come."""

    def __init__(self, peer: Peer, name: str = "", timeout_ms: int = 60_000) -> None:
        self.peer = peer
        self.name = f"txn-{peer.case}{name}"
        self.timeout_ms = timeout_ms
        self.id = self.epoch = -1
        self.ids: list[int] = []
        coordinated(peer, self.name)

    # --- asking

    def init(self, version: int = 5, **more: Any) -> Any:
        """Asked until the coordinator is ready; the answer is taken to heart."""
        more = {"transactional_id": self.name, "transaction_timeout_ms": self.timeout_ms} | more
        answer = patient(lambda: self.init_once(version, **more))
        if answer["error_code"] == "none":
            self.id, self.epoch = self._last
        return answer

    def init_once(self, version: int, **more: Any) -> Any:
        request = InitProducerIdRequest(**more)
        raw = self.peer.exchange(self.peer.frame(INIT, version, encoded(request, version)))
        assert raw is not None
        start = 4 if version < 2 else 5
        found, _ = decoder(InitProducerIdResponse, version)(memoryview(raw), start)
        self._last = (found.producer_id, found.producer_epoch)
        return self._named(self.peer.decoded(INIT, version, raw))

    def again(self, version: int = 5, **more: Any) -> Any:
        """As a producer that goes on after an error (KIP-360)."""
        return self.init(version, producer_id=self.id, producer_epoch=self.epoch, **more)

    def add(self, version: int, *places: tuple[str, int], **more: Any) -> Any:
        topics: dict[str, list[int]] = {}
        for topic, number in places:
            topics.setdefault(topic, []).append(number)
        asked = [
            AddPartitionsToTxnTopic(name=name, partitions=numbers)
            for name, numbers in topics.items()
        ]
        verify = more.pop("verify_only", False)
        given: dict[str, Any] = {"transactional_id": self.name, "producer_id": self.id}
        given |= {"producer_epoch": self.epoch} | more
        if version >= SEVERAL:
            one = AddPartitionsToTxnTransaction(topics=asked, verify_only=verify, **given)
            request = AddPartitionsToTxnRequest(transactions=[one])
        else:
            request = AddPartitionsToTxnRequest(
                v3_and_below_topics=asked,
                **{f"v3_and_below_{name}": value for name, value in given.items()},
            )
        return patient(lambda: self.peer.ask(request, version))

    def add_offsets(self, version: int, group: str = "g", **more: Any) -> Any:
        given: dict[str, Any] = {"transactional_id": self.name, "producer_id": self.id}
        given |= {"producer_epoch": self.epoch, "group_id": group} | more
        return patient(lambda: self.peer.ask(AddOffsetsToTxnRequest(**given), version))

    def end(self, version: int, committed: bool = True, **more: Any) -> Any:
        """Ended; a producer of version 5 goes on as it is told."""
        given: dict[str, Any] = {"transactional_id": self.name, "producer_id": self.id}
        given |= {"producer_epoch": self.epoch, "committed": committed} | more
        answer = patient(lambda: self.peer.ask(EndTxnRequest(**given), version))
        if version >= BUMPING and answer["error_code"] == "none" and not more:
            self.id, self.epoch = answer["producer_id"], answer["producer_epoch"]
        return self._named(answer)

    def described(self) -> Any:
        """Once it rests, or is ongoing: what it is on the way from there to here is luck."""
        states: list[Any] = []

        def rests() -> bool:
            states[:] = describe(self.peer, [self.name])
            return not states[0]["transaction_state"].startswith("Prepare")

        wait_until(rests, "the markers of a transaction")
        return self._named(states[0])

    def _named(self, answer: Any) -> Any:
        """Producer ids by when they were first seen."""
        answer = dict(answer)
        if answer.get("producer_id", -1) >= 0:
            if answer["producer_id"] not in self.ids:
                self.ids.append(answer["producer_id"])
            answer["producer_id"] = f"id {self.ids.index(answer['producer_id'])}"
        return answer


def coordinated(peer: Peer, name: str) -> None:
    key = FindCoordinatorRequest(key=name, key_type=TRANSACTIONAL)
    wait_until(lambda: peer.ask(key, 2)["error_code"] == "none", "a coordinator")


def describe(peer: Peer, names: list[str]) -> list[dict[str, Any]]:
    """By ottla's codec: kio takes no start of -1, which is what Kafka says of what has none."""
    request = DescribeTransactionsRequest(transactional_ids=names)
    raw = peer.exchange(peer.frame(DESCRIBE, 0, encoded(request, 0)))
    assert raw is not None
    found, end = decoder(DescribeTransactionsResponse, 0)(memoryview(raw), 5)
    assert end == len(raw)
    return [
        {
            "error_code": one.error_code,
            "transactional_id": one.transactional_id,
            "transaction_state": one.transaction_state,
            "transaction_timeout_ms": one.transaction_timeout_ms,
            "start": "some time" if one.transaction_start_time_ms > 0 else "none",
            "producer_id": one.producer_id,
            "producer_epoch": one.producer_epoch,
            "topics": sorted((topic.topic, sorted(topic.partitions)) for topic in one.topics),
        }
        for one in found.transaction_states
    ]


def patient(ask: Any) -> Any:
    """Ask until the answer is more than "not yet"."""
    found: list[Any] = []

    def answered() -> bool:
        found[:] = [ask()]
        return not any(f"'{code}'" in repr(found[0]) for code in NOT_YET)

    wait_until(answered, "an answer that is more than not yet")
    return found[0]


def begun(peer: Peer, name: str = "", **more: Any) -> Producer:
    producer = Producer(peer, name, **more)
    assert producer.init()["error_code"] == "none"
    return producer


# --- InitProducerId ----------------------------------------------------------------------------


@success(INIT)
def a_transactional_id_twice(peer: Peer, version: int) -> Any:
    producer = Producer(peer)
    return [producer.init(version), producer.init(version), producer.described()]


@success(INIT, [3, 4, 5])
def goes_on_after_an_error(peer: Peer, version: int) -> Any:
    producer = begun(peer)
    first = producer.again(version)
    before = producer.epoch - 1
    asked_again = producer.init(version, producer_id=producer.id, producer_epoch=before)
    return [first, asked_again]


@error(INIT, 3, 4, 5)
def h113_an_epoch_that_is_over(peer: Peer, version: int) -> Any:
    producer = begun(peer)
    producer.init()
    producer.init()
    stale = producer.init(version, producer_id=producer.id, producer_epoch=0)
    stranger = producer.init(version, producer_id=STRANGER, producer_epoch=0)
    return [stale, stranger]


@error(INIT, 0, 3, 5)
def over_an_ongoing_transaction(peer: Peer, version: int) -> Any:
    """Which is aborted first."""
    producer = begun(peer)
    topic = peer.topic()
    added = producer.add(3, (topic, 0))
    once = producer.init_once(
        version, transactional_id=producer.name, transaction_timeout_ms=60_000
    )
    return [added, once, producer.described(), producer.init(version), producer.described()]


@each(INIT, 0, 5, zero=0, less=-1, more=900_001, most=2**31 - 1)
def h112_timeout(peer: Peer, version: int, given: int) -> Any:
    return Producer(peer, timeout_ms=given).init(version)


@each(INIT, 3, 5, no_epoch=(5, -1), no_id=(-1, 3))
def h112_half_of_a_pair(peer: Peer, version: int, given: tuple[int, int]) -> Any:
    return Producer(peer).init(version, producer_id=given[0], producer_epoch=given[1])


@error(INIT, 5)
def a_producer_that_was_never_here(peer: Peer, version: int) -> Any:
    """Its id is forgotten, or was another broker's: it is given a new one."""
    return Producer(peer).init(version, producer_id=STRANGER, producer_epoch=3)


# --- AddPartitionsToTxn ------------------------------------------------------------------------


@success(ADD)
def two_partitions_and_one_more(peer: Peer, version: int) -> Any:
    producer = begun(peer)
    one, two = peer.topic(2), peer.topic()
    first = producer.add(version, (one, 0), (one, 1))
    again = producer.add(version, (one, 1))
    more = producer.add(version, (two, 0))
    return [first, again, more, producer.described()]


@error(ADD)
def no_partition_at_all(peer: Peer, version: int) -> Any:
    producer = begun(peer)
    return [producer.add(version), producer.described()]


@error(ADD, 3, 5)
def none_at_all(peer: Peer, version: int) -> Any:
    producer = begun(peer)
    return [producer.add(version), producer.described()]


@error(ADD, 0, 3, 4, 5)
def a_partition_that_does_not_exist(peer: Peer, version: int) -> Any:
    producer = begun(peer)
    topic = peer.topic()
    both = producer.add(version, (topic, 0), (topic, 7), ("nowhere", 0))
    return [both, producer.described()]


@error(ADD)
def h113_not_the_producer(peer: Peer, version: int) -> Any:
    producer = begun(peer)
    topic = peer.topic()
    place = (topic, 0)
    return [
        producer.add(version, place, transactional_id=f"{producer.name}-unknown"),
        producer.add(version, place, producer_id=STRANGER),
        producer.add(version, place, producer_epoch=producer.epoch + 1),
        producer.add(version, place, producer_epoch=-1),
        producer.add(version, place, transactional_id=""),
    ]


@error(ADD, 0, 3)
def h62_an_internal_topic(peer: Peer, version: int) -> Any:
    producer = begun(peer)
    topic = peer.topic()
    return [
        producer.add(version, (topic, 0), ("__transaction_state", 0)),
        producer.add(version, ("__transaction_state", 1)),
        producer.described(),
    ]


@error(ADD, 4, 5)
def h60_verified_only(peer: Peer, version: int) -> Any:
    producer = begun(peer)
    topic = peer.topic(3)
    before = producer.add(version, (topic, 0), verify_only=True)
    producer.add(3, (topic, 0), (topic, 1))
    return [
        before,
        producer.add(version, (topic, 0), verify_only=True),
        producer.add(version, (topic, 0), (topic, 2), verify_only=True),
        producer.add(version, (topic, 0), producer_epoch=7, verify_only=True),
        producer.add(version, (topic, 0), producer_id=STRANGER, verify_only=True),
        producer.add(version, (topic, 0), transactional_id="nobody", verify_only=True),
        producer.add(version, (topic, 0), transactional_id="", verify_only=True),
        producer.add(version, (topic, 9), verify_only=True),
        producer.described(),
    ]


@error(ADD, 4, 5)
def several_transactions(peer: Peer, version: int) -> Any:
    producers = [begun(peer, name) for name in ("a", "b", "c")]
    topic = peer.topic(2)
    asked = [
        AddPartitionsToTxnTransaction(
            transactional_id=one.name,
            producer_id=one.id,
            producer_epoch=one.epoch,
            topics=[AddPartitionsToTxnTopic(name=topic, partitions=numbers)],
        )
        for one, numbers in zip(producers, ([0], [0, 1], [0, 5]), strict=True)
    ]
    answer = patient(lambda: peer.ask(AddPartitionsToTxnRequest(transactions=asked), version))
    answer["results_by_transaction"].sort(key=lambda one: one["transactional_id"])
    return [answer, *(one.described() for one in producers)]


@error(ADD, 4, 5)
def a_transaction_twice(peer: Peer, version: int) -> Any:
    producer, topic = begun(peer), peer.topic(2)
    asked = [
        AddPartitionsToTxnTransaction(
            transactional_id=producer.name,
            producer_id=producer.id,
            producer_epoch=producer.epoch,
            topics=[AddPartitionsToTxnTopic(name=topic, partitions=[number])],
        )
        for number in (0, 1)
    ]
    answer = patient(lambda: peer.ask(AddPartitionsToTxnRequest(transactions=asked), version))
    return [answer, producer.described()]


@error(ADD, 4, 5)
def topics_without_partitions(peer: Peer, version: int) -> Any:
    producer, topic = begun(peer), peer.topic()
    answers = []
    for verify_only in (False, True):
        asked = AddPartitionsToTxnTransaction(
            transactional_id=producer.name,
            producer_id=producer.id,
            producer_epoch=producer.epoch,
            verify_only=verify_only,
            topics=[AddPartitionsToTxnTopic(name=topic, partitions=[])],
        )
        request = AddPartitionsToTxnRequest(transactions=[asked])
        answers.append(patient(lambda request=request: peer.ask(request, version)))
    return [*answers, producer.described()]


@error(ADD, 4, 5)
def no_transactions(peer: Peer, version: int) -> Any:
    with peer.less_patient():  # Kafka never answers
        return peer.ask(AddPartitionsToTxnRequest(transactions=[]), version)


# --- AddOffsetsToTxn ---------------------------------------------------------------------------


@success(ADD_OFFSETS)
def a_group(peer: Peer, version: int) -> Any:
    producer = begun(peer)
    answers = [producer.add_offsets(version), producer.add_offsets(version)]
    told = producer.described()
    [(topic, numbers)] = told["topics"]
    return [*answers, told["transaction_state"], topic, len(numbers)]


@error(ADD_OFFSETS)
def h113_of_another_producer(peer: Peer, version: int) -> Any:
    producer = begun(peer)
    return [
        producer.add_offsets(version, transactional_id=f"{producer.name}-unknown"),
        producer.add_offsets(version, producer_id=STRANGER),
        producer.add_offsets(version, producer_epoch=producer.epoch + 1),
        producer.add_offsets(version, transactional_id=""),
        producer.add_offsets(version, group=""),
    ]


# --- EndTxn ------------------------------------------------------------------------------------


@success(END)
def committed_and_the_next_one_aborted(peer: Peer, version: int) -> Any:
    producer = begun(peer)
    topic = peer.topic()
    adding = 3 if version < BUMPING else 5
    answers = []
    for committed in (True, False):
        answers += [producer.add(adding, (topic, 0)), producer.end(version, committed)]
        answers.append(producer.described())
    return [*answers, producer.init(), producer.described()]


@error(END)
def h114_nothing_was_begun(peer: Peer, version: int) -> Any:
    producer = begun(peer)
    answers = [producer.end(version), producer.described()]
    return [*answers, producer.end(version, committed=False), producer.described()]


@error(END)
def h114_the_same_again_and_the_opposite(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    answers = []
    for committed in (True, False):
        producer = begun(peer, f"-{committed}")
        producer.add(3 if version < BUMPING else 5, (topic, 0))
        was = {"producer_epoch": producer.epoch, "producer_id": producer.id}
        answers.append(producer.end(version, committed))
        answers.append(producer.described())
        answers.append(producer.end(version, committed, **was))
        answers.append(producer.end(version, not committed, **was))
        answers.append(producer.described())
    return answers


@error(END, 5)
def h114_after_the_end_with_the_epoch_of_the_next(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    answers = []
    for first in (True, False):
        for second in (True, False):
            producer = begun(peer, f"-{first}-{second}")
            producer.add(5, (topic, 0))
            answers += [producer.end(version, first), producer.described()]
            answers += [producer.end(version, second), producer.described()]
    return answers


@error(END)
def h113_by_another_producer(peer: Peer, version: int) -> Any:
    producer = begun(peer)
    topic = peer.topic()
    producer.add(3, (topic, 0))
    return [
        producer.end(version, transactional_id=f"{producer.name}-unknown"),
        producer.end(version, producer_id=STRANGER),
        producer.end(version, producer_epoch=producer.epoch + 1),
        producer.end(version, producer_epoch=-1),
        producer.end(version, transactional_id=""),
        producer.described(),
    ]


@error(END, 5)
def h115_delayed_into_the_next_transaction(peer: Peer, version: int) -> Any:
    producer = begun(peer)
    topic = peer.topic()
    producer.add(5, (topic, 0))
    was = {"producer_epoch": producer.epoch, "producer_id": producer.id}
    first = producer.end(version)
    producer.add(5, (topic, 0))
    late = [producer.end(version, committed, **was) for committed in (True, False)]
    return [first, *late, producer.described(), producer.end(version), producer.described()]


@error(END, 0, 3)
def by_the_rules_of_old_after_those_of_new(peer: Peer, version: int) -> Any:
    """A client that goes back to version 1 of transactions, and forth again."""
    producer = begun(peer)
    topic = peer.topic()
    answers = []
    for ending, adding in ((5, 5), (version, 3), (5, 5), (version, 3)):
        answers += [producer.add(adding, (topic, 0)), producer.end(ending), producer.described()]
    return answers


@error(END, 5)
def h113_a_zombie_after_a_transaction_of_old(peer: Peer, version: int) -> Any:
    """It is one epoch behind a producer of version 1, and asks for the end that that one had."""
    told = {}
    for committed in (True, False):
        zombie = begun(peer, f"-{committed}")
        producer = begun(peer, f"-{committed}")
        producer.add(3, (peer.topic(), 0))
        producer.end(3, committed)
        assert producer.described()["producer_epoch"] == producer.epoch == zombie.epoch + 1
        told["committed" if committed else "aborted"] = zombie.end(version, committed)
    return told


@error(END, 3, 5)
def h116_a_transaction_that_takes_too_long(peer: Peer, version: int) -> Any:
    """Aborted by the coordinator; its producer is fenced."""
    producer = begun(peer, timeout_ms=1)
    topic = peer.topic()
    producer.add(3, (topic, 0))
    wait_until(
        lambda: producer.described()["transaction_state"] == "CompleteAbort",
        "the abort of a transaction that took too long",
        seconds=120,  # Kafka looks every 10 s
    )
    return [
        producer.described(),
        producer.end(version, committed=True),
        producer.end(version, committed=False, producer_epoch=producer.epoch),
        producer.add(3, (topic, 0)),
    ]


# --- DescribeTransactions, ListTransactions ----------------------------------------------------


@success(DESCRIBE)
def one_that_is_and_one_that_is_not(peer: Peer, version: int) -> Any:
    assert version == 0
    producer = begun(peer)
    states = describe(peer, [producer.name, f"{producer.name}-unknown", ""])
    return [producer._named(one) for one in states]


@error(DESCRIBE)
def nobody(peer: Peer, version: int) -> Any:
    return peer.ask(DescribeTransactionsRequest(transactional_ids=[]), version)


@error(DESCRIBE)
def the_same_twice(peer: Peer, version: int) -> Any:
    assert version == 0
    producer = begun(peer)
    return [producer._named(one) for one in describe(peer, [producer.name] * 2)]


def listed(peer: Peer, version: int, mine: dict[int, str], **filters: Any) -> Any:
    """What is listed of this case's own producers."""
    answer = peer.ask(ListTransactionsRequest(**filters), version)
    states = [one for one in answer["transaction_states"] if one["producer_id"] in mine]
    for one in states:
        one["producer_id"] = mine[one["producer_id"]]
    answer["transaction_states"] = sorted(states, key=lambda one: one["transactional_id"])
    return answer


@success(LIST)
def by_every_filter(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    producers = [begun(peer, f"-{name}") for name in ("a", "b", "c")]
    producers[1].add(3, (topic, 0))
    producers[2].add(3, (topic, 0))
    producers[2].end(3)
    producers[2].described()
    mine = {one.id: one.name for one in producers}
    filters: list[dict[str, Any]] = [
        {},
        {"state_filters": ["Ongoing"]},
        {"state_filters": ["Empty", "CompleteCommit"]},
        {"producer_id_filters": [producers[0].id, producers[2].id, STRANGER]},
        {"state_filters": ["Ongoing"], "producer_id_filters": [producers[0].id]},
    ]
    if version >= 1:
        filters += [{"duration_filter": ms} for ms in (0, 3_600_000, -1, -5)]
    if version >= 2:
        patterns = ("txn-.*-[ab]", "nothing", "", ".*", producers[0].name, "txn")
        filters += [{"transactional_id_pattern": text} for text in patterns]
        filters.append({"transactional_id_pattern": None})
    return [listed(peer, version, mine, **one) for one in filters]


@each(
    LIST,
    0,
    2,
    unknown=["Nothing", "Ongoing"],
    unknown_twice=["Nothing", "Nothing"],
    all_unknown=["ongoing", "x"],
    every=[
        "Empty",
        "Ongoing",
        "PrepareCommit",
        "PrepareAbort",
        "CompleteCommit",
        "CompleteAbort",
        "Dead",
        "PrepareEpochFence",
    ],
)
def state_filter(peer: Peer, version: int, given: list[str]) -> Any:
    producer = begun(peer)
    return listed(peer, version, {producer.id: producer.name}, state_filters=given)


@each(LIST, 2, open_group="(", nothing_to_repeat="*", back_reference=r"(a)\1", look="a(?=b)")
def h110_pattern(peer: Peer, version: int, given: str) -> Any:
    return listed(peer, version, {}, transactional_id_pattern=given)


@error(LIST, 2)
def h110_a_long_pattern(peer: Peer, version: int) -> Any:
    return listed(peer, version, {}, transactional_id_pattern="x" * 5000)
