"""ListTransactions, key 66, versions 0 to 2.

All transactional ids that this node coordinates and that pass every filter. A pattern is matched
in time that grows with the ids and nothing else, a slice at a time.
v1 how long it has been going on (KIP-994) · v2 a pattern of transactional ids (KIP-1152)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ottla.coordinator.group.regex import Regex, RegexError
from ottla.coordinator.transaction.listing import Filter, listed
from ottla.coordinator.transaction.states import BY_TITLE
from ottla.handlers.limits import too_many
from ottla.handlers.listing import Listing, Source
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.list_transactions import (
    ListTransactionsRequest,
    ListTransactionsResponse,
    TransactionState,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ottla.coordinator.transaction.shard import TransactionShard
    from ottla.handlers.context import Context, Request

SLICE_STEPS: Final = 20_000
"""Characters that are matched in one go: a few milliseconds."""


def handle(context: Context, request: Request[ListTransactionsRequest]) -> Reply | Parked:
    """The ids of all shards; an error if one of these can't say."""
    body = request.body
    if too_many(context, request, len(body.state_filters) + len(body.producer_id_filters)):
        return Reply(_refused(ErrorCode.INVALID_REQUEST))
    pattern = None
    if body.transactional_id_pattern:
        try:
            pattern = Regex(body.transactional_id_pattern)
        except RegexError:
            return Reply(_refused(ErrorCode.INVALID_REGULAR_EXPRESSION))
    states = None
    if body.state_filters:
        states = {BY_TITLE[name] for name in body.state_filters if name in BY_TITLE}
    wanted = Filter(states, frozenset(body.producer_id_filters), body.duration_filter)
    unknown = dict.fromkeys(name for name in body.state_filters if name not in BY_TITLE)
    answer = ListTransactionsResponse(unknown_state_filters=list(unknown))
    source = _Transactions(answer, wanted, pattern, context.clock.wall_ms())
    runtime = context.transactions.runtime
    return Listing(source, runtime, context.timers, request.api_version).begin()


class _Transactions(Source["TransactionShard"]):
    """What is told of transactional ids that pass every filter."""

    def __init__(
        self,
        answer: ListTransactionsResponse,
        wanted: Filter,
        pattern: Regex | None,
        now_ms: int,
    ) -> None:
        super().__init__(answer)
        self._wanted = wanted
        self._pattern = pattern
        self._now_ms = now_ms
        self._steps_max = 0

    def names(self, shard: TransactionShard) -> Iterable[str]:
        return shard.transactions

    def tell(self, shard: TransactionShard, name: str) -> TransactionState | None:
        told = listed(shard, name, self._wanted, self._now_ms)
        if told is None or self._pattern is None or self._pattern.matches(name):
            return told
        return None

    def rested(self) -> None:
        if self._pattern is not None:
            self._steps_max = self._pattern.steps + SLICE_STEPS

    def is_tired(self) -> bool:
        return self._pattern is not None and self._pattern.steps >= self._steps_max

    def failed(self, error: ErrorCode) -> ListTransactionsResponse:
        return _refused(error)


def _refused(error: ErrorCode) -> ListTransactionsResponse:
    return ListTransactionsResponse(error_code=error)
