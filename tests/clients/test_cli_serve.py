"""`ottla serve` as an operator meets it: its files of options, its addresses, what it logs."""

import json
import os
import re
import signal
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from tests.clients.test_cli import objects, ottla, sentence
from tests.processes import OTTLA, READY, free_port, wait_until

pytestmark = pytest.mark.skipif(
    "OTTLA_TEST_BOOTSTRAP" in os.environ, reason="these start brokers of their own"
)


class Served:
    """`ottla serve` with any options; ended by SIGTERM with exit code 0, or the test fails."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.out, self.err = folder / "out", folder / "err"
        self.command = [str(OTTLA), "serve", "--data-dir", str(folder / "data"), *words]

    def __enter__(self) -> "Served":
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen(self.command, stdout=out, stderr=err)
        wait_until(
            lambda: READY.search(self.out.read_text()) or self.process.poll() is not None, "ready"
        )
        ready = READY.search(self.out.read_text())
        assert ready is not None, self.err.read_text()
        self.host, self.port = ready[1], int(ready[2])
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(120)
        assert code == 0, self.err.read_text()

    def lines(self) -> list[str]:
        return self.err.read_text().splitlines()

    def config(self, name: str) -> str:
        """What the broker makes of a topic option that isn't set."""
        return self.ask("topic", "config", "t", name)[0].partition("  #")[0].strip()

    def ask(self, *words: str, host: str = "127.0.0.1") -> tuple[str, str]:
        return ottla(*words, "--bootstrap", f"{host}:{self.port}")


ANY = ("--listen", "127.0.0.1:0")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.toml", "[num]\npartitions = 2\n[log.retention]\nms = 5000\n"),
        ("c.properties", "# ours\nnum.partitions=2\nlog.retention.ms: 5000\n"),
    ],
)
def test_options_come_from_a_file_and_the_command_line_wins(tmp_path, name, content):
    file = tmp_path / name
    file.write_text(content)
    with Served(tmp_path, *ANY, "--config", str(file), "-o", "num.partitions=3") as served:
        served.ask("topic", "create", "t")
        out, _ = served.ask("topic", "list", "--json")
        assert objects(out) == [{"topic": "t", "partitions": 3}]
        assert served.config("retention.ms") == "retention.ms=5000"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["-o", "num.partition=3"], "did you mean num.partitions?"),
        (["-o", "num.partitions=few"], "num.partitions"),
        (["--config", "/no/such.toml"], "can't read the config file /no/such.toml"),
        (["--listen", "localhost"], "try: --listen localhost:9092"),
        (["--lisen", "localhost:1"], "try: ottla serve --listen HOST:PORT"),
    ],
)
def test_a_mistake_is_one_sentence_and_bad_input(words, complaint, tmp_path):
    _, err = ottla("serve", "--data-dir", str(tmp_path / "d"), *words, code=2)
    assert complaint in sentence(err)
    assert not (tmp_path / "d").exists()


def test_a_mistake_in_a_file_is_told_with_the_files_name(tmp_path):
    file = tmp_path / "c.properties"
    file.write_text("num.partitions=few\n")
    words = ("serve", "--data-dir", str(tmp_path / "d"), "--config", str(file))
    assert sentence(ottla(*words, code=2)[1]).startswith(f"ottla: {file}: ")
    _, err = ottla(*words, "-o", "log.segment.bytes=few", "-o", "num.partitions=2", code=2)
    assert str(file) not in sentence(err)


def test_options_of_kafkas_that_mean_nothing_here_are_named_in_one_line(tmp_path):
    file = tmp_path / "server.properties"
    file.write_text("process.roles=broker,controller\nnum.network.threads=3\nnum.io.threads=8\n")
    with Served(tmp_path, *ANY, "--config", str(file)) as served:
        (line,) = [line for line in served.lines() if "WARNING" in line]
        assert "passed over: num.io.threads, num.network.threads" in line


def nodes(served: Served, host: str) -> list[tuple[str, int]]:
    """Where a client that comes by `host` is sent."""
    name = f"[{host}]" if ":" in host else host
    out, _ = served.ask("cluster", "--json", host=name)
    return [(node["host"], node["port"]) for node in objects(out)[0]["nodes"]]


def test_a_client_that_comes_by_every_address_is_told_the_one_it_used(tmp_path):
    with Served(tmp_path, "--listen", "0.0.0.0:0") as served:
        # All of 127/8 is this machine: two addresses that every machine has.
        for host in ("127.0.0.1", "127.0.0.2"):
            assert nodes(served, host) == [(host, served.port)]
        assert len([line for line in served.lines() if "add --advertise" in line]) == 1


def test_the_same_holds_for_ipv6(tmp_path):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with Served(tmp_path, "--listen", "[::]:0") as served:
        assert nodes(served, "::1") == [("::1", served.port)]


def test_what_is_advertised_wins_over_the_address_used(tmp_path):
    port = free_port()
    listen = ("--listen", f"0.0.0.0:{port}", "--advertise", f"127.0.0.3:{port}")
    with Served(tmp_path, *listen) as served:
        assert nodes(served, "127.0.0.1") == [("127.0.0.3", port)]
        assert not [line for line in served.lines() if "WARNING" in line]


def test_a_life_without_trouble_takes_three_lines(tmp_path):
    with Served(tmp_path, *ANY) as served:
        served.ask("topic", "create", "t")
        ottla("produce", "t", "--bootstrap", f"127.0.0.1:{served.port}", stdin=b"x\n" * 100)
        assert served.ask("consume", "t")[0].count("x") == 100
    opened, stopping, stopped = served.lines()
    assert re.search(r" INFO +ottla \S+, node 0 of cluster \S+, opened .*: 0 partitions$", opened)
    assert " INFO     stopping: " in stopping
    assert stopped.endswith(" INFO     stopped cleanly")
    with Served(tmp_path, *ANY) as served:
        assert served.lines()[0].endswith(": 1 partition, closed cleanly the last time")


def test_a_library_that_is_missing_costs_one_sentence(tmp_path):
    (tmp_path / "confluent_kafka.py").write_text("raise ImportError('not here')\n")
    done = subprocess.run(
        [str(OTTLA), "topic", "list"], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert sentence(done.stderr) == (
        "ottla: this command needs confluent-kafka; try: pip install 'ottla[client]'"
    )


def test_what_a_client_sends_cannot_forge_a_line_of_the_log(tmp_path):
    name = b'x\n{"level": "critical"}\n\x1b[2J'
    with Served(tmp_path, *ANY, "--log-format", "json") as served:
        # A Metadata request whose body ends too early, by a client with a name full of malice.
        body = struct.pack(">hhih", 3, 1, 1, len(name)) + name + struct.pack(">i", 1000)
        for _ in range(50):
            with socket.create_connection((served.host, served.port), timeout=120) as sock:
                sock.sendall(struct.pack(">i", len(body)) + body)
                assert sock.recv(1) == b""
    events = [json.loads(line) for line in served.lines()]
    complaints = [event for event in events if event["level"] not in {"info"}]
    assert 1 <= len(complaints) <= 5  # of one kind, at most one in ten seconds
    assert all(event["message"].isprintable() for event in events)
    assert r"client x\n{" in complaints[0]["message"]
    assert {event["level"] for event in complaints} == {"warning"}
    assert {event["event"] for event in events} >= {"opened", "stopping", "stopped"}
