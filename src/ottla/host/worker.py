"""The worker process: does what the broker must not wait for. Run as `python -m ottla.host.worker`.

Owns its end of the socket it has as standard input. One task after the other: a length and a
pickle of (module, function, arguments) in, a length and a pickle of (whether it worked, result
or exception) out. It trusts its input, which only the process that started it can write. It
ends when that one does. A task that raises ends it too, after telling why: tasks return what
they expect to go wrong, so an exception is a bug, and whoever asked starts a new worker.
"""

from __future__ import annotations

import importlib
import os
import pickle
import select
import signal
import struct
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

LENGTH = struct.Struct(">Q")
_SOCKET = 0
_PR_SET_PDEATHSIG = 1


def main() -> None:
    # The terminal's ^C and a service manager's SIGTERM go to the whole group. The broker decides
    # when to stop, and until then may need an answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _end_with_the_parent()
    sys.excepthook = _report
    while (size := _read(LENGTH.size)) is not None:
        body = _read(LENGTH.unpack(size)[0])
        if body is None:
            return
        module, function, arguments = pickle.loads(body)
        del body
        work = getattr(importlib.import_module(module), function)
        _answer(True, work(*arguments))


def _end_with_the_parent() -> None:
    """See to it that this process ends when the other is gone, even in the middle of a task."""
    threading.Thread(target=_watch, daemon=True).start()
    if sys.platform == "linux":
        # The watch can't run while a task keeps the interpreter to itself; the kernel can.
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _watch() -> None:
    poll = select.poll()
    poll.register(_SOCKET, 0)  # a hang-up is always reported
    poll.poll()
    os._exit(0)


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The process's excepthook: the exception is the last answer."""
    text = "".join(traceback.format_exception(kind, error, trace))
    try:
        pickle.loads(pickle.dumps(error))
    except (TypeError, AttributeError, ValueError, pickle.PickleError):
        error = RuntimeError(text)  # some can't travel
    error.__notes__ = [text]
    _answer(False, error)


def _answer(worked: bool, result: Any) -> None:
    body = pickle.dumps((worked, result), protocol=5)
    _write(LENGTH.pack(len(body)))
    _write(body)


def _read(size: int) -> bytearray | None:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = os.readv(_SOCKET, [view])
        if count == 0:
            return None
        view = view[count:]
    return data


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(_SOCKET, view) :]


if __name__ == "__main__":
    main()
