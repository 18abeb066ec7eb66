"""Whatever bytes arrive, a decoder gives a message or a CodecError, and what it gives can be written.

Uses every request that a client can send; a failure prints the blob that repeats it.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ottla.protocol import apis
from ottla.protocol.codec import CodecError, decoder, encoder

VERSIONS = [
    (key, version)
    for key, (first, last) in apis.RANGES.items()
    for version in range(first, last + 1)
]


# Bytes that look like lengths and counts reach deeper than bytes at random.
likely = st.sampled_from(
    [
        b"\0",
        b"\1",
        b"\2",
        b"\xff",
        b"\0\1",
        b"\0\0\0\1",
        b"\xff\xff",
        b"\xff\xff\xff\xff",
        b"\x80\1",
    ]
)
pieces = st.lists(st.one_of(likely, st.binary(max_size=6)), max_size=40).map(b"".join)


@settings(max_examples=2000, deadline=None, print_blob=True)
@given(st.sampled_from(VERSIONS), pieces)
def test_any_bytes_are_a_message_or_a_codec_error(api: tuple[int, int], data: bytes) -> None:
    key, version = api
    request = apis.request_class(key)
    try:
        message, end = decoder(request, version)(memoryview(data), 0)
    except CodecError:
        return
    assert 0 <= end <= len(data)
    [written] = encoder(request, version)(message)
    assert isinstance(written, bytes)
    again, end = decoder(request, version)(memoryview(written), 0)
    assert end == len(written)
    assert encoder(request, version)(again) == [written]  # not the messages: NaN differs from NaN
