"""A broker of one directory that is started, asked, ended and started again.

Owns its process, in a session of its own: Ctrl-C at a terminal ends the measurement, which then
ends the broker. Must not load it.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import IO

from ottla.bench import pump
from ottla.bench.pump import LoadFailed

_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
_DEADLINE_S = 300.0
_REST_S = 0.002
_LAST_LINES = 6


class Process:
    """`ottla serve`, from the moment it was started."""

    def __init__(self, begun: float, process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
        self.begun = begun
        self._process = process
        self._said = said

    @property
    def pid(self) -> int:
        return self._process.pid

    @cached_property
    def address(self) -> tuple[str, int]:
        """Where it listens, once it says so: no port is named before, which another might take.

        Raises LoadFailed.
        """
        stdout = self._process.stdout
        assert stdout is not None, "it is started with one"
        there, _, _ = select.select([stdout], [], [], _DEADLINE_S)
        found = re.search(rb"ready on (\S+):(\d+)", stdout.readline() if there else b"")
        if found is None:
            raise self._unanswered()
        return found[1].decode(), int(found[2])

    def until(self, happens: Callable[[], bool]) -> None:
        """Ask again and again; a broker that is not there yet is no error. Raises LoadFailed."""
        deadline = time.perf_counter() + _DEADLINE_S
        while time.perf_counter() < deadline:
            with contextlib.suppress(ConnectionError, TimeoutError):
                if happens():
                    return
            if self._process.poll() is not None:
                break
            time.sleep(_REST_S)
        raise self._unanswered()

    def until_answer(self) -> float:
        """Seconds from its start to its first answer. Raises LoadFailed."""
        self.until(lambda: bool(pump.ask(self.address, _API_VERSIONS)))
        return time.perf_counter() - self.begun

    def _unanswered(self) -> LoadFailed:
        return LoadFailed(f"ottla serve did not answer; it said: {self._last_words()}")

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return " / ".join(lines[-_LAST_LINES:]) or "nothing"

    def stop(self) -> float:
        """End it in order; the seconds that takes. Raises LoadFailed if it does not come about."""
        begun = time.perf_counter()
        self._process.terminate()
        try:
            code = self._process.wait(timeout=_DEADLINE_S)
        except subprocess.TimeoutExpired:
            raise LoadFailed(f"ottla serve does not end; it said: {self._last_words()}") from None
        if code:
            raise LoadFailed(f"ottla serve ended with {code}; it said: {self._last_words()}")
        return time.perf_counter() - begun

    def kill(self) -> None:
        """As `kill -9` does; nothing, if it has ended."""
        self._process.kill()
        self._process.wait()
        self._said.close()
        if self._process.stdout is not None:
            self._process.stdout.close()


def start(directory: str, options: Sequence[str], environment: dict[str, str]) -> Process:
    """Start a broker on a port of its choice. Returns at once."""
    command = [sys.executable, "-m", "ottla", "serve", "--data-dir", directory]
    command += ["--listen", "127.0.0.1:0"]
    command += [part for option in options for part in ("-o", option)]
    said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `kill`
    begun = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=said,
        env=environment,
        start_new_session=True,
        cwd=os.path.dirname(directory) or None,
    )
    return Process(begun, process, said)


@contextlib.contextmanager
def started(
    directory: str, options: Sequence[str], environment: dict[str, str]
) -> Iterator[Process]:
    """As `start`; killed at the end, whatever happens, unless it was stopped by then."""
    process = start(directory, options, environment)
    try:
        yield process
    finally:
        process.kill()
