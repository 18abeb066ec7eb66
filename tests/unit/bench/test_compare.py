"""Brokers side by side: the loads, and what is said of a broker as a ratio to ottla."""

import pytest

from ottla.bench import compare, rounds, shapes
from ottla.bench.contenders import Contender
from ottla.bench.pump import Measured
from ottla.bench.usage import Cpu
from ottla.protocol.codec import decoder
from ottla.protocol.frame import decode_request_header
from ottla.protocol.messages import produce


def line(name, shape, *cpu_us, seconds=1.0, failed=""):
    seen = Measured(1000, 100_000, 200_000, seconds, [0.001] * 1000, 0.1)
    costs = [rounds.cost_of(shape, seen, Cpu(us / 1000, 0.0), 30.0) for us in cpu_us]
    return rounds.Line(shape, Contender(name, ("h", 1), 1), costs, failed)


def test_every_other_broker_stands_beside_how_many_times_ottlas_figure_it_has():
    shape = shapes.COMPARE[0]
    lines = [line("ottla", shape, 10, 10), line("other", shape, 25, 30, seconds=2.0)]
    heading, ours, theirs = compare.rows(lines)
    cpu, rate = heading.index("CPU s/GB"), heading.index("thousand records/s")
    assert "×" not in "".join(ours)
    assert theirs[cpu].endswith("(2.8×)")  # the middle of 2.5 and 3
    assert theirs[rate].endswith("(0.50×)")
    assert compare.as_json(lines)[1]["s_per_gb_times_ottla"]["most"] == pytest.approx(3.0)


def test_a_broker_that_failed_has_no_figures():
    shape = shapes.COMPARE[0]
    lines = [line("ottla", shape, 10), line("other", shape, failed="it went away")]
    assert compare.rows(lines)[2][:2] == ["other", "failed"]
    assert compare.as_json(lines)[1]["failed"] == "it went away"


def test_a_wide_load_writes_to_every_partition_once():
    [shape] = [one for one in shapes.COMPARE if one.partitions_each > 1]
    written = []
    for request in shapes.produces(shape, "wide", 1):
        view = memoryview(bytearray(request))[4:]
        header, at = decode_request_header(view)
        body, _ = decoder(produce.ProduceRequest, header.api_version)(view, at)
        [topic] = body.topic_data
        written += [one.index for one in topic.partition_data]
        assert len(topic.partition_data) == shape.partitions_each == shape.records_each
    assert sorted(written) == list(range(shape.partitions))


def test_a_load_that_is_none_is_refused_with_the_names_of_all():
    with pytest.raises(ValueError, match="acks=all, 16 KiB"):
        compare.chosen("no such load")
