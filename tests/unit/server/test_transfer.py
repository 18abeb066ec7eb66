"""Chunks to a socket that takes as much as the test lets it. (The real sendfile: tests/hostile.)"""

from __future__ import annotations

import os
import random
from errno import EIO, ENODATA, ESTALE, EUCLEAN

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ottla.core.model import FileSlice
from ottla.core.ports import DiskError
from ottla.server.transfer import Sender, SliceCutShort
from tests.unit.server.doubles import MemoryFile, Socket


class Progress:
    def __init__(self):
        self.answers = 0
        self.memory = 0

    def __call__(self, answers, memory):
        self.answers += answers
        self.memory += memory


def sender(sock, progress=None):
    return Sender(sock, progress or Progress(), portable=True)


def test_what_fits_leaves_with_one_call():
    sock = Socket()
    assert sender(sock).send([b"one", b"two"], False, 2, 6)
    assert (bytes(sock.outgoing), sock.sends) == (b"onetwo", 1)


def test_what_does_not_fit_leaves_later_in_order():
    sock, progress = Socket(), Progress()
    out = sender(sock, progress)
    sock.space = 4
    assert not out.send([b"first"], False, 1, 5)
    assert not out.send([b"second"], False, 1, 6)
    assert out.blocked
    sock.space = 1
    out.writable()
    assert (progress.answers, progress.memory) == (1, 5)
    sock.space = 100
    out.writable()
    assert (progress.answers, progress.memory) == (2, 11)
    assert bytes(sock.outgoing) == b"firstsecond"
    assert not out.blocked


def test_a_small_slice_travels_with_the_bytes_around_it():
    sock, file = Socket(), MemoryFile(b"0123456789")
    assert sender(sock).send([b"<", FileSlice(file, 2, 3), b">"], True, 1, 2)
    assert (bytes(sock.outgoing), sock.sends, file.pins) == (b"<234>", 1, 0)


def test_a_small_slice_that_is_not_in_memory_is_sent_as_a_slice():
    sock, file = Socket(), MemoryFile(b"0123456789", warm=False)
    assert sender(sock).send([b"<", FileSlice(file, 2, 3), b">"], True, 1, 2)
    assert (bytes(sock.outgoing), file.pins) == (b"<234>", 0)


@pytest.mark.parametrize("length", [20, 100_000])
def test_a_slice_beyond_the_end_of_its_file_is_an_error_and_is_released_once(length):
    sock, file = Socket(), MemoryFile(b"0123456789" * 1000)
    out = sender(sock)
    with pytest.raises(SliceCutShort):
        out.send([b"<", FileSlice(file, 9_990, length)], True, 1, 1)
    assert file.pins == 1
    out.close()
    assert file.pins == 0


@pytest.mark.parametrize("code", [EIO, EUCLEAN, ESTALE, ENODATA])
@pytest.mark.parametrize("portable", [True, False])
def test_a_slice_that_the_disk_refuses_is_no_trouble_of_the_socket_s(monkeypatch, portable, code):
    sock, file = Socket(), MemoryFile(bytes(100_000))
    refused = OSError(code, "no")

    def sendfile(*_):
        raise refused

    def read(*_):
        raise DiskError("read", file.path, refused)

    monkeypatch.setattr(os, "sendfile", sendfile, raising=False)
    monkeypatch.setattr(file, "read", read)
    monkeypatch.setattr(file, "fileno", lambda: 5, raising=False)
    out = Sender(sock, Progress(), portable=portable)
    with pytest.raises(SliceCutShort, match="read memory: no"):
        out.send([b"<", FileSlice(file, 0, 50_000)], True, 1, 1)
    out.close()
    assert file.pins == 0


def test_where_the_disk_refused_a_slice_its_file_is_told(monkeypatch):
    """Or the same bytes would be sent again and again, each time to the same place."""
    sock, file = Socket(), MemoryFile(bytes(100_000))
    counts = iter([8192])

    def sendfile(*_):
        try:
            return next(counts)
        except StopIteration:
            raise OSError(EIO, "no") from None

    monkeypatch.setattr(os, "sendfile", sendfile, raising=False)
    monkeypatch.setattr(file, "fileno", lambda: 5, raising=False)
    out = Sender(sock, Progress(), portable=False)
    out.send([b"<", FileSlice(file, 1000, 50_000)], True, 1, 1)
    with pytest.raises(SliceCutShort):
        out.writable()
    assert file.unreadable == (9192,)
    out.close()


def test_closing_releases_what_is_queued():
    sock, file = Socket(), MemoryFile(bytes(100_000))
    out = sender(sock)
    sock.space = 10
    out.send([b"<", FileSlice(file, 0, 50_000), b"-", FileSlice(file, 0, 50_000)], True, 1, 2)
    assert file.pins == 2
    out.close()
    assert (file.pins, out.blocked) == (0, False)
    out.close()


@settings(max_examples=80, print_blob=True)
@given(seed=st.integers(0, 2**32))
def test_any_chunks_leave_whole_and_in_order_through_any_socket(seed):
    rng = random.Random(seed)
    file = MemoryFile(rng.randbytes(300_000), warm=rng.random() < 0.8)
    sock, progress = Socket(), Progress()
    out = sender(sock, progress)
    wanted = bytearray()
    given_answers = at_once = 0
    for _ in range(rng.randint(1, 20)):
        sock.space = rng.choice([0, 1, 1000, 200_000])
        chunks = [rng.randbytes(rng.choice([1, 50, 5000]))]
        while rng.random() < 0.5:
            size = rng.choice([1, 100, 20_000, 200_000])
            chunks.append(FileSlice(file, rng.randint(0, 300_000 - size), size))
            if rng.random() < 0.5:
                chunks.append(rng.randbytes(10))
        for chunk in chunks:
            wanted += chunk if isinstance(chunk, bytes) else file.read(chunk.position, chunk.length)
        given_answers += 1
        if out.send(chunks, len(chunks) > 1, 1, 0):
            at_once += 1
        while out.blocked and rng.random() < 0.5:
            sock.space = rng.choice([1, 1000, 200_000])
            out.writable()
    while out.blocked:
        sock.space = 100_000
        out.writable()
    assert sock.outgoing == wanted
    assert file.pins == 0
    assert at_once + progress.answers == given_answers
