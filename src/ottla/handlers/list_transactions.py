"""ListTransactions, key 66, versions 0 to 2.

All transactional ids that this node coordinates and that pass every filter. A pattern is matched
in time that grows with the ids and nothing else, a slice at a time.
v1 how long it has been going on (KIP-994) · v2 a pattern of transactional ids (KIP-1152)
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ottla.coordinator.group.regex import Regex, RegexError
from ottla.coordinator.transaction.listing import Filter, list_all
from ottla.coordinator.transaction.states import BY_TITLE
from ottla.core.pending import Pending
from ottla.handlers.asking import when_all_replied
from ottla.handlers.limits import too_many
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.list_transactions import (
    ListTransactionsRequest,
    ListTransactionsResponse,
    TransactionState,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ottla.coordinator.decision import Decision
    from ottla.coordinator.transaction.shard import TransactionShard
    from ottla.handlers.context import Context, Request

SLICE_STEPS: Final = 20_000
"""Characters that are matched in one go: a few milliseconds."""


def handle(context: Context, request: Request[ListTransactionsRequest]) -> Reply | Parked:
    """The ids of all shards; an error if one of these can't say."""
    body = request.body
    if too_many(context, request, len(body.state_filters) + len(body.producer_id_filters)):
        return _refused(ErrorCode.INVALID_REQUEST)
    pattern = None
    if body.transactional_id_pattern:
        try:
            pattern = Regex(body.transactional_id_pattern)
        except RegexError:
            return _refused(ErrorCode.INVALID_REGULAR_EXPRESSION)
    states = None
    if body.state_filters:
        states = {BY_TITLE[name] for name in body.state_filters if name in BY_TITLE}
    wanted = Filter(states, frozenset(body.producer_id_filters), body.duration_filter)
    answer = ListTransactionsResponse(
        unknown_state_filters=[name for name in body.state_filters if name not in BY_TITLE]
    )
    now_ms = context.clock.wall_ms()
    asked = context.transactions.runtime.submit_everywhere(partial(_list, wanted, now_ms))
    return when_all_replied(asked, partial(_told, context, answer, pattern, asked))


def _list(
    wanted: Filter, now_ms: int, shard: TransactionShard
) -> Decision[Sequence[TransactionState]]:
    return list_all(shard, wanted, now_ms)


def _told(
    context: Context,
    answer: ListTransactionsResponse,
    pattern: Regex | None,
    asked: Sequence[Pending[Any]],
) -> Reply | Parked:
    for one in asked:
        told = one.result()
        if not isinstance(told, ErrorCode):
            answer.transaction_states += told
        elif told is not ErrorCode.NOT_COORDINATOR:
            return _refused(told)
    if pattern is None:
        return Reply(answer)
    found = answer.transaction_states
    answer.transaction_states = []
    found.reverse()
    return _match(context, answer, pattern, found)


def _match(
    context: Context,
    answer: ListTransactionsResponse,
    pattern: Regex,
    left: list[TransactionState],
) -> Reply | Parked:
    """Keep what the pattern describes; `left` is what is still to be looked at."""
    until = pattern.steps + SLICE_STEPS
    while left:
        one = left.pop()
        if pattern.matches(one.transactional_id):
            answer.transaction_states.append(one)
        if pattern.steps >= until:
            turn: Pending[None] = Pending()
            context.timers.soon(partial(turn.complete, None))
            again = partial(_match, context, answer, pattern, left)
            return Parked(turn, again, abandon=turn.abandon)
    return Reply(answer)


def _refused(error: ErrorCode) -> Reply:
    return Reply(ListTransactionsResponse(error_code=error))
