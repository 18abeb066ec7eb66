"""Starting and stopping the real process: one at a time, a sentence where it can't, a clean end."""

import json
import signal
import socket
import struct
import subprocess
import sys

import pytest

from tests.clients.clients import create_topic
from tests.processes import OTTLA, Broker


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `ottla serve` that is expected to refuse."""
    command = [str(OTTLA), "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence it refused with."""
    lines = done.stderr.strip().splitlines()
    assert done.returncode not in (0, -signal.SIGKILL)
    assert len(lines) == 1, done.stderr
    assert done.stdout == ""
    return lines[0]


@pytest.fixture
def running(tmp_path):
    with Broker(tmp_path / "data") as broker:
        yield broker


def api_versions(broker: Broker) -> int:
    """Ask what is served; the error code of the answer."""
    request = struct.pack(">hhihi", 18, 0, 7, -1, 0)[:10]
    with socket.create_connection((broker.host, broker.port), timeout=30) as sock:
        sock.sendall(struct.pack(">i", len(request)) + request)
        with sock.makefile("rb") as stream:
            size, correlation, error = struct.unpack(">iih", stream.read(10))
    assert correlation == 7
    assert size > 10
    return error


def write_some(broker: Broker, topic: str, count: int = 100) -> None:
    from confluent_kafka import Producer

    create_topic(broker.bootstrap, topic, 3)
    producer = Producer({"bootstrap.servers": broker.bootstrap, "acks": "all"})
    for number in range(count):
        producer.produce(topic, b"%d" % number, partition=number % 3)
    assert producer.flush(30) == 0


def test_the_ready_line_says_where_and_how_long_it_took(running):
    assert running.port > 0
    assert running.ready_ms < 30_000
    assert api_versions(running) == 0


def test_i25_a_second_process_on_the_same_directory_is_refused_with_a_sentence(running):
    done = serve("--data-dir", str(running.directory), "--listen", "127.0.0.1:0")
    assert str(running.directory) in refused(done)
    assert api_versions(running) == 0


def test_a_busy_port_is_refused_with_a_sentence(running, tmp_path):
    done = serve("--data-dir", str(tmp_path / "other"), "--listen", running.bootstrap)
    assert str(running.port) in refused(done)
    assert api_versions(running) == 0


def test_a_lock_left_by_a_killed_process_does_not_hold_up_the_next(running):
    running.kill()
    running.restart()
    assert api_versions(running) == 0


def test_after_kill_9_it_serves_again(running, record_property):
    write_some(running, "small")
    running.kill()
    running.restart()
    assert api_versions(running) == 0
    record_property("ready_ms_after_kill_9", running.ready_ms)


def test_sigterm_marks_the_shutdown_clean_and_the_next_start_takes_the_mark_away(running):
    write_some(running, "small")
    mark = running.directory / ".kafka_cleanshutdown"
    assert not mark.exists()
    assert running.terminate() == 0
    assert json.loads(mark.read_text())["version"] == 0
    running.restart()
    assert not mark.exists()


def test_kill_9_leaves_no_mark_of_a_clean_shutdown(running):
    write_some(running, "small")
    running.kill()
    assert not (running.directory / ".kafka_cleanshutdown").exists()


def test_sigterm_answers_what_is_in_flight(running):
    """A producer that is in the middle of things loses nothing by a clean stop."""
    from confluent_kafka import Consumer, Producer, TopicPartition

    create_topic(running.bootstrap, "drained", 1)
    told = {}
    producer = Producer({"bootstrap.servers": running.bootstrap, "acks": "all", "linger.ms": 1})
    for number in range(20_000):
        producer.produce(
            "drained",
            b"%d" % number,
            on_delivery=lambda error, message, number=number: told.update(
                {number: message.offset() if error is None else None}
            ),
        )
        producer.poll(0)
        if number == 10_000:
            assert running.terminate() == 0
            running.restart()
    assert producer.flush(60) == 0
    assert len(told) == 20_000
    assert None not in told.values()

    consumer = Consumer({"bootstrap.servers": running.bootstrap, "group.id": "unused"})
    low, high = consumer.get_watermark_offsets(TopicPartition("drained", 0), timeout=30)
    consumer.close()
    assert (low, high >= 20_000) == (0, True)


def test_the_module_runs_like_the_program():
    command = [sys.executable, "-m", "ottla", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "serve" in done.stdout
