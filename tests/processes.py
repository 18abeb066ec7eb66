"""The broker as a process of its own: start, kill, restart, and what it said.

Owns the waiting for other processes (nothing else in the tests may sleep). Must not know clients.
"""

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

OTTLA = Path(sys.executable).with_name("ottla")
READY = re.compile(r"ready on (\S+):(\d+), data in (.+) \((\d+) ms\)")

# Generous: a busy machine of two cores must not fail a test. What is fast is measured elsewhere.
START_S, STOP_S = 90.0, 90.0


def wait_until(
    condition: Callable[[], bool],
    what: str,
    seconds: float = START_S,
    or_say: Callable[[], str] = str,
) -> None:
    """Poll until `condition` holds; fails the test with `what` and `or_say()` otherwise."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s in vain for {what} {or_say()}".rstrip())
        time.sleep(0.005)


_reserved: list[socket.socket] = []
"""What keeps ports for this process until it ends: names that no other run of tests can have."""


def free_port() -> int:
    """A port that is free now, as is the next, which Apache Kafka takes for its controller.

    Below the range from which connections get theirs: one of them could take it meanwhile. Nor is
    it given to anybody else who asks here, in whatever process, while this one lives.
    """
    for port in shuffled_ports():
        with contextlib.ExitStack() as held:
            try:
                names = [held.enter_context(_reserve(one)) for one in (port, port + 1)]
                for one in (port, port + 1):
                    held.enter_context(socket.create_server(("127.0.0.1", one)))
            except OSError:
                continue
            _reserved.extend(socket.socket(fileno=name.detach()) for name in names)
            return port
    pytest.fail("there is no free port from 20,000 to 32,000")


def shuffled_ports() -> list[int]:
    """Where to look, in an order of its own."""
    ports = list(range(20_000, 32_000))
    random.SystemRandom().shuffle(ports)  # other runs on this machine look for ports, too
    return ports


def _reserve(port: int) -> socket.socket:
    """A name in the kernel's memory, gone with the process. Raises OSError where it is taken."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if sys.platform == "linux":
        try:
            sock.bind(f"\0ottla-tests-{port}")
        except OSError:
            sock.close()
            raise
    return sock


class Broker:
    """One `ottla serve`. Started on port 0 once, and on the same port ever after."""

    def __init__(
        self,
        directory: Path,
        *options: str,
        wrapper: Sequence[str] = (),
        output: Path | None = None,
    ) -> None:
        """`options` are those of `-o`; `wrapper` runs the broker under another program (strace).

        `output` is the folder for what the process says, beside `directory` by default.
        """
        self.directory = directory
        self.options = options
        self.wrapper = tuple(wrapper)
        self.host, self.port = "127.0.0.1", 0
        self.ready_ms = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._output = output or directory.parent
        self._starts = 0

    @property
    def bootstrap(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> "Broker":
        """Returns once the ready line is there; fails the test if the process ends instead."""
        self.launch()
        wait_until(self._is_ready_or_over, f"the ready line; so far:\n{self.said()}")
        ready = READY.search(self._read("out"))
        if ready is None:
            pytest.fail(
                f"ottla serve ended with {self.process and self.process.poll()}:\n{self.said()}"
            )
        self.host, self.port = ready[1], int(ready[2])
        self.ready_ms = int(ready[4])
        return self

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the process without waiting for it to be ready."""
        assert self.process is None, "it runs already"
        self._starts += 1
        command = [*self.wrapper, str(OTTLA), "serve", "--data-dir", str(self.directory)]
        command += ["--listen", self.bootstrap]
        command += [part for option in self.options for part in ("-o", option)]
        with open(self._path("out"), "wb") as out, open(self._path("err"), "wb") as err:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
        return self.process

    def kill(self) -> None:
        """kill -9, and the process is gone on return. A client sees its connection reset."""
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """SIGTERM, as `systemctl stop` does; the exit code."""
        return self._end(signal.SIGTERM)

    def restart(self) -> "Broker":
        """Start again on the same directory and port."""
        return self.start()

    def stop(self) -> None:
        """What the end of a test does. Fails if the broker logged a traceback."""
        if self.process is not None and self.process.poll() is None:
            self.terminate()
        said = self.said()
        if "Traceback (most recent call last)" in said:
            pytest.fail(f"the broker logged a traceback:\n{said}")

    def __enter__(self) -> "Broker":
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stops it. Where the test has failed already, kills it and says what it said."""
        if kind is None:
            self.stop()
        elif self.process is not None:
            self.kill()
            print(self.said())

    def said(self) -> str:
        """The last it wrote to stdout and stderr, of every start."""
        files = sorted(self._output.glob(f"{self.directory.name}-*.out")) + sorted(
            self._output.glob(f"{self.directory.name}-*.err")
        )
        return "\n".join(f"--- {f.name}\n{f.read_text(errors='replace')[-8000:]}" for f in files)

    def _end(self, how: signal.Signals) -> int:
        assert self.process is not None, "it does not run"
        process, self.process = self.process, None
        with contextlib.suppress(ProcessLookupError):
            # The whole session: under a wrapper the broker is a child.
            os.killpg(process.pid, how)
        try:
            return process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            pytest.fail(f"the broker did not end within {STOP_S:g} s of {how.name}:\n{self.said()}")

    def _is_ready_or_over(self) -> bool:
        assert self.process is not None
        return READY.search(self._read("out")) is not None or self.process.poll() is not None

    def _path(self, kind: str) -> Path:
        return self._output / f"{self.directory.name}-{self._starts:02}.{kind}"

    def _read(self, kind: str) -> str:
        return self._path(kind).read_text(errors="replace")


class RunningBroker(Broker):
    """A broker of any kind that somebody else started: OTTLA_TEST_BOOTSTRAP=host:port."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(Path("."))
        host, _, port = bootstrap.rpartition(":")
        self.host, self.port = host, int(port)

    def start(self) -> Broker:
        return self

    def launch(self) -> subprocess.Popen[bytes]:
        pytest.skip("OTTLA_TEST_BOOTSTRAP names a broker that is not ours to start")

    def _end(self, how: signal.Signals) -> int:
        pytest.skip("OTTLA_TEST_BOOTSTRAP names a broker that is not ours to stop")

    def said(self) -> str:
        return ""
