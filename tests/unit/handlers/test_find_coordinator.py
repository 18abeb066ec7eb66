"""FindCoordinator. Codes are those of Apache Kafka 4.3.1."""

from __future__ import annotations

import pytest

from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from tests.unit.handlers.node import ENDPOINT, FakeNode


@pytest.mark.parametrize("version", range(4))
def test_a_single_node_coordinates_every_group(version: int) -> None:
    answer = FakeNode().ask(FindCoordinatorRequest(key="a-group"), version)
    assert answer.error_code == ErrorCode.NONE
    assert (answer.node_id, answer.host, answer.port) == (0, *ENDPOINT)


@pytest.mark.parametrize("version", [4, 5, 6])
def test_several_keys_are_answered_in_their_order_also_when_repeated(version: int) -> None:
    answer = FakeNode().ask(FindCoordinatorRequest(coordinator_keys=["g", "h", "g"]), version)
    assert [one.key for one in answer.coordinators] == ["g", "h", "g"]
    assert {(one.error_code, one.node_id) for one in answer.coordinators} == {(0, 0)}


def test_no_keys_have_no_coordinators() -> None:
    assert FakeNode().ask(FindCoordinatorRequest(coordinator_keys=[]), 4).coordinators == []


def test_a_transactional_id_has_a_coordinator_too() -> None:
    answer = FakeNode().ask(FindCoordinatorRequest(key="t", key_type=1), 1)
    assert (answer.error_code, answer.error_message, answer.node_id) == (0, "NONE", 0)


@pytest.mark.parametrize(("key_type", "version"), [(2, 1), (2, 5), (3, 1), (-1, 4), (9, 6)])
def test_an_unknown_key_type_is_an_invalid_request(key_type: int, version: int) -> None:
    """H120. Share groups are known from version 6 on."""
    request = FindCoordinatorRequest(key="g", key_type=key_type, coordinator_keys=["g"])
    answer = FakeNode().ask(request, version)
    one = answer if version < 4 else answer.coordinators[0]
    assert (one.error_code, one.node_id) == (ErrorCode.INVALID_REQUEST, -1)


def test_share_groups_have_no_coordinator_yet() -> None:
    request = FindCoordinatorRequest(key_type=2, coordinator_keys=["g:AAAAAAAAAAAAAAAAAAAAAQ:0"])
    (one,) = FakeNode().ask(request, 6).coordinators
    assert one.error_code == ErrorCode.COORDINATOR_NOT_AVAILABLE
