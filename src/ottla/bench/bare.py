"""The bare loop: what any broker must do at least, without being one. The yardstick of load.py.

For a produce: receive a whole frame into a buffer that fits, crc32c over it, write it to a file,
answer a fixed answer. For a fetch: answer a head and sendfile. For what writes nothing (FILE is
`-`): answer. A process of its own (`python -m ottla.bench.bare FILE ANSWER_BYTES SENDFILE_BYTES`),
prints its port.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import sys

import crc32c

_SIZE = struct.Struct(">i")
# From here on the file is written over, so that a long run fits on the disk. As much as load.py
# sends at most: a log grows, and a new page costs 2.5 times one that is there (150 µs a MiB, 60).
_WRAP_BYTES = 512 << 20
_NO_FILE = -1
_SLICES = 4  # as many places in the file as a broker has partitions: one alone stays in the cache
_SEND_BUFFER_BYTES = (
    100 << 10
)  # Kafka's; left to grow, the same bytes cost up to three times as much


class _Peer:
    """One connection: a receive buffer, and the answers that did not fit into the socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self.socket = sock
        self.view = memoryview(bytearray(1 << 16))
        self.fill = self.done = 0
        self.owed = bytearray()
        self.slice_at = 0
        self.pieces: list[int] = []  # what is left to sendfile, one entry for each answer

    def take(self) -> list[memoryview] | None:
        """The frames that are whole now, as views until `keep`; None at the end."""
        try:
            count = self.socket.recv_into(self.view[self.fill :])
        except BlockingIOError:
            return []
        except ConnectionError:  # a client that went away with answers unread
            return None
        if count == 0:
            return None
        self.fill += count
        frames, at = [], 0
        while self.fill - at >= 4:
            end = at + 4 + _SIZE.unpack_from(self.view, at)[0]
            if end > self.fill:
                break
            frames.append(self.view[at + 4 : end])
            at = end
        self.done = at
        return frames

    def keep(self) -> None:
        """Keep what is after the frames taken, in a larger buffer if a frame does not fit."""
        left = self.view[self.done : self.fill]
        wanted = 4 + _SIZE.unpack_from(left)[0] if len(left) >= 4 else 0
        if wanted > len(self.view):
            self.view = memoryview(bytearray(wanted + (wanted >> 3)))
        if self.done or wanted > len(left):
            self.view[: len(left)] = left
        self.fill, self.done = len(left), 0


def _serve_produce(peer: _Peer, frames: list[memoryview], out: int, at: int, answer: bytes) -> int:
    for frame in frames:
        if out != _NO_FILE:
            crc32c.crc32c(frame)
            at = at if at < _WRAP_BYTES else 0
            at += os.pwrite(out, frame, at)
        peer.owed += _SIZE.pack(len(answer) + 4) + frame[4:8] + answer
    return at


def _push(peer: _Peer, out: int, slice_bytes: int, answer: bytes) -> bool:
    """Send what is owed; True if something is left."""
    with contextlib.suppress(BlockingIOError, ConnectionError):  # of the latter `take` learns too
        while peer.owed or peer.pieces:
            if peer.owed:
                del peer.owed[: peer.socket.send(peer.owed)]
                continue
            left = peer.pieces[0]
            at = peer.slice_at + slice_bytes - left
            sent = os.sendfile(peer.socket.fileno(), out, at, left)
            peer.pieces[0] -= sent
            if not peer.pieces[0]:
                peer.pieces.pop(0)
                if peer.pieces:
                    peer.owed += _fetch_head(slice_bytes, answer)
        return False
    return True


def _fetch_head(slice_bytes: int, answer: bytes) -> bytes:
    return _SIZE.pack(4 + len(answer) + slice_bytes) + bytes(4) + answer


def main(path: str, answer_bytes: int, slice_bytes: int) -> None:
    """Serve until killed. `slice_bytes` 0 is the bare produce, else the bare fetch."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
    out = _NO_FILE if path == "-" else os.open(path, flags, 0o644)
    if slice_bytes:
        os.pwrite(out, bytes(slice_bytes * _SLICES), 0)
    answer, at = bytes(answer_bytes), 0
    peers: dict[int, _Peer] = {}
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN)
    while True:
        for fd, _ in poller.poll():
            if fd == listener.fileno():
                peer = _Peer(listener.accept()[0])
                peer.slice_at = len(peers) % _SLICES * slice_bytes
                peers[peer.socket.fileno()] = peer
                poller.register(peer.socket, select.EPOLLIN)
                continue
            peer = peers[fd]
            frames = peer.take()
            if frames is None:
                poller.unregister(fd)
                peers.pop(fd).socket.close()
                continue
            if slice_bytes:
                if frames and not peer.pieces:
                    peer.owed += _fetch_head(slice_bytes, answer)
                peer.pieces += [slice_bytes] * len(frames)
            else:
                at = _serve_produce(peer, frames, out, at, answer)
            peer.keep()
            left = _push(peer, out, slice_bytes, answer)
            poller.modify(fd, select.EPOLLIN | select.EPOLLOUT * left)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
