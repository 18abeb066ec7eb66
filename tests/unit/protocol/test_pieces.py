"""A message encoded some elements at a time is, byte for byte, the one encoded at once."""

from __future__ import annotations

import pytest

from ottla.protocol.codec import encoder
from ottla.protocol.messages.list_groups import ListedGroup, ListGroupsResponse
from ottla.protocol.messages.list_transactions import ListTransactionsResponse, TransactionState
from ottla.protocol.messages.metadata import MetadataResponse
from ottla.protocol.pieces import Pieces


@pytest.mark.parametrize("version", range(6))
@pytest.mark.parametrize("sizes", [[], [0], [1], [126, 1, 0, 200], [127], [20_000]])
def test_pieces_make_the_same_bytes(version: int, sizes: list[int]) -> None:
    groups = [ListedGroup(group_id=f"g{n}", group_state="Empty") for n in range(sum(sizes))]
    whole = ListGroupsResponse(error_code=14, groups=groups)
    pieces, at = Pieces(ListGroupsResponse, version), 0
    for size in sizes:
        pieces.add(groups[at : at + size])
        at += size
    assert [pieces.finish(ListGroupsResponse(error_code=14))] == encoder(
        ListGroupsResponse, version
    )(whole)


def test_what_comes_before_the_elements_may_be_of_any_length() -> None:
    names = ["Asleep", "Awake"]
    told = [TransactionState(transactional_id="a", producer_id=7, transaction_state="Empty")]
    pieces = Pieces(ListTransactionsResponse, 2)
    pieces.add(told)
    whole = ListTransactionsResponse(unknown_state_filters=names, transaction_states=told)
    found = pieces.finish(ListTransactionsResponse(unknown_state_filters=names))
    assert [found] == encoder(ListTransactionsResponse, 2)(whole)


def test_a_message_that_ends_otherwise_is_not_cut() -> None:
    with pytest.raises(AssertionError, match="MetadataResponse"):
        Pieces(MetadataResponse, 12)
