"""Counters and histograms of the running node."""

from ottla.core.metrics import (
    BUCKETS,
    SAMPLE_EVERY,
    Durations,
    GoneTally,
    NodeMetrics,
    PartitionTally,
    TurnTally,
    quantile,
)


def test_a_quantile_is_the_power_of_two_above_what_was_seen():
    durations = Durations()
    for microseconds in [3] * 90 + [900] * 10:
        durations.add(microseconds / 1e6)
    assert durations.quantile(0.5) == 4e-6
    assert durations.quantile(0.99) == 1024e-6
    assert (durations.count, durations.most_s) == (100, 900e-6)
    assert Durations().quantile(0.99) == 0.0


def test_the_last_bucket_takes_whatever_is_longer_and_a_clock_that_steps_back_harms_nothing():
    durations = Durations()
    durations.add(1e9)
    durations.add(-1.0)
    assert durations.buckets[BUCKETS - 1] == durations.buckets[0] == 1


def test_an_api_is_counted_in_one_place_whatever_its_versions():
    metrics = NodeMetrics()
    assert metrics.api(0, "Produce") is metrics.api(0, "Produce")
    metrics.open("record.validation")
    metrics.open("record.validation")
    assert metrics.opened == {"record.validation": 2}


def test_a_quantile_can_be_that_of_what_came_between_two_looks():
    durations = Durations()
    for _ in range(1000):
        durations.add(3e-6)
    before = list(durations.buckets)
    for _ in range(10):
        durations.add(900e-6)
    between = [late - early for early, late in zip(before, durations.buckets, strict=True)]
    assert quantile(between, 0.5) == 1024e-6
    assert durations.quantile(0.5) == 4e-6


def test_what_deleted_partitions_had_counted_adds_up():
    gone = GoneTally()
    for first_offset in (0, 100):
        tally = PartitionTally(first_offset)
        tally.bytes_out, tally.fetches, tally.cold = 400, 3, 1
        gone.add(tally, 20, 500, [2, 0, 0, 0, 2, 0, 0, 0])
    assert (gone.records, gone.batches, gone.bytes_in, gone.bytes_out) == (40, 8, 1000, 800)
    assert (gone.fetches, gone.cold, gone.codecs[0], gone.codecs[4]) == (6, 2, 4, 4)


def test_whoever_times_with_a_turn_is_told_when_it_begins_and_ends():
    turns, told = TurnTally(), []
    turns.timing = told.append
    turns.begin(1.0)
    turns.left = 0
    assert told == [True]
    turns.end(3.0)
    assert (told, turns.took.sum_s, turns.turns) == ([True, False], 2.0, SAMPLE_EVERY)
