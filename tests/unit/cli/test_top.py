"""The screen of `ottla top`: rates between two reports, and what each technique did."""

import copy

import pytest

from ottla.cli import top
from ottla.cli.errors import BadInput, CommandError

TIME = {
    "timed": 1,
    "sum_s": 5e-5,
    "mean_s": 5e-5,
    "p50_s": 6.4e-5,
    "p99_s": 2e-3,
    "max_s": 2e-3,
    "buckets": [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0],
}


@pytest.fixture
def before():
    return {
        "broker": {
            "version": "1",
            "node_id": 0,
            "uptime_s": 61.0,
            "flush_policy": "commit",
            "log_directory_online": True,
            "connections": 3,
        },
        "disk": {"free_bytes": 5_000_000_000},
        "sent_bytes": 0,
        "process": {"cpu_s": 1.0, "resident_bytes": 30_000_000},
        "sequential_io": {"appended_bytes": 0, "writes": 0, "writes_per_mb": 10.0},
        "zero_copy": {"sendfile_bytes": 75, "copied_bytes": 25},
        "page_cache": {
            "asked_bytes": 200,
            "cached_bytes": 100,
            "fetches": 4,
            "fetches_warm_share": 1.0,
        },
        "batching": {
            "records": 0,
            "batches": 4,
            "records_per_batch": 2.5,
            "batches_by_codec": {"lz4": 4},
            "compression_ratio_sampled": {"lz4": 3.0},
        },
        "opened_batches": {"statistics": 9, "record.validation": 2},
        "offsets": {"groups": 1, "positions": 3, "lag": [{"group": "g", "topic": "t", "lag": 12}]},
        "durability": {"file_syncs": 0, "records_per_sync": 2.0},
        "loop": {"turn_time": TIME},
        "requests": [
            {"api": "Produce", "requests": 0, "cpu_s": 4e-5, "cpu_timed": 1, "time": TIME}
        ],
        "partitions": [
            {
                "topic": "t",
                "partition": 1,
                "bytes_in": 0,
                "records_in": 0,
                "bytes_out": 0,
                "size_bytes": 200,
                "cached_bytes": 100,
                "load_share": 1.0,
            }
        ],
    }


@pytest.fixture
def now(before):
    later = copy.deepcopy(before)
    later["process"]["cpu_s"] = 1.5
    later["sequential_io"]["appended_bytes"] = 4_000_000
    later["batching"]["records"] = 10_000
    later["requests"][0]["requests"] = 200
    later["partitions"][0]["bytes_in"] = 4_000_000
    return later


def line(lines, start):
    [found] = [one for one in lines if one.strip().startswith(start)]
    return found


def test_rates_are_differences_over_the_time_between(now, before):
    lines = top.screen(now, before, 2.0)
    assert "CPU 25%" in lines[0]
    assert "in 2.0 MB/s, 5,000 records/s" in lines[1]
    assert line(lines, "Produce").split()[1] == "100"


def test_what_a_request_took_is_that_of_the_time_between(now, before):
    later = now["requests"][0]["time"]
    later["buckets"] = [0, 0, 0, 0, 0, 0, 1, 0, 0, 10, 0, 0]
    later["timed"], later["sum_s"] = 11, 5e-5 + 10 * 3e-4
    lines = top.screen(now, before, 2.0)
    words = line(lines, "Produce").split()
    assert words[2:6] == ["300", "µs", "512", "µs"]
    assert "3%" in words  # 100 a second, each 300 µs


def test_where_none_was_timed_just_now_it_is_what_one_took_since_the_start(now, before):
    assert line(top.screen(now, before, 1.0), "Produce").split()[2:6] == ["50", "µs", "64", "µs"]


def test_what_was_never_timed_has_no_time(now, before):
    for report in (now, before):
        report["requests"][0]["time"] |= {"timed": 0, "sum_s": 0.0, "buckets": [0] * 12}
    assert line(top.screen(now, before, 1.0), "Produce").split()[2:4] == ["-", "-"]


def test_before_anything_is_read_no_share_is_made_up(now, before):
    now["zero_copy"] = {"sendfile_bytes": 0, "copied_bytes": 0}
    now["page_cache"]["fetches"] = 0
    lines = top.screen(now, before, 1.0)
    assert "nothing was sent yet" in line(lines, "zero-copy")
    assert "nothing was read yet" in line(lines, "page cache")


def test_every_technique_has_a_line(now, before):
    lines = top.screen(now, before, 1.0)
    assert "75% of 100 B by sendfile" in line(lines, "zero-copy")
    assert "50% of 200 B cached by the kernel; 100.0% of reads hit" in line(lines, "page cache")
    assert "2.5 records in a batch; lz4 100% (3.0 B into 1)" in line(lines, "batching")
    assert "2 opened" in line(lines, "batching")  # those that nobody asked this page for
    assert "t-1 has 100% of the load" in line(lines, "partitions")
    assert "3 positions of 1 groups" in line(lines, "offsets")
    assert line(lines, "g ").split() == ["g", "t", "12"]


def test_the_screen_of_a_busy_broker_fits_into_80_columns(now, before):
    now["broker"] |= {"version": "0.1.10", "uptime_s": 3e6, "connections": 1000}
    now["sequential_io"] |= {"appended_bytes": 123_456_789, "writes": 99_999}
    now["batching"] |= {"records": 1_234_567, "records_per_batch": 2_928.5}
    now["page_cache"] |= {"asked_bytes": 119e9, "cached_bytes": 1.19e9}
    now["offsets"] |= {"groups": 100, "positions": 10_000}
    assert [text for text in top.screen(now, before, 1.0) if len(text) > 80] == []


def test_on_a_small_screen_those_are_left_out_that_are_asked_least(now, before):
    now["requests"] = [
        {**now["requests"][0], "api": f"Api{number}", "requests": number} for number in range(9)
    ]
    lines = top.screen(now, before, 1.0, apis_max=2)
    assert [text.split()[0] for text in lines if "Api" in text] == ["Api8", "Api7"]


@pytest.mark.parametrize(
    ("width", "shown"),
    [(5, "\x1b[1mottl\x1b[0m…"), (9, "\x1b[1mottla\x1b[0m  n…"), (10, "\x1b[1mottla\x1b[0m  now")],
)
def test_a_line_is_cut_where_the_screen_ends_whatever_its_style(width, shown):
    assert top.fitting("\x1b[1mottla\x1b[0m  now", width) == shown


def test_the_name_of_a_group_can_not_move_the_cursor(now, before):
    now["offsets"]["lag"][0]["group"] = "g\x1b[2J"
    assert "g\\x1b[2J" in line(top.screen(now, before, 1.0), "g")


def test_a_broker_that_was_started_again_has_no_negative_rate(now, before):
    assert "in 0 B/s, 0 records/s" in top.screen(before, now, 1.0)[1]


def test_a_kernel_that_tells_nothing_is_not_taken_for_an_empty_cache(now, before):
    now["page_cache"]["cached_bytes"] = now["partitions"][0]["cached_bytes"] = None
    assert "not known here" in line(top.screen(now, before, 1.0), "page cache")


def test_a_place_where_nobody_tells_is_named_with_what_to_do():
    with pytest.raises(CommandError, match=r"ottla serve --admin 127\.0\.0\.1:1"):
        top.fetched("127.0.0.1:1")


def test_an_address_without_a_port_is_refused():
    with pytest.raises(BadInput, match=r"127\.0\.0\.1:9644"):
        top._address("localhost")


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (230e6, "230 MB")]
)
def test_sizes_are_said_in_few_digits(count, said):
    assert top.size(count) == said
