"""Headers in, frames out."""

from __future__ import annotations

import struct

import pytest

from ottla.core.model import FileSlice
from ottla.protocol.frame import (
    RequestHeader,
    decode_request_header,
    request_frame,
    response_frame,
)
from ottla.protocol.primitives import CodecError

HEARTBEAT = 12  # flexible from v4


class NoFile:
    path = "none"

    def retain(self):
        pass

    def release(self):
        pass


def head(key=HEARTBEAT, version=0, correlation_id=7, length=2, rest=b"me"):
    return memoryview(struct.pack(">hhih", key, version, correlation_id, length) + rest)


def test_a_v1_header_is_read_to_where_the_body_begins():
    header, at = decode_request_header(head(rest=b"mebody"))
    assert (header.api_key, header.api_version) == (HEARTBEAT, 0)
    assert (header.correlation_id, header.client_id, at) == (7, "me", 12)


def test_a_flexible_header_is_read_past_its_tags():
    _, at = decode_request_header(head(version=4, rest=b"me\x00body"))
    assert at == 13
    _, at = decode_request_header(head(version=4, rest=b"me\x02\x00\x01x\x05\x02yzbody"))
    assert at == 12 + 8


def test_a_null_client_id_is_none_and_an_empty_one_is_empty():
    assert decode_request_header(head(length=-1, rest=b""))[0].client_id is None
    assert decode_request_header(head(length=0, rest=b""))[0].client_id == ""


def test_an_unknown_key_has_a_header_without_tags():
    header, at = decode_request_header(head(key=9999, version=99))
    assert (header.api_key, at) == (9999, 12)


@pytest.mark.parametrize("correlation_id", [-1, -(2**31), 2**31 - 1, 0])
def test_any_correlation_id_is_taken_as_it_is(correlation_id):  # H25
    assert decode_request_header(head(correlation_id=correlation_id))[0].correlation_id == (
        correlation_id
    )


@pytest.mark.parametrize(
    "view",
    [
        head(length=-2),
        head(length=32767),
        head(length=3),
        head(rest=b"\xff\xfe"),
        head(version=4, rest=b"me"),  # tags missing
        head(version=4, rest=b"me\x01"),
        head(version=4, rest=b"me\xff\xff\xff\xff\x07"),  # H16: 2^31-1 tags
        head(version=4, rest=b"me\x02\x01\x00\x01\x00"),  # a tag twice
        head(version=4, rest=b"me\x02\x05\x00\x01\x00"),  # tags that fall
        head(version=4, rest=b"me\x01\x00\x09x"),  # longer than what is left
        head(version=4, rest=b"me\xff\xff\xff\xff\xff\xff\x01"),  # H17
    ],
)
def test_a_header_that_cannot_be_is_refused(view):  # H15
    with pytest.raises(CodecError):
        decode_request_header(view)


def test_every_prefix_of_a_header_is_refused():
    whole = head(version=4, rest=b"me\x02\x00\x01x\x05\x02yz")
    for size in range(len(whole)):
        with pytest.raises(CodecError):
            decode_request_header(whole[:size])


def test_a_response_frame_begins_with_size_and_correlation_id():
    assert response_frame(9, False, [b"body"]) == [struct.pack(">ii", 8, 9) + b"body"]
    assert response_frame(9, True, [b"body"]) == [struct.pack(">iix", 9, 9) + b"body"]
    assert response_frame(-1, False, []) == [struct.pack(">ii", 4, -1)]


def test_slices_count_in_the_size_and_stay_slices():
    piece = FileSlice(NoFile(), 0, 1000)
    frame = response_frame(9, False, [b"head", piece, b"tail"])
    assert frame == [struct.pack(">ii", 4 + 4 + 1000 + 4, 9) + b"head", piece, b"tail"]
    assert response_frame(9, False, [piece])[1] is piece


def test_a_request_frame_is_read_back():
    for version in (0, 4):
        for client_id in (None, "", "ü"):
            frame = request_frame(RequestHeader(HEARTBEAT, version, 5, client_id), [b"bo", b"dy"])
            assert struct.unpack_from(">i", frame)[0] == len(frame) - 4
            header, at = decode_request_header(memoryview(frame)[4:])
            assert (header.api_version, header.client_id) == (version, client_id)
            assert frame[4 + at :] == b"body"
