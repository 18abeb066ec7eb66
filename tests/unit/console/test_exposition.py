"""The report in the format that Prometheus reads."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import parser

from ottla.console import exposition

TIME = {
    "timed": 2,
    "sum_s": 0.25,
    "mean_s": 0.125,
    "p50_s": 0.1,
    "p95_s": 0.2,
    "p99_s": 0.2,
    "p999_s": 0.2,
    "max_s": 0.2,
}
PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


def partition(**more):
    return {
        "topic": "t",
        "partition": 0,
        "log_start_offset": 2,
        "log_end_offset": 12,
        "size_bytes": 1000,
        "segments": ["a", "b"],
        "batches_by_codec": {"lz4": 3},
        "bytes_in": 900,
        "bytes_out": 1800,
        "records_in": 10,
        "fetches": 4,
        "fetches_cold": 1,
        "cached_bytes": 1000,
        "load_share": 1.0,
        **more,
    }


@pytest.fixture
def report():
    return {
        "broker": {
            "partitions": 2,
            "topics": 1,
            "log_directory_online": True,
            "connections": 3,
        },
        "process": {
            "cpu_s": 1.5,
            "resident_bytes": None,
            "open_descriptors": 20,
            "descriptors_max": 1024,
            "started_at_s": 1e9,
        },
        "disk": {"bytes": 1000, "free_bytes": 10},
        "zero_copy": {"sendfile_bytes": 10, "copied_bytes": 20},
        "sequential_io": {"writes": 3, "appended_bytes": 2000},
        "sent_bytes": 4000,
        "page_cache": {"fetches": 9, "fetches_cold": 2},
        "offsets": {"positions": 7, "lag": [{"group": 'g"1\n', "topic": "t", "lag": 5}]},
        "durability": {"file_syncs": 2, "sync_rounds": 1},
        "loop": {"turns": 100, "turn_time": TIME},
        "opened_batches": {"compression.type": 4},
        "batching": {"records": 30, "compression_ratio_sampled": {"lz4": 3.5}},
        "requests": [
            {"api": "Produce", "requests": 64, "time": TIME},
            {"api": "Fetch", "requests": 8, "time": TIME},
        ],
        "partitions": [partition(), partition(partition=1, cached_bytes=None)],
    }


def samples(text):
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def test_partitions_add_up_to_their_topic(report):
    found = samples(exposition.text(report))
    assert found['kafka_server_brokertopicmetrics_bytesin_total{topic="t"}'] == "1800"
    assert found['ottla_batches_total{topic="t",codec="lz4"}'] == "6"
    assert found['kafka_log_log_size{topic="t",partition="1"}'] == "1000"


def test_the_nodes_sums_have_no_topic_and_include_what_is_deleted(report):
    found = samples(exposition.text(report))
    assert found["kafka_server_brokertopicmetrics_bytesin_total"] == "2000"
    assert found["kafka_server_brokertopicmetrics_bytesout_total"] == "4000"
    assert found["kafka_server_brokertopicmetrics_messagesin_total"] == "30"


def test_a_fetch_is_counted_under_both_names_that_kafka_has_for_it(report):
    found = samples(exposition.text(report))
    for name in ("Fetch", "FetchConsumer"):
        assert found[f'kafka_network_requestmetrics_requests_total{{request="{name}"}}'] == "8"


def test_prometheus_own_parser_reads_all_of_it(report):
    report["partitions"][0]["topic"] = 'a"b\\c\nd'
    families = {
        family.name: family
        for family in parser.text_string_to_metric_families(exposition.text(report))
    }
    [labels] = [one.labels for one in families["kafka_consumergroup_lag_sum"].samples]
    assert labels == {"consumergroup": 'g"1\n', "topic": "t"}
    sizes = families["kafka_log_log_size"].samples
    assert {one.labels["topic"] for one in sizes} == {'a"b\\c\nd', "t"}
    assert families["kafka_network_requestmetrics_localtimems"].type == "summary"


@given(st.text(), st.floats(allow_nan=False), st.integers())
def test_any_label_and_number_come_back_from_prometheus_parser(label, real, whole):
    family = exposition.Family("f", "gauge", "Any.")
    text = "".join(exposition._lines(family, [({"l": label}, real), ({}, whole)]))
    [found] = parser.text_string_to_metric_families(text)
    assert [(one.labels, one.value) for one in found.samples] == [
        ({"l": label}, real),
        ({}, whole),
    ]


def test_what_nobody_knows_has_no_sample(report):
    text = exposition.text(report)
    assert "process_resident_memory_bytes" not in text
    assert 'ottla_log_cached_bytes{topic="t",partition="1"}' not in samples(text)


def test_labels_are_escaped(report):
    assert 'kafka_consumergroup_lag_sum{consumergroup="g\\"1\\n",topic="t"} 5' in exposition.text(
        report
    )


def test_times_are_in_the_unit_that_the_name_says(report):
    found = samples(exposition.text(report))
    assert found['kafka_network_requestmetrics_localtimems_sum{request="Produce"}'] == "250.0"
    assert found["ottla_loop_turn_seconds_count"] == "2"


def test_each_family_is_introduced_once_right_before_its_samples(report):
    kinds, current = {}, ""
    for line in exposition.text(report).splitlines():
        if line.startswith("# TYPE"):
            _, _, current, kind = line.split()
            assert current not in kinds
            kinds[current] = kind
        elif not line.startswith("#"):
            name = re.split(r"[{ ]", line)[0]
            if kinds[current] == "summary":
                name = name.removesuffix("_sum").removesuffix("_count")
            assert name == current
    assert set(kinds.values()) == {"counter", "gauge", "summary"}


def test_the_page_about_metrics_names_every_family_and_no_other():
    named = set(re.findall(r"`((?:kafka|ottla|process)_[a-z_]+)`", PAGE.read_text()))
    assert named == {family.name for family in exposition.FAMILIES}
