"""An embedded broker comes and goes: what it leaves behind is nothing, however it ends."""

import asyncio
import errno
import gc
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

import ottla
from ottla import Broker, ErrorCode, KafkaError, StartError
from ottla.core.ports import DiskError
from ottla.embedded.running import Running
from ottla.host.disk import OsDisk
from ottla.node import Node
from tests.embedded.left import everything
from tests.processes import wait_until


def address_of(broker) -> tuple[str, int]:
    host, _, port = broker.bootstrap_servers.rpartition(":")
    return host, int(port)


def work(broker) -> None:
    """Have the broker use all that it starts only when needed: each thread, and the worker."""
    broker.create_topic("t", 2, configs={"compression.type": "gzip"})
    broker.extend("t", ["x" * 1000] * 100)
    assert broker.offset_for_time("t", 0) == 0  # opens a compressed batch, in another process
    broker.create_topic("gone")
    broker.append("gone", "x")
    broker.delete_topic("gone")


@pytest.fixture
def nothing_left(temporary):
    """Fails the test if anything is left at its end that was not there before it."""
    with Broker() as broker:  # what is imported or opened once for ever is there after this
        work(broker)
    gc.collect()  # what tests before this one left in cycles: it would go at any moment
    before = everything()
    yield
    assert everything() == before


# --- leaving nothing behind ----------------------------------------------------------------


def test_twenty_brokers_in_a_row_leave_nothing_behind(nothing_left):
    for _ in range(20):
        with Broker() as broker:
            broker.append("t", "x")
            with socket.create_connection(address_of(broker)):
                pass
            list(broker.read("t"))


def test_ten_brokers_at_once_leave_nothing_behind_and_do_not_disturb_one_another(nothing_left):
    brokers = [Broker().start() for _ in range(10)]
    assert len({broker.bootstrap_servers for broker in brokers}) == 10
    for number, broker in enumerate(brokers):
        broker.append(f"t{number}", str(number))
    work(brokers[3])
    for broker in brokers[::2]:
        broker.close()
    for number, broker in enumerate(brokers):
        if number % 2:
            [record] = broker.read(f"t{number}")
            assert record.value == str(number).encode()
            broker.close()


def test_brokers_started_by_many_threads_at_once_leave_nothing_behind(nothing_left):
    def run():
        with Broker() as broker:
            broker.append("t", "x")

    threads = [threading.Thread(target=run) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_failure_in_the_block_leaves_nothing_behind_and_is_raised(nothing_left):
    def use():
        with Broker() as broker:
            work(broker)
            1 / 0  # noqa: B018

    with pytest.raises(ZeroDivisionError):
        use()


def test_clients_that_are_still_connected_are_cut_off(nothing_left):
    with Broker() as broker:
        idle, half = (socket.create_connection(address_of(broker)) for _ in range(2))
        half.sendall(b"\x00\x00\x01\x00half a request")
    for client in (idle, half):
        client.settimeout(30)
        with suppress(ConnectionResetError):  # where bytes of ours were not read any more
            assert client.recv(1) == b""
        client.close()


def test_a_call_under_way_when_the_broker_is_closed_ends_with_an_error(nothing_left):
    errors = []
    broker = Broker().start()
    broker.append("t", "x")
    begun = threading.Event()

    def wait():
        reading = broker.read("t", count=2, timeout=60)
        next(reading)
        begun.set()
        with pytest.raises(RuntimeError) as raised:
            next(reading)
        errors.append(str(raised.value))

    thread = threading.Thread(target=wait)
    thread.start()
    begun.wait()
    broker.close()
    thread.join()
    assert len(errors) == 1
    assert "stopped during the call" in errors[0] or "not running" in errors[0]


def test_a_given_directory_is_kept_and_opened_again(tmp_path, nothing_left):
    with Broker(tmp_path / "data") as broker:
        broker.append("t", "kept")
        address = broker.bootstrap_servers
    with Broker(tmp_path / "data", port=int(address.rpartition(":")[2])) as broker:
        assert broker.bootstrap_servers == address
        assert [record.value for record in broker.read("t")] == [b"kept"]
    assert (tmp_path / "data" / ".kafka_cleanshutdown").exists()


def test_a_relative_directory_is_where_it_was_when_the_broker_was_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Broker("data") as broker:
        monkeypatch.chdir("/")
        work(broker)
    assert (tmp_path / "data" / "meta.properties").exists()


def test_a_handle_that_is_dropped_stops_its_broker(nothing_left):
    with pytest.warns(ResourceWarning, match="was not closed"):
        Broker().start()  # and nobody holds it
    for thread in threading.enumerate():
        if thread.name == "ottla-broker":
            thread.join()


def test_a_stop_that_could_not_write_is_a_kafka_error_and_leaves_nothing_behind(
    tmp_path, nothing_left, monkeypatch
):
    def full(disk, steps):
        raise DiskError("write", "x", OSError(errno.ENOSPC, "no space left"))

    broker = Broker(tmp_path / "data").start()
    broker.append("t", "x")
    with monkeypatch.context() as patch:
        patch.setattr(OsDisk, "perform_now", full)
        with pytest.raises(KafkaError, match="not cleanly: write x: no space left") as raised:
            broker.close()
    assert raised.value.code == ErrorCode.KAFKA_STORAGE_ERROR
    with Broker(tmp_path / "data") as broker:
        assert len(list(broker.read("t"))) == 1


# --- starts that fail ----------------------------------------------------------------------


def taken_port(folder):
    taken = socket.create_server(("127.0.0.1", 0))
    return {"port": taken.getsockname()[1]}, "the port is in use", taken.close


def held_directory(folder):
    first = Broker(folder / "data").start()
    return {"data_dir": folder / "data"}, "in use by another broker in this process", first.close


def file_for_directory(folder):
    (folder / "file").write_text("")
    return {"data_dir": folder / "file"}, "can't be used", None


def directory_of_another_node(folder):
    with Broker(folder / "other", config={"node.id": 7}):
        pass
    return (
        {"data_dir": folder / "other", "config": {"node.id": 8}},
        "belongs to node 7, not 8",
        None,
    )


def foreign_directory(folder):
    (folder / "foreign" / "node-18").mkdir(parents=True)
    return {"data_dir": folder / "foreign"}, "no meta.properties", None


def spoilt_metadata(folder):
    with Broker(folder / "spoilt"):
        pass
    (folder / "spoilt" / "ottla-metadata.sqlite").write_bytes(b"no database" * 1000)
    return {"data_dir": folder / "spoilt"}, "metadata store", None


@pytest.mark.parametrize(
    "case",
    [
        taken_port,
        held_directory,
        file_for_directory,
        directory_of_another_node,
        foreign_directory,
        spoilt_metadata,
    ],
)
def test_a_start_that_fails_says_why_and_leaves_nothing_behind(case, tmp_path, temporary):
    arguments, sentence, tidy_up = case(tmp_path)
    gc.collect()  # as in nothing_left
    before = everything()
    broker = Broker(**arguments)
    with pytest.raises(StartError, match=sentence):
        broker.start()
    broker.close()
    gc.collect()
    assert everything() == before
    if tidy_up is not None:
        tidy_up()


def test_without_a_place_for_temporary_files_the_start_fails_with_a_sentence(temporary):
    temporary.rmdir()
    with pytest.raises(StartError, match="no temporary directory can be made"), Broker():
        pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_the_start_reaches_the_caller_and_leaves_nothing_behind(nothing_left, monkeypatch):
    real = Node._checkpoint_later

    def broken(node):
        real(node)
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Node, "_checkpoint_later", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        Broker().start()
    gc.collect()


def test_an_interrupt_while_starting_is_raised_and_leaves_nothing_behind(nothing_left, monkeypatch):
    real = Node.start
    interrupted = []

    def start(node):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        interrupted.append(node)
        return real(node)

    monkeypatch.setattr(Node, "start", start)
    with pytest.raises(KeyboardInterrupt):
        Broker().start()
    assert len(interrupted) == 1
    interrupted.clear()


def test_an_interrupt_before_the_thread_got_anywhere_leaves_nothing_behind(
    nothing_left, monkeypatch
):
    real = Running.start

    def start(running):
        real(running)
        raise KeyboardInterrupt

    monkeypatch.setattr(Running, "start", start)
    with pytest.raises(KeyboardInterrupt):
        Broker().start()


# --- the life of a handle ------------------------------------------------------------------


def test_a_handle_outside_its_block_says_so():
    broker = Broker()
    with pytest.raises(RuntimeError, match="before it is started"):
        print(broker.bootstrap_servers)
    with pytest.raises(RuntimeError, match="not running"):
        broker.topics()
    broker.close()
    with broker:
        assert repr(broker) == f"<ottla.Broker on {broker.bootstrap_servers}>"
        with pytest.raises(RuntimeError, match="started once"):
            broker.start()
    broker.close()
    for call in (broker.topics, lambda: broker.append("t", "x"), lambda: broker.read("t")):
        with pytest.raises(RuntimeError, match="not running"):
            call()
    with pytest.raises(RuntimeError, match="started once"), broker:
        pass


def test_an_interrupted_wait_is_given_up_in_the_broker_too(broker):
    broker.append("t", "x")
    partition = broker._running.node.table.get("t", 0)

    def interrupt():
        wait_until(lambda: partition.readers, "the fetch to wait")
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    reading = broker.read("t", count=2, timeout=60)
    next(reading)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        next(reading)
    thread.join()
    assert broker.offsets("t") == (0, 1)  # by when the broker has heard of it
    assert partition.readers == {}


def test_a_broker_can_be_embedded_in_a_coroutine(nothing_left):
    async def use():
        async with Broker() as broker:
            broker.append("t", "x")
            assert len(list(broker.read("t"))) == 1
            reader, writer = await asyncio.open_connection(*address_of(broker))
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        with pytest.raises(ZeroDivisionError):
            async with Broker():
                1 / 0  # noqa: B018
        with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(StartError):
            async with Broker(port=taken.getsockname()[1]):
                pass

    asyncio.run(use())
    gc.collect()


def test_a_coroutine_cancelled_while_it_starts_a_broker_leaves_nothing_behind(
    nothing_left, monkeypatch
):
    real = Node.start
    go_on = threading.Event()

    def start(node):
        go_on.wait()
        return real(node)

    monkeypatch.setattr(Node, "start", start)

    async def use():
        async def enter():
            async with Broker():
                pytest.fail("it was cancelled before")

        task = asyncio.ensure_future(enter())
        await asyncio.sleep(0)
        task.cancel()
        asyncio.get_running_loop().call_soon(go_on.set)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(use())


def test_signals_logging_limits_and_the_callers_loop_are_left_alone():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    handlers = (logging.getLogger().handlers[:], logging.getLogger("ottla").handlers[:])
    with Broker() as broker:
        broker.append("t", "x")
        assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == signals
        assert (logging.getLogger().handlers, logging.getLogger("ottla").handlers) == handlers
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()


def test_the_fixture_of_the_plugin_is_a_running_broker(ottla_broker):
    assert ottla_broker.append("t", "x").offset == 0


# --- fork ----------------------------------------------------------------------------------


def in_child(work) -> int:
    """Fork, do `work` in the child, leave it without its cleaning up; its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_process_is_told_that_the_broker_is_its_parents(broker):
    broker.append("t", "x")

    def work():
        for call in (broker.topics, lambda: list(broker.read("t")), lambda: broker.append("t", "")):
            with pytest.raises(RuntimeError, match="from which this one was forked"):
                call()
        broker.close()
        with broker:
            pass
        with Broker() as own:
            own.append("t", "own")
            assert [record.value for record in own.read("t")] == [b"own"]

    assert in_child(work) == 0
    assert [record.value for record in broker.read("t")] == [b"x"]
    assert broker.append("t", "y").offset == 1


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_process_that_lives_on_keeps_no_client_waiting(tmp_path):
    reading, writing = os.pipe()
    with Broker(tmp_path / "data") as broker:
        address = address_of(broker)
        client = socket.create_connection(address)
        broker.append("t", "x")
        child = os.fork()
        if child == 0:
            os.read(reading, 1)
            os._exit(0)
    client.settimeout(30)
    assert client.recv(1) == b""
    client.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    with Broker(tmp_path / "data", port=address[1]) as broker:
        assert len(list(broker.read("t"))) == 1
    os.write(writing, b".")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(reading)
    os.close(writing)


FORK_AND_END = """
import os, sys
import ottla

broker = ottla.Broker(*sys.argv[1:]).start()
broker.append("t", "before")
child = os.fork()
if child == 0:
    sys.exit()  # with all that an interpreter does at its end
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
broker.create_topic("made-after")
broker.append("t", "after")
assert [record.value for record in broker.read("t")] == [b"before", b"after"]
print("done", flush=True)
"""


def run(code, *arguments, folder):
    return subprocess.run(
        [sys.executable, "-W", "default", "-c", code, *map(str, arguments)],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        env={**os.environ, "TMPDIR": str(folder)},
    )


@pytest.mark.parametrize("given", [False, True], ids=["temporary", "given"])
def test_a_forked_process_that_ends_takes_nothing_from_its_parent(given, tmp_path, temporary):
    done = run(FORK_AND_END, *([tmp_path / "data"] if given else []), folder=temporary)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert os.listdir(temporary) == []  # the parent did not close its broker either
    if given:
        with Broker(tmp_path / "data") as broker:
            assert broker.topics() == {"made-after": 1, "t": 1}
            assert len(list(broker.read("t"))) == 2


@pytest.mark.parametrize("ending", ["pass", "raise SystemExit(3)", "1 / 0"])
def test_a_process_that_ends_without_closing_leaves_no_files(ending, temporary):
    code = f"import ottla\nbroker = ottla.Broker().start()\nbroker.append('t', 'x')\n{ending}"
    done = run(code, folder=temporary)
    assert done.returncode == {"pass": 0, "raise SystemExit(3)": 3, "1 / 0": 1}[ending]
    assert ("Traceback" in done.stderr) == (ending == "1 / 0"), done.stderr
    assert os.listdir(temporary) == []


# --- time ----------------------------------------------------------------------------------


def test_a_broker_is_ready_in_time_and_gone_in_time():
    starts, stops = [], []

    def in_time() -> bool:
        begun = time.perf_counter()
        with Broker():
            ready = time.perf_counter()
        starts.append(ready - begun)
        stops.append(time.perf_counter() - ready)
        return min(starts) < 0.050 and min(stops) < 0.050

    # The least of as many as it takes: a busy machine must not fail a test, a slower start must.
    wait_until(
        in_time,
        "a start and a stop of less than 50 ms;",
        or_say=lambda: f"the shortest took {min(starts):.3f} and {min(stops):.3f} s",
    )


def test_importing_ottla_alone_does_not_import_the_broker():
    code = "import ottla, sys; print('asyncio' in sys.modules, 'ottla.node' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
    assert set(ottla.__all__) <= set(dir(ottla))
    with pytest.raises(AttributeError, match="Brokr"):
        ottla.Brokr  # noqa: B018
