"""The history of leader epochs."""

from __future__ import annotations

import pytest

from ottla.storage.epochs import LeaderEpochs


@pytest.fixture
def epochs() -> LeaderEpochs:
    return LeaderEpochs([(0, 0), (2, 100), (5, 250)])


def test_an_epoch_ends_where_the_next_begins(epochs):
    assert epochs.end_of(0, 300) == (0, 100)
    assert epochs.end_of(2, 300) == (2, 250)


def test_the_latest_epoch_ends_at_the_log_end(epochs):
    assert epochs.end_of(5, 300) == (5, 300)
    assert epochs.end_of(9, 300) == (5, 300)


def test_an_epoch_that_never_was_here_is_answered_with_the_one_before(epochs):
    assert epochs.end_of(4, 300) == (2, 250)


def test_an_epoch_before_all_is_unknown(epochs):
    assert epochs.end_of(-1, 300) == (-1, -1)
    assert LeaderEpochs([(3, 0)]).end_of(2, 10) == (-1, -1)


def test_an_epoch_without_records_gives_way_to_the_next(epochs):
    epochs.assign(7, 300)
    epochs.assign(8, 300)
    assert epochs.entries() == [(0, 0), (2, 100), (5, 250), (8, 300)]


def test_an_epoch_that_is_not_newer_changes_nothing(epochs):
    assert not epochs.assign(5, 400)
    assert epochs.entries()[-1] == (5, 250)


def test_truncation_forgets_what_began_there_or_later(epochs):
    epochs.truncate(250)
    assert epochs.entries() == [(0, 0), (2, 100)]
    assert epochs.latest == 2


def test_a_raised_start_keeps_the_epoch_in_force(epochs):
    epochs.raise_start(120)
    assert epochs.entries() == [(2, 120), (5, 250)]
    assert epochs.epoch_at(130) == 2
