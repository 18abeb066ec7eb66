"""Offload: work that would hold up the loop, done in a worker process.

Owns the worker, started when first needed, and the thread that talks to it. The worker is a
fresh interpreter (`sys.executable -m`): fork and multiprocessing's spawn break programs that
embed us. Pickle is safe here, since only the two ends of our own socket speak it. Must not
know what the work is.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from time import monotonic
from typing import Any

from ottla.core.pending import Pending
from ottla.core.ports import OffloadError
from ottla.host.mailbox import Mailbox, WakeLoop
from ottla.host.worker import LENGTH

TASKS_MAX = 256
BUDGET_S = 30.0
_START_S = 30.0
"""Extra time for the first task of a worker: an interpreter starts, on a machine that is busy."""

_CANNOT_TRAVEL = (pickle.PickleError, TypeError, AttributeError, ImportError, ValueError)
"""What pickle raises for values that it can't take, here or there."""


class _Task:
    __slots__ = ("arguments", "pending", "work")

    def __init__(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.work = work
        self.arguments = arguments
        self.pending: Pending[Any] = Pending()


class _Rest:
    """In place of a task: end the worker, there is nothing to do for a while."""


class WorkerOffload:
    """The Offload port on the real machine: one worker, one task at a time.

    More than `tasks_max` that wait are refused, and one that takes longer than `budget_s` is
    stopped with its worker; both fail with OffloadError. What the work raises comes back as it
    was raised (and costs the worker), unless it can't be pickled.
    """

    def __init__(
        self, wake_loop: WakeLoop, *, budget_s: float = BUDGET_S, tasks_max: int = TASKS_MAX
    ) -> None:
        self._mailbox = Mailbox(wake_loop)
        self._budget_s = budget_s
        self._tasks_max = tasks_max
        self._waiting_count = 0
        self._tasks: SimpleQueue[_Task | _Rest | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._stopping = threading.Event()
        self._worker: _Worker | None = None

    def run(self, work: Callable[..., Any], *arguments: Any) -> Pending[Any]:
        assert "." not in work.__qualname__, f"{work.__qualname__} is not a module's function"
        assert work.__module__ != "__main__", "the worker has another __main__"
        task = _Task(work, arguments)
        if self._closed:
            task.pending.fail(OffloadError("the node is stopping"))
        elif self._waiting_count >= self._tasks_max:
            task.pending.fail(OffloadError(f"{self._tasks_max} tasks are waiting already"))
        else:
            self._waiting_count += 1
            self._tasks.put(task)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="ottla-offload", daemon=True
                )
                self._thread.start()
        return task.pending

    def rest(self) -> None:
        """End the worker once it is through with what waits; the next task starts another."""
        if self._thread is not None and not self._closed:
            self._tasks.put(_Rest())

    def close(self) -> None:
        """Stop the worker now; what was not done fails with OffloadError. On the loop's thread."""
        if self._closed:
            return
        self._closed = True
        self._stopping.set()
        if self._thread is not None:
            if (worker := self._worker) is not None:
                worker.kill()
            self._tasks.put(None)
            self._thread.join()
        self._mailbox.drain()

    # On the thread.

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            if isinstance(task, _Rest):
                self._discard()
                continue
            try:
                result = self._do(task)
            except OffloadError as error:
                self._post(task, False, error)
            except _CANNOT_TRAVEL as error:
                self._discard()  # half an answer may be left in the socket
                self._post(task, False, OffloadError(f"cannot be sent to its process: {error}"))
            else:
                self._post(task, *result)
            del task
        self._discard()

    def _do(self, task: _Task) -> tuple[bool, Any]:
        call = (task.work.__module__, task.work.__qualname__, task.arguments)
        body = pickle.dumps(call, protocol=5)
        deadline = monotonic() + self._budget_s
        try:
            if self._worker is None:
                self._worker = _Worker()
                deadline += _START_S
            if self._stopping.is_set():  # after there is a worker, which close() then kills
                raise OffloadError("the node is stopping")
            worked, result = self._worker.ask(body, deadline)
        except TimeoutError:
            self._discard()
            raise OffloadError(f"took longer than {self._budget_s} s") from None
        except (OSError, EOFError) as error:
            self._discard()
            raise OffloadError(f"its process ended: {error}") from error
        if not worked:
            self._discard()  # it ends itself after an exception
        return worked, result

    def _discard(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()

    def _post(self, task: _Task, worked: bool, result: Any) -> None:
        self._mailbox.post(partial(self._deliver, task.pending, worked, result))

    def _deliver(self, pending: Pending[Any], worked: bool, result: Any) -> None:
        self._waiting_count -= 1
        if worked:
            pending.complete(result)
        else:
            pending.fail(result)


class _Worker:
    """A running worker process, and our end of its socket."""

    __slots__ = ("_process", "_socket")

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                # -P: a module of the current directory must not pass for one of ours.
                [sys.executable, "-P", "-m", "ottla.host.worker"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )

    def ask(self, body: bytes, deadline: float) -> tuple[bool, Any]:
        """Raises TimeoutError after the deadline, EOFError or OSError if the worker is gone."""
        self._limit(deadline)
        self._socket.sendall(LENGTH.pack(len(body)))
        self._socket.sendall(body)
        (size,) = LENGTH.unpack(self._read(LENGTH.size, deadline))
        answer: tuple[bool, Any] = pickle.loads(self._read(size, deadline))
        return answer

    def kill(self) -> None:
        """From any thread: whoever waits for an answer gets EOFError."""
        self._process.kill()

    def end(self) -> None:
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def _read(self, size: int, deadline: float) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            self._limit(deadline)
            count = self._socket.recv_into(view)
            if count == 0:
                raise EOFError("no answer came")
            view = view[count:]
        return data

    def _limit(self, deadline: float) -> None:
        # Never zero, which would make the socket non-blocking.
        self._socket.settimeout(max(deadline - monotonic(), 0.001))
