"""A reader of old records beside those in a hurry: what is said of the rounds."""

import pytest

from ottla.bench import cold
from ottla.bench.contenders import Contender


@pytest.fixture
def found():
    one = cold.Found(Contender("ottla, ", ("h", 1), 1))
    one.p99_ms["page cache"] += [(2.0, 4.0), (10.0, 20.0)]
    one.p99_ms["disk"] += [(2.2, 4.4), (9.0, 30.0)]
    for kind, share in zip(cold.KINDS, (1.0, 0.0), strict=True):
        one.cached[kind] += [share, share]
        one.read_mb_s[kind] += [200.0, 200.0]
    return one


def test_the_disk_is_compared_with_the_cache_of_its_own_round(found):
    assert found.ratios(0).median == pytest.approx(1.0)
    assert found.ratios(1).median == pytest.approx(1.3)


def test_a_row_says_whether_both_are_within_what_is_allowed(found):
    _, cached, disk = cold.rows([found])
    assert (cached[-2:], disk[-2:]) == (["100%", "-"], ["0%", "no"])
    found.p99_ms["disk"][1] = (9.0, 20.0)
    assert cold.rows([found])[2][-1] == "yes"


def test_a_broker_without_figures_says_why(found):
    found.failed = "its process is not known"
    assert cold.rows([found])[1][0] == "ottla: not measured: its process is not known"
