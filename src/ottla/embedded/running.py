"""A node in a thread of the caller's process: from its start to the last thing it leaves behind.

Owns the thread, the loop and the temporary directory, all of them made and unmade in the thread
itself: so that they go even if the caller is interrupted at any moment. Also owns what happens to
running nodes when the process forks or ends. Touches no signal and configures no logging.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import tempfile
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, Final, TypeVar

from ottla.core import options
from ottla.core.config import InvalidConfig
from ottla.core.endpoints import Endpoint
from ottla.core.ports import DiskError
from ottla.embedded.errors import KafkaError
from ottla.embedded.inside import Inside, settled
from ottla.node import Node, StartError
from ottla.protocol.errors import ErrorCode
from ottla.server.poller import new_loop

T = TypeVar("T")

NOT_RUNNING: Final = "the broker is not running: use it within its `with` block"

_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}

_running: set[Running] = set()
_inherited: list[Running] = []
"""In a forked process: its parent's nodes, kept so that nothing of theirs is ever finalized."""


class Running:
    """One node, running or on its way there or from there. Methods are for any thread.

    `ready` gets the address, or why the node could not start; `ended` is done when everything
    is gone but the thread's last instructions, and has the error if the stop was not clean.
    """

    def __init__(self, given: Mapping[str, str], directory: str | None) -> None:
        """`directory` of None: a temporary one, removed at the end."""
        self.pid = os.getpid()
        self.ready: Future[Endpoint] = Future()
        self.ended: Future[None] = Future()
        self.node: Node | None = None
        self.inside: Inside | None = None
        self._given = given
        self._directory = directory
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stopping = False
        self._open = False
        self._guard = threading.Lock()
        # A daemon, as its end must not be awaited before `atexit` has asked for it.
        self._thread = threading.Thread(target=self._run, name="ottla-broker", daemon=True)

    # --- the caller's side -----------------------------------------------------------------

    def start(self) -> None:
        """Start the thread; wait for `ready`."""
        _running.add(self)
        self._thread.start()

    def stop(self) -> None:
        """Ask the node to stop. May be repeated, and come at any time."""
        self._stopping = True
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            with suppress(RuntimeError):  # closed already
                loop.call_soon_threadsafe(stop.set)

    def join(self) -> None:
        """Wait until everything is gone. Raises KafkaError where the stop was not clean."""
        if self._thread.is_alive() or self.ended.done():
            error = self.ended.exception()
            self._thread.join()
            if error is not None and self.ready.exception() is None:
                raise error

    def call(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Run `work` on the node's loop and return its result, or raise what it raised.

        Raises TimeoutError after `timeout_s`, and RuntimeError when the node has stopped or
        belongs to another process; whether `work` was done is then unknown.
        """
        try:
            self.check()
            with self._guard:
                if not self._open or self._loop is None:
                    raise RuntimeError(NOT_RUNNING)
                future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except BaseException:
            work.close()
            raise
        try:
            return future.result(timeout_s)
        except CancelledError:
            raise RuntimeError("the broker was stopped during the call") from None
        except TimeoutError:
            raise TimeoutError(f"the broker did not answer within {timeout_s:g} s") from None
        finally:
            future.cancel()  # does nothing to one that is done

    def stats(self) -> dict[str, Any]:
        """The node's figures. Raises RuntimeError when it has stopped, TimeoutError as `call`."""
        self.check()
        with self._guard:
            admin = self.node.admin if self.node is not None and self._open else None
        if admin is None:
            raise RuntimeError(NOT_RUNNING)
        return admin.report()

    def check(self) -> None:
        """Raises RuntimeError in a process forked from the node's."""
        if self.pid != os.getpid():
            raise RuntimeError(
                f"this broker runs in process {self.pid}, from which this one was forked: connect "
                "a client to its bootstrap_servers, or start another broker here"
            )

    # --- the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._hold_directory()
        except (StartError, InvalidConfig, KafkaError) as expected:
            error = expected
        except BaseException as unexpected:
            error = unexpected
            raise  # for the thread's excepthook: it is a bug of ours
        finally:
            with self._guard:
                self._open = False
            self.node = self.inside = None  # a handle that is kept keeps none of it
            _running.discard(self)
            if not self.ready.done():
                self.ready.set_exception(error or RuntimeError("the broker was stopped"))
            if error is None:
                self.ended.set_result(None)
            else:
                self.ended.set_exception(error)

    def _hold_directory(self) -> None:
        if self._directory is not None:
            self._hold_loop(self._directory, durable=True)
            return
        try:
            directory = tempfile.mkdtemp(prefix="ottla-")
        except OSError as error:
            raise StartError(f"no temporary directory can be made: {error}") from error
        try:
            self._hold_loop(directory, durable=False)  # nobody opens it again
        finally:
            try:
                shutil.rmtree(directory)
            except OSError as error:
                message = f"the temporary directory {directory} could not be removed: {error}"
                raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, message) from error

    def _hold_loop(self, directory: str, *, durable: bool) -> None:
        # Not asyncio.new_event_loop(): the caller's policy is about the caller's loops.
        loop = new_loop()
        try:
            self._hold_node(loop, directory, durable=durable)
        finally:
            self._loop = None
            loop.close()

    def _hold_node(self, loop: asyncio.SelectorEventLoop, directory: str, *, durable: bool) -> None:
        config = options.broker_config({**self._given, options.LOG_DIR.name: directory})
        self.node = node = Node(config, loop, durable=durable)
        if self._stopping:
            return
        endpoint = node.start()[0]
        try:
            assert node.context is not None, "a started node has its context"
            self.inside = Inside(node.context, endpoint)
            host = _WILDCARDS.get(endpoint.host, endpoint.host)
            loop.run_until_complete(self._serve(node, Endpoint(host, endpoint.port)))
            node.close(clean=durable)
        except DiskError as error:
            message = f"the broker stopped, but not cleanly: {error}; its next start reads the logs"
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, message) from error
        finally:
            with suppress(DiskError):
                node.close(clean=False)

    async def _serve(self, node: Node, endpoint: Endpoint) -> None:
        self._stop = stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._stopping:  # asked before there was anything to set
            stop.set()
        with self._guard:
            self._open = True
        self.ready.set_result(endpoint)
        await stop.wait()
        with self._guard:
            self._open = False
        await settled(node.drain())
        await asyncio.sleep(0)  # calls that came just before are tasks from now on
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    # --- the process -----------------------------------------------------------------------

    def forget_in_child(self) -> None:
        """In a forked process: see `Node.forget_in_child`."""
        if self.node is not None:
            self.node.forget_in_child()


def _stop_all() -> None:
    """At the end of the process: brokers that nobody stopped leave nothing behind either."""
    running = list(_running)
    for one in running:
        one.stop()
    for one in running:
        with suppress(KafkaError):
            one.join()


def _after_fork() -> None:
    """The threads are gone, and everything else is the parent's: let go of it, untouched."""
    _inherited.extend(_running)
    for one in _running:
        one.forget_in_child()
    _running.clear()


atexit.register(_stop_all)
os.register_at_fork(after_in_child=_after_fork)
