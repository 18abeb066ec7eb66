"""The client's side of a connection."""

from __future__ import annotations

import pytest

from ottla.protocol.client import ClientConnection
from ottla.protocol.connection import PeerError
from ottla.protocol.frame import decode_request_header, response_frame

HEARTBEAT, API_VERSIONS = 12, 18


def receive(client, data):
    room = client.room()
    room[: len(data)] = data
    return [(sent, bytes(body)) for sent, body in client.answers(len(data))]


def test_answers_are_matched_in_order_and_lose_their_headers():
    client = ClientConnection("me")
    frames = [
        client.request(HEARTBEAT, 0, [b"x"]),
        client.request(HEARTBEAT, 4, [b"x"]),
        client.request(API_VERSIONS, 3, [b"x"]),  # its answer has header v0 all the same
    ]
    ids = [decode_request_header(memoryview(frame)[4:])[0].correlation_id for frame in frames]
    assert ids == [0, 1, 2]
    data = b"".join(
        response_frame(number, flexible, [b"%d" % number])[0]
        for number, flexible in ((0, False), (1, True), (2, False))
    )
    found = receive(client, data)
    assert [body for _, body in found] == [b"0", b"1", b"2"]
    assert [sent.api_version for sent, _ in found] == [0, 4, 3]


def test_an_answer_to_another_request_is_refused():  # I47
    client = ClientConnection(None)
    client.request(HEARTBEAT, 0, [])
    with pytest.raises(PeerError):
        receive(client, response_frame(1, False, [b""])[0])


def test_an_answer_without_a_request_is_refused():
    client = ClientConnection(None)
    client.request(HEARTBEAT, 0, [], answered=False)
    with pytest.raises(PeerError):
        receive(client, response_frame(0, False, [b""])[0])
