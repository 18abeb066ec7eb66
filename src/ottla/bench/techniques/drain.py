"""Somebody who reads a socket to its end and keeps nothing: the consumer of an experiment.

A process of its own, so that its CPU is not the sender's: `python -m ottla.bench.techniques.drain`
connects to the PORT it is given.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator

_PIECE_BYTES = 64 << 10
_SEND_BUFFER_BYTES = 100 << 10


@contextlib.contextmanager
def drained() -> Iterator[socket.socket]:
    """A connection over loopback whose other end takes all that is sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "ottla.bench.techniques.drain"]
        with subprocess.Popen([*command, str(listener.getsockname()[1])]) as process:
            try:
                listener.settimeout(30)
                sock, _ = listener.accept()
                with sock:
                    sock.settimeout(None)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
                    yield sock
            finally:
                process.kill()


def main(port: int) -> None:
    buffer = bytearray(_PIECE_BYTES)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        while sock.recv_into(buffer):
            pass


if __name__ == "__main__":
    main(int(sys.argv[1]))
