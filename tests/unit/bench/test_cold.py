"""A reader of old records beside those in a hurry: what is said of the rounds."""

from itertools import pairwise
from pathlib import Path

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


@pytest.mark.parametrize("count", [1, 7, 8, 9, 17, 80])
def test_pieces_are_all_of_the_log_one_after_the_other(count):
    files = [Path(f"{number * 640:020}.log") for number in range(count)]
    found = cold.pieces(files, count * 640)
    assert len(found) <= 8
    assert [path for part, _, _ in found for path in part] == files
    assert [begin for _, begin, _ in found] == [int(part[0].stem) for part, _, _ in found]
    assert [until for _, _, until in found][-1] == count * 640
    assert all(one[2] == two[1] for one, two in pairwise(found))
