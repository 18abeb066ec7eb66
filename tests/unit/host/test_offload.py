"""Work in a process of its own: results, failures, limits, and no process left behind."""

import math
import os
import pickle
import select
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import pytest

from ottla.core.ports import OffloadError
from ottla.host.offload import WorkerOffload


class Loop:
    def __init__(self) -> None:
        self.calls: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def wake(self, call: Callable[[], None]) -> None:
        self.calls.put(call)

    def until(self, pending):
        while not pending.done:
            self.calls.get(timeout=60)()
        return pending.result()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def offload(loop):
    offload = WorkerOffload(loop.wake)
    yield offload
    offload.close()


def workers() -> set[int]:
    """Children of this process, by whichever thread, the dead but unreaped among them."""
    found: set[int] = set()
    for children in Path("/proc/self/task").glob("*/children"):
        # A thread that was joined may be on its last instructions in the kernel.
        with suppress(FileNotFoundError, ProcessLookupError):
            found.update(int(pid) for pid in children.read_text().split())
    return found


def test_a_result_comes_from_another_process_and_the_worker_stays(loop, offload):
    first = loop.until(offload.run(os.getpid))
    assert first != os.getpid()
    assert loop.until(offload.run(os.getpid)) == first


def test_large_arguments_and_results_pass(loop, offload):
    data = os.urandom(1 << 20) * 4
    packed = loop.until(offload.run(zlib.compress, data, 0))
    assert zlib.decompress(packed) == data


def test_results_come_in_the_order_of_the_calls(loop, offload):
    pendings = [offload.run(math.factorial, n) for n in range(20)]
    loop.until(pendings[-1])
    assert [pending.result() for pending in pendings] == [math.factorial(n) for n in range(20)]


def test_what_the_work_raises_is_raised_with_its_traceback_and_the_next_task_runs(loop, offload):
    with pytest.raises(ValueError, match="negative") as caught:
        loop.until(offload.run(math.factorial, -1))
    assert "worker.py" in caught.value.__notes__[0]
    assert loop.until(offload.run(math.factorial, 3)) == 6


def test_a_worker_that_dies_fails_its_task_and_the_next_gets_a_new_one(loop, offload):
    with pytest.raises(OffloadError, match="ended"):
        loop.until(offload.run(os.abort))
    assert loop.until(offload.run(math.factorial, 3)) == 6


def test_a_task_over_its_budget_is_stopped_with_its_worker(loop, monkeypatch):
    monkeypatch.setattr("ottla.host.offload._START_S", 20.0)
    offload = WorkerOffload(loop.wake, budget_s=0.2)
    pid = loop.until(offload.run(os.getpid))
    assert pid in workers()
    with pytest.raises(OffloadError, match=r"longer than 0\.2 s"):
        loop.until(offload.run(pow, 7, 10**9))
    assert pid not in workers()
    assert loop.until(offload.run(math.factorial, 3)) == 6
    offload.close()


def test_more_tasks_than_may_wait_are_refused_at_once(loop):
    offload = WorkerOffload(loop.wake, tasks_max=2)
    accepted = [offload.run(math.factorial, 3) for _ in range(2)]
    with pytest.raises(OffloadError, match="waiting"):
        offload.run(math.factorial, 3).result()
    for pending in accepted:
        assert loop.until(pending) == 6
    assert loop.until(offload.run(math.factorial, 3)) == 6
    offload.close()


def test_what_cannot_travel_fails_its_task_alone(loop, offload):
    with pytest.raises(OffloadError, match="cannot be sent"):
        loop.until(offload.run(len, threading.Lock()))
    assert loop.until(offload.run(len, "abc")) == 3


def test_only_functions_of_modules_can_be_run(offload):
    with pytest.raises(AssertionError, match="module's function"):
        offload.run(lambda: 1)


def test_a_program_that_never_needs_a_worker_has_none(loop):
    before = workers(), threading.active_count()
    WorkerOffload(loop.wake).close()
    assert (workers(), threading.active_count()) == before


def test_closing_stops_a_running_task_and_fails_what_waits(loop):
    before = workers()
    offload = WorkerOffload(loop.wake)
    running = offload.run(pow, 7, 10**9)
    waiting = offload.run(math.factorial, 3)
    offload.close()
    for pending in (running, waiting):
        with pytest.raises(OffloadError):
            pending.result()
    assert workers() == before
    with pytest.raises(OffloadError, match="stopping"):
        offload.run(math.factorial, 3).result()


def parent_that_dies(task: str) -> str:
    """A process that starts a worker, gives it a task, says its pid and is killed."""
    return f"""
import math, os, queue, signal
from ottla.host.offload import WorkerOffload
calls = queue.SimpleQueue()
offload = WorkerOffload(calls.put)
pending = offload.run(os.getpid)
calls.get()()
offload.run({task})
print(pending.result(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def ends(pid: int) -> bool:
    """Whether a process ends, or has ended: no child of ours, so it can only be watched."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    ended = bool(poll.poll(60_000))
    os.close(descriptor)
    return ended


@pytest.mark.parametrize("task", ["math.factorial, 3", "pow, 7, 10**9"], ids=["idle", "busy"])
def test_a_worker_does_not_outlive_its_parent(task):
    done = subprocess.run(
        [sys.executable, "-c", parent_that_dies(task)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert ends(int(done.stdout))


def test_a_module_beside_the_caller_does_not_pass_for_ours(tmp_path):
    (tmp_path / "pickle.py").write_text("raise SystemExit('wrong pickle')")
    worker = [sys.executable, "-P", "-m", "ottla.host.worker"]
    done = subprocess.run(
        worker, stdin=subprocess.DEVNULL, capture_output=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0


def test_a_result_that_cannot_travel_is_a_failure_of_the_task(loop, offload):
    with pytest.raises((TypeError, pickle.PickleError)):
        loop.until(offload.run(threading.Lock))
    assert loop.until(offload.run(len, "abc")) == 3
