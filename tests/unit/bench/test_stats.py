"""Numbers of a benchmark: medians, what is printed, and how columns line up."""

import pytest

from ottla.bench import stats


def test_a_spread_has_the_middle_and_both_ends():
    found = stats.spread([3.0, 1.0, 2.0])
    assert (found.median, found.least, found.most) == (2.0, 1.0, 3.0)
    assert found.noise == 1.0


def test_there_is_no_spread_of_nothing():
    assert stats.spread([]) is None


def test_a_spread_of_zeros_has_no_noise():
    assert stats.spread([0.0, 0.0]).noise == 0.0


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
def test_a_quantile_is_one_of_the_values(share, expected):
    assert stats.quantile(list(range(1, 101)), share) == expected


def test_there_is_no_quantile_of_nothing():
    with pytest.raises(ValueError, match="no values"):
        stats.quantile([], 0.5)


def test_ratios_are_taken_round_by_round_and_never_by_zero():
    assert stats.ratios([2.0, 9.0, 4.0], [1.0, 0.0, 8.0]) == [2.0, 0.5]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (0.01234, "0.0123"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (123.4, "123"),
        (1234.5, "1,234"),
        (-1.5, "-1.50"),
        (0.0000001, "0.0000"),
    ],
)
def test_a_number_has_about_three_digits_that_count(value, text):
    assert stats.number(value) == text


def test_columns_of_numbers_stand_to_the_right():
    assert stats.table([["who", "µs"], ["a", "1"], ["longer", "100"]]) == [
        "who      µs",
        "a         1",
        "longer  100",
    ]


def test_a_page_gets_a_ruler_below_the_heading():
    assert stats.markdown([["who", "µs"], ["a", "1"]]) == [
        "| who | µs |",
        "| -- | --: |",
        "| a | 1 |",
    ]
