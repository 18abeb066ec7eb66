"""The pages of a broker, looked at by those who mean no good, and when it stops."""

import json
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

import ottla
from ottla.console import pages
from ottla.handlers import stats
from ottla.replication.partition import Partition
from tests.processes import free_port


def _visit(port: int, request: bytes, *, host: str = "127.0.0.1") -> bytes:
    """All that is answered."""
    with socket.create_connection((host, port), timeout=20) as sock:
        sock.sendall(request)
        answer = b""
        while piece := sock.recv(1 << 16):
            answer += piece
        return answer


def _threads() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name.startswith("ottla-admin")}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    port = free_port()
    with ottla.Broker(config={"admin.listener": f"127.0.0.1:{port}"}) as broker:
        broker.append("t", "one")
        yield port


def test_a_head_is_answered_like_a_get_without_the_body(port: int) -> None:
    head, _, body = _visit(port, b"HEAD /stats HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")
    assert b" 200 " in head
    assert b"Content-Length" in head
    assert body == b""


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /stats HTTP/1.0\r\nContent-Length: 0\r\n\r\n", b" 501 "),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.0\r\n\r\n", b" 414 "),
        (b"GET / HTTP/1.0\r\n" + b"a: b\r\n" * 200 + b"\r\n", b" 431 "),
        (b"GET /stats?x=1 HTTP/1.0\r\n\r\n", b" 200 "),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
    ],
    ids=["post", "long path", "many headers", "with a query", "tls"],
)
def test_what_is_no_plain_request_is_answered_and_over(
    port: int, request_: bytes, status: bytes
) -> None:
    assert status in _visit(port, request_)[:400]


def test_a_crowd_that_asks_nothing_keeps_nobody_out(port: int) -> None:
    crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(300)]
    try:
        for sock in crowd[::2]:
            sock.sendall(b"GET /stats HTTP/1.1\r\nHost: half a requ")
        answers = [_visit(port, b"GET /health HTTP/1.0\r\n\r\n") for _ in range(5)]
        assert [answer[-3:] for answer in answers] == [b"ok\n"] * 5, answers
        assert len(_threads()) <= 1 + 2 * pages._VISITORS_MAX
    finally:
        for sock in crowd:
            sock.close()


def test_many_who_ask_at_once_are_answered_or_told_to_come_again(port: int) -> None:
    answers: list[bytes] = []

    def ask() -> None:
        answers.append(_visit(port, b"GET /stats HTTP/1.0\r\n\r\n"))

    threads = [threading.Thread(target=ask) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = {answer.split()[1] for answer in answers if answer}
    assert b"200" in statuses
    assert statuses <= {b"200", b"503"}
    for answer in answers:
        if b" 200 " in answer[:20]:
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["batching"]["records"] == 1


def test_the_loop_is_asked_for_a_few_partitions_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    whole = stats.partitions

    def partitions(found: Sequence[Partition]) -> list[dict[str, Any]]:
        asked.append(len(found))
        return whole(found)

    monkeypatch.setattr(stats, "partitions", partitions)
    with ottla.Broker() as broker:
        broker.create_topic("wide", partitions=250)
        report = broker.stats()
    assert len(report["partitions"]) == sum(asked) == 250
    assert max(asked) <= 100


def test_a_broker_that_stops_leaves_no_thread_and_no_connection_of_its_pages() -> None:
    port, others = free_port(), _threads()
    with ottla.Broker(config={"admin.listener": f"127.0.0.1:{port}"}):
        silent = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(3)]
        assert _visit(port, b"GET /health HTTP/1.0\r\n\r\n").endswith(b"ok\n")
        assert len(_threads() - others) >= 1 + len(silent)
        begun = time.monotonic()
    assert time.monotonic() - begun < pages._IDLE_S / 2  # it did not wait for the silent ones
    assert _threads() <= others
    for sock in silent:
        with sock:
            assert sock.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_broker_that_stops_waits_for_the_thread_of_who_was_answered_just_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopping, real, real_end = threading.Event(), pages.Visitors._gone, pages.Visitors.send_away

    def gone(visitors: pages.Visitors, sock: socket.socket, thread: threading.Thread) -> None:
        real(visitors, sock, thread)
        stopping.wait()
        threading.Event().wait(0.2)  # long enough to be seen where nobody waits for it

    def send_away(visitors: pages.Visitors) -> None:
        stopping.set()
        real_end(visitors)

    monkeypatch.setattr(pages.Visitors, "_gone", gone)
    monkeypatch.setattr(pages.Visitors, "send_away", send_away)
    port, others = free_port(), _threads()
    with ottla.Broker(config={"admin.listener": f"127.0.0.1:{port}"}):
        assert _visit(port, b"GET /health HTTP/1.0\r\n\r\n").endswith(b"ok\n")
    assert _threads() <= others


def test_a_broker_that_nobody_looked_at_stops_as_well() -> None:
    port, others = free_port(), _threads()
    with ottla.Broker(config={"admin.listener": f"127.0.0.1:{port}"}):
        assert _threads() <= others  # of which some may end meanwhile
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_the_pages_are_had_over_ipv6() -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as free:
            port = free.getsockname()[1]
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with (
        ottla.Broker(config={"admin.listener": f"[::1]:{port}"}),
        urllib.request.urlopen(f"http://[::1]:{port}/health", timeout=20) as answer,
    ):
        assert answer.read() == b"ok\n"


def test_a_taken_port_is_named_once_and_the_broker_serves_all_the_same(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with ottla.Broker(config={"admin.listener": f"127.0.0.1:{port}"}) as broker:
        broker.append("t", "one")
    [said] = [text for text in caplog.messages if text.startswith("no figures at")]
    assert said == (
        f"no figures at http://127.0.0.1:{port} (Address already in use); "
        "choose another place with admin.listener"
    )
