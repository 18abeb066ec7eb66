"""The limit of open files: asked, and raised as far as it goes."""

from __future__ import annotations

import resource

import pytest

from ottla.host.descriptors import descriptors_max, open_files_max, raise_descriptors_max


@pytest.fixture
def limits(monkeypatch):
    """The soft and the hard limit that the system would tell, and those that were set."""
    now = [1024, 4096]

    def set_(_what, pair):
        now[:] = pair

    monkeypatch.setattr(resource, "getrlimit", lambda _what: tuple(now))
    monkeypatch.setattr(resource, "setrlimit", set_)
    return now


def test_the_soft_limit_is_what_there_is(limits):
    assert descriptors_max() == 1024
    limits[0] = resource.RLIM_INFINITY
    assert descriptors_max() == -1


def test_the_soft_limit_is_raised_to_the_hard_one(limits):
    raise_descriptors_max()
    assert limits == [4096, 4096]


def test_it_is_raised_no_further_than_is_of_use(limits):
    limits[1] = resource.RLIM_INFINITY
    raise_descriptors_max()
    assert limits == [1 << 20, resource.RLIM_INFINITY]
    limits[0] = resource.RLIM_INFINITY
    raise_descriptors_max()
    assert limits[0] == resource.RLIM_INFINITY


def test_a_system_that_refuses_leaves_it_as_it_is(limits, monkeypatch):
    def refuse(_what, _pair):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    raise_descriptors_max()
    assert limits == [1024, 4096]


def test_logs_may_keep_half_of_what_is_not_reserved_open() -> None:
    assert open_files_max(1024, 128) == 448
    assert open_files_max(4096, 128) == 1984
    assert open_files_max(64, 128) == 24, "where there are few, a quarter is reserved"
    assert open_files_max(-1, 128) > 100_000
