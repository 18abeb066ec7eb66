"""Apache Kafka and ottla are asked the same; their answers are the same, field by field.

Cases live in `answers/`, what may differ in `answers/allowed.py`. Every key and version that the
registry serves needs a case that succeeds, and every row of the table of hostile input that is
named here a case of each API it concerns: who serves a new key adds its cases. Skipped with a
reason where Apache Kafka is not set up; the two tests of completeness run everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from ottla.handlers.registry import APIS
from tests.oracle.answers import (
    admin_cases,
    consumer_cases,
    data_cases,
    frame_cases,
    group_cases,
    marker_cases,
    offset_cases,
    topic_cases,
    txn_cases,
    txn_offset_cases,
)
from tests.oracle.answers.allowed import ALLOWED
from tests.oracle.answers.case import CASES, Case
from tests.oracle.answers.peer import TIMED_OUT, differences, ordered
from tests.oracle.pair import Peers, both

MODULES = (
    admin_cases,
    consumer_cases,
    data_cases,
    frame_cases,
    group_cases,
    marker_cases,
    offset_cases,
    topic_cases,
    txn_cases,
    txn_offset_cases,
)

# Rows of the table of hostile input, by the APIs whose answers they are about.
ROWS: dict[int, set[int]] = {
    0: {*range(29, 40), *range(44, 50), *range(56, 63), 64, 65, 73},
    1: {66, 67, 68, 69, 72, 73},
    2: {72},
    3: {11, 16, 73, 74},
    8: {98, 102, 109},
    9: {98, 102},
    11: {98, 99, 100, 102, 104, 105},
    12: {98, 102, 103},
    13: {98, 102},
    14: {98, 102, 103, 106, 107},
    15: {98},
    18: {10, 12, 13, 14, 15, 16},
    19: {74, 75, 76, 78},
    20: {73, 74, 75},
    21: {79},
    22: {112, 113},
    23: {72},
    24: {60, 113},
    25: {113},
    26: {113, 114, 115, 116},
    27: {115, 117},
    28: {60, 98, 102, 109, 113},
    33: {78},
    37: {75, 76},
    42: {98, 111},
    44: {78},
    47: {98},
    66: {110},
    68: {98, 105, 110},
    69: {98},
}


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    with both(tmp_path_factory.mktemp("answers")) as peers:
        for peer in peers:
            peer.fill_store()
        yield peers


_used: Counter[str] = Counter()
_compared: Counter[str] = Counter()


@pytest.mark.reference
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_answers_are_the_same(case: Case, peers: Peers, tally: Counter[str]) -> None:
    answers = []
    taken = max(peer.taken for peer in peers)
    for peer in peers:
        peer.begin(case.id, taken)
        answers.append(ordered(case.run(peer, case.version)))
    assert TIMED_OUT not in repr(answers[1]), "ottla did not answer"
    wrong = []
    for path, kafka, ottla in differences(*answers):
        allowed = [one for one in ALLOWED if one.covers(case.id, path, kafka, ottla)]
        _used.update(one.name for one in allowed)
        if not allowed:
            wrong.append(f"{path or 'the answer'}: Kafka {kafka!r}, ottla {ottla!r}")
    _compared[case.id] += 1
    tally["cases compared with Apache Kafka"] += 1
    assert wrong == [], "\n".join(wrong)


@pytest.mark.reference
def test_every_allowed_difference_is_still_one() -> None:
    if len(_compared) < len(CASES):
        pytest.skip("not all cases were run")
    assert [one.name for one in ALLOWED if not _used[one.name]] == []


def test_every_version_that_is_served_has_a_case_that_succeeds() -> None:
    there = {(case.key, case.version) for case in CASES if case.is_success}
    wanted = {(api.key, n) for api in APIS for n in range(api.lowest, api.highest + 1)}
    assert sorted(wanted - there) == [], "add cases to tests/oracle/answers"


def test_every_row_about_answers_has_a_case() -> None:
    there = {(case.key, row) for case in CASES for row in case.rows}
    served = {api.key for api in APIS}
    wanted = {(key, row) for key, rows in ROWS.items() if key in served for row in rows}
    assert sorted(wanted - there) == [], "add cases to tests/oracle/answers"


def test_cases_are_told_apart_by_their_names() -> None:
    assert [name for name, count in Counter(case.id for case in CASES).items() if count > 1] == []
