"""The messages whose codec is timed are those that the budgets name."""

from ottla.bench import codec
from ottla.bench.stats import Spread


def test_every_case_runs():
    for _, _, make in codec.CASES:
        make()()


def test_the_metadata_response_has_as_many_topics_and_partitions():
    response = codec.metadata_response(3, 2)
    assert [len(topic.partitions) for topic in response.topics] == [2, 2, 2]


def test_the_least_run_is_what_a_budget_allows():
    timing = codec.Timing("x", 5.0, Spread(6.0, 4.0, 9.0))
    assert codec.rows([timing])[1] == ["x", "4.00", "6.00", "9.00", "≤ 5.00", "yes"]
    assert timing.as_json()["us"]["median"] == 6.0
