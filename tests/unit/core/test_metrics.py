"""Counters and histograms of the running node."""

from ottla.core.metrics import BUCKETS, Durations, NodeMetrics


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
