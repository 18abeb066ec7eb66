"""A fetch session that looks at what has changed answers as one that looks at everything does.

Two sessions of one simulated node, asked the same at every step of any history; before each of its
fetches the second is made to look at all its partitions.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from ottla.core.model import Offset
from ottla.testing.simnode import SimNode
from tests.asking import Want, batch, batches, fetch, fetched, put

PARTITIONS_COUNT = 2
ONE = batch(b"x" * 100)
NUMBERS = st.integers(0, PARTITIONS_COUNT - 1)
AT_ITS_END = -1
WANTS = st.builds(
    Want,
    offset=st.sampled_from([AT_ITS_END, AT_ITS_END, AT_ITS_END, 0, 1, 9]),
    topic=st.just("t"),
    partition=NUMBERS,
    bytes_max=st.sampled_from([1 << 20, 1]),
    epoch=st.sampled_from([-1, -1, -1, 0, 1]),
    fetched_epoch=st.sampled_from([-1, -1, -1, 0]),
)


class TwoSessions(RuleBasedStateMachine):
    """`sessions` are the clients' ends of both: id, epoch."""

    @initialize(wants=st.lists(WANTS, min_size=1, max_size=6))
    def begin(self, wants: list[Want]) -> None:
        self.node = SimNode()
        self.node.create_topic("t", PARTITIONS_COUNT)
        self.begin_sessions(wants)

    @rule(wants=st.lists(WANTS, min_size=1, max_size=6))
    def begin_sessions(self, wants: list[Want]) -> None:
        self.sessions = [(0, 0), (0, 0)]
        self.connections = [self.node.connect(), self.node.connect()]
        self._ask(*wants)

    @rule(number=NUMBERS)
    def append(self, number: int) -> None:
        put(self.node, ONE, partition=number)

    @rule(number=NUMBERS)
    def move_start(self, number: int) -> None:
        partition = self.node.partition("t", number)
        partition.log.set_start(Offset((partition.log.start + partition.high_watermark + 1) // 2))

    @rule()
    def make_topic_anew(self) -> None:
        self.node.delete_topic("t")
        self._ask()
        self.node.create_topic("t", PARTITIONS_COUNT)

    @rule(
        wants=st.lists(WANTS, max_size=2),
        forget=st.lists(WANTS, max_size=1),
        isolation=st.sampled_from([0, 0, 0, 1]),
        bytes_max=st.sampled_from([1 << 20, len(ONE), 1]),
    )
    def fetch(self, wants: list[Want], forget: list[Want], isolation: int, bytes_max: int) -> None:
        self._ask(*wants, forget=tuple(forget), isolation_level=isolation, max_bytes=bytes_max)

    @rule(number=NUMBERS, least=st.integers(1, 3))
    def fetch_that_waits(self, number: int, least: int) -> None:
        min_bytes = least * len(ONE)
        self._ask(min_bytes=min_bytes, max_wait_ms=1000, meanwhile=lambda: self.append(number))

    def _ask(self, *wants: Want, meanwhile: Any = None, **more: Any) -> None:
        self._look_at_all()
        wants = tuple(map(self._placed, wants))
        calls = [
            connection.ask(fetch(*wants, session=session, **more), 12)
            for connection, session in zip(self.connections, self.sessions, strict=True)
        ]
        self.node.settle()
        if meanwhile is not None:
            meanwhile()
            assert calls[0].done == calls[1].done, "woken by the same bytes"
            self.node.advance(2)
        first, second = calls
        assert first.answer.error_code == second.answer.error_code
        assert [_seen(part) for part in fetched(first)] == [_seen(part) for part in fetched(second)]
        self.sessions = [
            (call.answer.session_id, epoch + 1)
            for call, (_, epoch) in zip(calls, self.sessions, strict=True)
        ]

    def _placed(self, want: Want) -> Want:
        if want.offset != AT_ITS_END:
            return want
        return want._replace(offset=self.node.partition("t", want.partition).high_watermark)

    def _look_at_all(self) -> None:
        kept = self.node.context.kept.get("fetch")
        session = kept and kept.sessions._sessions.get(self.sessions[1][0])
        if session:
            session.read_as(object())
            assert not session.any_asleep


def _seen(part: Any) -> tuple[Any, ...]:
    return (
        part.partition_index,
        part.error_code,
        part.high_watermark,
        part.last_stable_offset,
        part.log_start_offset,
        part.diverging_epoch.end_offset,
        [one.base_offset for one in batches(part)],
    )


TestTwoSessions = TwoSessions.TestCase
TestTwoSessions.settings = settings(stateful_step_count=20)
