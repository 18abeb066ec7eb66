"""The commands as a person types them, against a broker that runs."""

import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.processes import OTTLA, Broker


def ottla(
    *words: str, broker: Broker | None = None, stdin: bytes = b"", code: int = 0
) -> tuple[str, str]:
    """Run a command that is expected to end with `code`; its stdout and stderr."""
    environment = dict(os.environ, OTTLA_BOOTSTRAP=broker.bootstrap if broker else "127.0.0.1:1")
    done = subprocess.run(
        [str(OTTLA), *words], input=stdin, capture_output=True, env=environment, timeout=300, check=False
    )  # fmt: skip
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == code, out + err
    return out, err


def objects(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


def sentence(err: str) -> str:
    """The one line that a command complained with."""
    assert err.count("\n") == 1, err
    return err.rstrip("\n")


def test_topics_are_made_listed_described_and_deleted(shared_broker):
    assert ottla("topic", "create", "made", "--partitions", "2", broker=shared_broker) == (
        "created made with 2 partitions\n",
        "",
    )
    out, _ = ottla("topic", "list", broker=shared_broker)
    assert "made" in out.split()
    out, _ = ottla("topic", "list", "--json", broker=shared_broker)
    assert {"topic": "made", "partitions": 2} in objects(out)
    out, _ = ottla("topic", "describe", "made", broker=shared_broker)
    assert out.splitlines()[0] == "made: 2 partitions"
    assert out.splitlines()[2].split()[0] == "0"
    out, _ = ottla("topic", "describe", "made", "--json", broker=shared_broker)
    assert [p["end_offset"] for p in objects(out)[0]["partitions"]] == [0, 0]
    _, err = ottla("topic", "create", "made", broker=shared_broker, code=1)
    assert "already exists" in sentence(err)
    assert ottla("topic", "delete", "made", broker=shared_broker) == ("deleted made\n", "")
    _, err = ottla("topic", "describe", "made", broker=shared_broker, code=2)
    assert "there is no topic 'made'" in sentence(err)


def test_a_topic_gets_more_partitions_and_never_fewer(shared_broker):
    ottla("topic", "create", "wider", "--partitions", "2", broker=shared_broker)
    out, _ = ottla("topic", "alter", "wider", "--partitions", "3", broker=shared_broker)
    assert out == "wider has 3 partitions\n"
    out, _ = ottla("topic", "describe", "wider", "--json", broker=shared_broker)
    assert len(objects(out)[0]["partitions"]) == 3
    _, err = ottla("topic", "alter", "wider", "--partitions", "3", broker=shared_broker, code=2)
    assert sentence(err).endswith("none can be taken away; try: --partitions 4")


def test_a_topics_options_are_set_shown_and_taken_back(shared_broker):
    ottla("topic", "create", "tuned", "--config", "retention.ms=1000", broker=shared_broker)
    out, _ = ottla("topic", "config", "tuned", "retention.ms", broker=shared_broker)
    assert out == "retention.ms=1000  # topic\n"
    ottla("topic", "config", "tuned", "retention.ms=2000", "max.message.bytes=5000", broker=shared_broker)  # fmt: skip
    out, _ = ottla("topic", "config", "tuned", "--json", broker=shared_broker)
    own = {one["name"]: one["value"] for one in objects(out) if one["source"] == "topic"}
    assert own == {"retention.ms": "2000", "max.message.bytes": "5000"}
    ottla("topic", "config", "tuned", "--delete", "retention.ms", broker=shared_broker)
    out, _ = ottla("topic", "config", "tuned", "retention.ms", broker=shared_broker)
    assert out == "retention.ms=604800000  # default\n"
    _, err = ottla("topic", "config", "tuned", "retention.ms=soon", broker=shared_broker, code=2)
    assert "retention.ms" in sentence(err)
    _, err = ottla("topic", "config", "tuned", "retention.m", broker=shared_broker, code=2)
    assert sentence(err).endswith("try: retention.ms")
    words = ("topic", "config", "tuned", "--delete", "retention.m")
    _, err = ottla(*words, broker=shared_broker, code=2)
    assert sentence(err).endswith("try: retention.ms")


def test_the_cluster_is_described_with_what_it_serves(shared_broker):
    out, _ = ottla("cluster", "--json", broker=shared_broker)
    (cluster,) = objects(out)
    assert [(n["host"], n["port"]) for n in cluster["nodes"]] == [
        (shared_broker.host, shared_broker.port)
    ]
    assert {"key": 18, "name": "ApiVersions", "min": 0, "max": 4} in cluster["apis"]
    out, _ = ottla("cluster", "--apis", broker=shared_broker)
    assert out.startswith(f"cluster {cluster['cluster']}\n")
    assert re.search(r"18 +ApiVersions +0 to 4", out)


def test_lines_rows_and_json_go_in_by_stdin_and_files(shared_broker, tmp_path):
    _, err = ottla("produce", "in", broker=shared_broker, stdin=b"one\ntwo\n")
    assert err.startswith("2 records in ")
    table = tmp_path / "t.csv"
    table.write_text("k,n\na,1\n,2\n")
    ottla("produce", "in", str(table), "--key", "k", broker=shared_broker)
    lines = tmp_path / "t.jsonl"
    lines.write_text('{"k": "b", "n": 3}\n')
    out, _ = ottla("produce", "in", str(lines), "--key", "k", "--json", broker=shared_broker)
    assert objects(out)[0]["records"] == 1
    out, _ = ottla("consume", "in", "--format", "key-value", broker=shared_broker)
    assert out.splitlines() == [
        "null\tone", "null\ttwo", 'a\t{"k":"a","n":1}', 'null\t{"k":null,"n":2}', 'b\t{"k": "b", "n": 3}',
    ]  # fmt: skip


def test_headers_go_in_and_come_out_and_a_topic_can_be_copied(shared_broker):
    ottla("produce", "headed", "--header", "a=b=c", "--header", "d=", broker=shared_broker, stdin=b"x\n")  # fmt: skip
    ottla("produce", "headed", "--format", "record", "--header", "z=1", broker=shared_broker,
          stdin=b'{"key":"k","value":null,"headers":{"h":"v"},"timestamp":7}\n')  # fmt: skip
    original, _ = ottla("consume", "headed", "--json", broker=shared_broker)
    first, second = objects(original)
    assert first["headers"] == [{"name": "a", "value": "b=c"}, {"name": "d", "value": ""}]
    assert second["headers"] == [{"name": "h", "value": "v"}, {"name": "z", "value": "1"}]
    assert (second["key"], second["value"], second["timestamp"]) == ("k", None, 7)
    ottla("produce", "copied", "--format", "record", broker=shared_broker, stdin=original.encode())
    copy, _ = ottla("consume", "copied", "--json", broker=shared_broker)
    assert copy.replace('"copied"', '"headed"') == original


def test_reading_begins_where_it_is_told_to(shared_broker):
    records = [f'{{"value":"{n}","timestamp":{n * 1000}}}' for n in range(1, 6)]
    # Retention looks half a minute after the broker's start, and these records are old.
    ottla("topic", "create", "five", "--partitions", "1", "--config", "retention.ms=-1", broker=shared_broker)  # fmt: skip
    ottla("produce", "five", "--format", "record", broker=shared_broker, stdin="\n".join(records).encode())  # fmt: skip

    def read(*words: str) -> str:
        return "".join(ottla("consume", "five", *words, broker=shared_broker)[0].split())

    assert read() == "12345"
    assert read("-n", "2") == "12"
    assert read("--from", "3") == "45"
    assert read("--from", "1970-01-01T00:00:02.500+00:00") == "345"
    assert read("--from", "-5m") == ""
    assert read("--from", "end") == ""
    assert read("--from", "2", "-n", "1", "--format", "raw") == "3"
    _, err = ottla("consume", "five", "--from", "6", broker=shared_broker, code=2)
    assert sentence(err).endswith("--from with at most 5")
    _, err = ottla("consume", "five", "--partition", "1", broker=shared_broker, code=2)
    assert "five has no partition 1" in sentence(err)


def test_following_prints_what_comes_and_ends_with_ctrl_c(shared_broker):
    ottla("produce", "live", broker=shared_broker, stdin=b"first\n")
    command = [str(OTTLA), "consume", "live", "-f", "--bootstrap", shared_broker.bootstrap]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == b"first\n"
        ottla("produce", "live", broker=shared_broker, stdin=b"second\n")
        assert following.stdout.readline() == b"second\n"
        following.send_signal(signal.SIGINT)
        assert following.wait(120) == 130
        assert following.stderr is not None
        assert following.stderr.read() == b""


@pytest.mark.parametrize(
    ("words", "stdin", "complaint"),
    [
        (["--format", "json"], b'{}\nno\n', "standard input: line 2 isn't JSON; records sent before that: 1"),
        (["--format", "csv"], b"a,b\n1\n", "standard input: line 2 has 1 cells, the header 2"),
        (["--key", "k"], b"a\n", "lines have no columns to take a key from"),
    ],
)  # fmt: skip
def test_bad_rows_are_named_and_bad_input(shared_broker, words, stdin, complaint):
    _, err = ottla("produce", "bad", *words, broker=shared_broker, stdin=stdin, code=2)
    assert complaint in err.splitlines()[-1]


def test_where_nothing_was_delivered_only_the_reason_is_told(shared_broker):
    config = ("--config", "max.message.bytes=100")
    ottla("topic", "create", "tiny", *config, broker=shared_broker)
    _, err = ottla("produce", "tiny", broker=shared_broker, stdin=b"a" * 5000 + b"\n", code=1)
    assert sentence(err) == "ottla: 1 of 1 records were not delivered: Message size too large"


def test_a_topic_name_that_cannot_be_is_one_sentence(shared_broker):
    _, err = ottla("produce", "a/b", broker=shared_broker, stdin=b"x\n", code=2)
    assert "can't be a topic's name" in sentence(err)
    _, err = ottla("topic", "create", "a/b", broker=shared_broker, code=2)
    assert "try: ottla topic create --help" in sentence(err)


def test_nobody_at_the_address_is_one_sentence():
    _, err = ottla("topic", "list", code=1)
    assert sentence(err).startswith("ottla: no broker at 127.0.0.1:1 (connection refused)")


def test_something_else_at_the_address_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        _, err = ottla("topic", "list", "--bootstrap", address, code=1)
    assert "doesn't answer as a Kafka broker does" in sentence(err)


def test_the_log_can_be_dumped_and_verified_while_it_is_served(shared_broker, request):
    if os.environ.get("OTTLA_TEST_BOOTSTRAP"):
        pytest.skip("the directory of that broker isn't known here")
    ottla("produce", "dumped", "--header", "h=v", broker=shared_broker, stdin=b"x\ny\n")
    directory = shared_broker.directory
    out, _ = ottla("log", "verify", str(directory))
    assert ", 0 problems" in out.splitlines()[-1]
    out, _ = ottla("log", "verify", str(directory), "--json")
    report = next(one for one in objects(out) if one["name"] == "dumped-0")
    assert (report["records"], report["problems"]) == (2, [])
    out, _ = ottla("log", "dump", str(directory / "dumped-0"))
    assert "2 records" in out
    assert "[h=v]" in out
    dumped, _ = ottla("log", "dump", str(directory / "dumped-0"), "--json")
    consumed, _ = ottla("consume", "dumped", "--json", broker=shared_broker)
    assert dumped == consumed
    out, _ = ottla("log", "dump", str(directory / "dumped-0"), "--json", "--no-records")
    (batch,) = objects(out)
    assert (batch["base_offset"], batch["records"], batch["crc_ok"]) == (0, 2, True)


def test_a_log_is_verified_after_kill_9_and_damage_is_found(tmp_path):
    with Broker(tmp_path / "data") as broker:
        for _ in range(2):
            ottla("produce", "kept", broker=broker, stdin=b"".join(b"%d\n" % n for n in range(500)))
        broker.kill()
        out, _ = ottla("log", "verify", str(broker.directory))
        assert "1,000 records, 0 problems" in out
        segment = next((broker.directory / "kept-0").glob("*.log"))
        spoil(segment, 200)
        out, _ = ottla("log", "verify", str(broker.directory), code=1)
        assert re.search(r"[1-9] problem", out.splitlines()[-1])
        with open(segment, "ab") as file:
            file.write(b"\0" * 100)
        _, err = ottla("log", "dump", str(segment), code=1)
        assert "try: ottla log verify" in err.splitlines()[-1]
        broker.restart()
        assert re.search("ERROR +kept-0: Something sound follows bytes that are not", broker.said())
        out, _ = ottla("topic", "list", broker=broker)
        assert out == "kept\n"


def spoil(path: Path, at: int) -> None:
    """Flip a byte."""
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)
