"""Experiments with and without a technique: in which order, how compared, how told."""

import contextlib
import hashlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from functools import partial

import pytest

from ottla.bench import usage
from ottla.bench.techniques import (
    brokers,
    caches,
    copies,
    drain,
    html,
    order,
    queues,
    run,
    table,
)
from ottla.bench.techniques.model import Experiment, Measure, NotHere, Way
from ottla.records import compress
from ottla.records.reader import read_batches, records_of

RATE = Measure("rate", "MB/s", more_is_better=True)
CPU = Measure("CPU", "s/GB")


def way(name, *figures):
    """A way whose rounds give these, one after the other; the first is the warm-up's."""
    left = iter(figures)
    return Way(name, lambda: next(left))


def experiment(*ways, measures=(RATE,), ladder=False):
    return Experiment("2 Copies", "a < b", "How.", "Said.", measures, ways, ladder=ladder)


def quiet(_sentence):
    pass


def test_ways_take_turns_and_the_first_turn_does_not_count():
    turns = []

    def counting(name):
        return Way(name, lambda: turns.append(name) or {"rate": float(len(turns))})

    tried = experiment(counting("with"), counting("without"))
    tried.measure_all(2, quiet)
    assert turns == ["with", "without"] * 3
    assert tried.ways[0].values(RATE) == [3.0, 5.0]


def test_better_is_more_of_a_rate_and_less_of_a_cost():
    ways = (
        way("with", {}, {"rate": 40.0, "CPU": 1.0}),
        way("without", {}, {"rate": 10.0, "CPU": 3.0}),
    )
    tried = experiment(*ways, measures=(RATE, CPU))
    tried.measure_all(1, quiet)
    assert tried.times_better(ways[0], RATE) is None
    assert tried.times_better(ways[1], RATE).median == 4.0
    assert tried.times_better(ways[1], CPU).median == 3.0


def test_the_ratio_is_that_of_rounds_which_shared_the_noise():
    ways = (
        way("with", {}, {"rate": 10.0}, {"rate": 100.0}, {"rate": 20.0}),
        way("without", {}, {"rate": 5.0}, {"rate": 50.0}, {"rate": 10.0}),
    )
    tried = experiment(*ways)
    tried.measure_all(3, quiet)
    found = tried.times_better(ways[1], RATE)
    assert (found.least, found.median, found.most) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("without", "said"),
    [
        (5.0, "2.00 times better than other"),
        (10.5, "no difference to other shown"),
        (30.0, "3.00 times WORSE than other"),
    ],
)
def test_the_verdict_says_it_when_a_technique_does_not_help(without, said):
    tried = experiment(way("with", {}, {"rate": 10.0}), way("other", {}, {"rate": without}))
    tried.measure_all(1, quiet)
    assert said in tried.verdict()


def test_steps_are_compared_with_the_last_of_them():
    tried = experiment(way("1", {}, {"rate": 1.0}), way("10", {}, {"rate": 8.0}), ladder=True)
    tried.measure_all(1, quiet)
    assert tried.verdict() == "10: 8.00 times better than 1 (rate, MB/s)"


def test_rounds_that_disagree_show_no_difference_however_large_the_median():
    tried = experiment(
        way("with", {}, {"rate": 90.0}, {"rate": 80.0}, {"rate": 10.0}),
        way("other", {}, {"rate": 10.0}, {"rate": 10.0}, {"rate": 20.0}),
    )
    tried.measure_all(3, quiet)
    assert "no difference to other shown" in tried.verdict()


def test_what_one_way_has_none_of_is_not_compared():
    held = Measure("held", "MiB", compared=False)
    ways = (
        way("with", {}, {"rate": 2.0, "held": 0.0}),
        way("other", {}, {"rate": 1.0, "held": 9.0}),
    )
    tried = experiment(*ways, measures=(RATE, held))
    tried.measure_all(1, quiet)
    heading, _, other = table.rows(tried)
    assert heading == ["", "rate, MB/s", "times better", "held, MiB"]
    assert other == ["other", "1.00", "2.00", "9.00"]


def test_what_this_machine_lacks_is_said_and_stops_nothing():
    def missing():
        raise NotHere("no such server")

    tried = experiment(way("with", {}, {"rate": 1.0}), Way("other", missing))
    tried.measure_all(1, quiet)
    assert "other: not measured: no such server" in table.text(tried)
    assert tried.verdict() == "nothing to compare with was measured here"
    assert {"way": "other", "absent": "no such server"} in tried.as_json()["ways"]


def test_the_report_needs_nothing_from_elsewhere_and_escapes_what_it_shows():
    tried = experiment(way("with", {}, {"rate": 4.0}), way("<b>", {}, {"rate": 2.0}))
    tried.measure_all(1, quiet)
    page = html.page([tried], "machine & co", "today")
    assert not re.search(r"(src|href=[^\"]|href=\"[^#]|@import|url\()", page)
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert page.count('href="#e0"') == page.count('id="e0"') == 1
    assert "a &lt; b" in page
    widths = [float(width) for width in re.findall(r'<i style="width:([\d.]+)%"', page)]
    assert widths[0] == pytest.approx(2 * widths[1])


def test_a_name_that_is_no_technique_is_refused_before_anything_runs():
    with pytest.raises(ValueError, match="page-cache"):
        run.chosen(["telepathy"])


def test_files_are_not_laid_into_memory_where_a_disk_is_near(monkeypatch):
    kinds = {"/tmp": "tmpfs", "/var/tmp": "ext4"}
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/tmp")
    monkeypatch.setattr(usage, "file_system", lambda path: kinds.get(path, "tmpfs"))
    monkeypatch.setattr(os, "access", lambda *_: True)
    assert run.folder() == "/var/tmp"
    monkeypatch.setenv("TMPDIR", "/tmp")  # who says so gets it, and is told in the report
    assert run.folder() == "/tmp"


def test_in_memory_nothing_is_said_about_disks(monkeypatch, tmp_path):
    monkeypatch.setattr(usage, "file_system", lambda _path: "tmpfs")
    [tried, _] = order.experiments(str(tmp_path))
    tried.measure_all(1, quiet)
    assert [one.absent != "" for one in tried.ways] == [True, True]
    assert tried.verdict() == "nothing to compare with was measured here"


def test_every_technique_can_be_asked_for_by_the_name_the_help_gives():
    assert list(run.TECHNIQUES) == [
        "sequential",
        "zero-copy",
        "page-cache",
        "batching",
        "partitions",
        "offsets",
    ]


@pytest.mark.parametrize("count", [1, 10, 1000])
def test_batches_hold_as_many_records_as_they_say_and_the_same_each_time(count):
    raw = brokers.log_lines(count, compress.NONE)
    [found] = read_batches(raw)
    assert len(list(records_of(found))) == count
    mean = len(raw) / count
    assert 120 < mean < 230  # "about 150 B", the batch's own header shared


def test_a_queue_on_sqlite_delivers_and_forgets_every_message(tmp_path):
    found = queues.sqlite(str(tmp_path), [b"a", b"b"], 20)
    assert found.keys() == {"broker CPU", "rate"}
    assert found["rate"] > 0


def test_both_orders_write_the_same_records_to_the_same_places_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(order, "_FILE_RECORDS", 64)
    monkeypatch.setattr(order, "_SECONDS_MAX", 60.0)
    record = bytes(range(256)) * 4
    shuffled = [(at * 37) % 64 for at in range(64)]
    order._write(str(tmp_path / "appended"), record, None, False)
    (tmp_path / "scattered").write_bytes(bytes(64 * 1024))
    order._write(str(tmp_path / "scattered"), record, shuffled, False)
    assert (tmp_path / "appended").read_bytes() == (tmp_path / "scattered").read_bytes()


@contextlib.contextmanager
def gathered(into):
    """In the place of a process that throws all away: a thread that keeps a digest of it."""
    ours, theirs = socket.socketpair()
    digest = hashlib.sha256()

    def read():
        while piece := theirs.recv(1 << 16):
            digest.update(piece)

    thread = threading.Thread(target=read)
    thread.start()
    with theirs:
        with ours:
            yield ours
        thread.join()
    into.append(digest.hexdigest())


def test_every_cache_sends_the_same_bytes(tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(caches, "_FILE_BYTES", 4 << 20)
    monkeypatch.setattr(caches, "_SECONDS_MAX", 60.0)
    monkeypatch.setattr(drain, "drained", lambda: gathered(sent))
    again, first = caches.experiments(str(tmp_path))
    for way in [*again.ways, *first.ways]:
        with contextlib.suppress(NotHere):
            assert way.run()["held by the process"] <= 4
    assert len(set(sent)) == 1


def test_both_ways_of_copying_send_the_same_bytes(tmp_path):
    sent, path = [], tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 1024)
    buffer = memoryview(bytearray(64 << 10))
    for send in (copies._sendfile, partial(copies._read_and_send, buffer)):
        with gathered(sent) as sock, path.open("rb", buffering=0) as file:
            for at in range(0, 256 << 10, 64 << 10):
                send(sock, file.fileno(), at, 64 << 10)
    assert sent == [hashlib.sha256(path.read_bytes()).hexdigest()] * 2


def test_a_broker_that_copies_differs_in_that_alone():
    code = "from ottla.server import transfer; print(transfer.PORTABLE, transfer.COPYING)"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OTTLA_PORTABLE": "sending"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == [str(sys.platform != "linux"), "True"]
