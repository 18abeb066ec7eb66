"""Topic names (H74): what Apache Kafka 4.3.1 takes and refuses."""

import pytest

from ottla.cluster.names import collision, is_internal, name_fault


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "x" * 249, "...", "-", "__foo"])
def test_a_legal_name_has_no_fault(name):
    assert name_fault(name) is None


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\0b", "a\n", "x" * 250, "é", "a b", "٣", "a\ud800"]
)
def test_an_illegal_name_has_a_fault_that_fits_a_log_line(name):
    fault = name_fault(name)
    assert fault is not None
    assert "\n" not in fault
    assert "\0" not in fault
    assert len(fault) < 200


def test_names_that_metrics_cannot_tell_apart_collide():
    assert collision("a.b", ["x", "a_b"]) == "a_b"
    assert collision("a_b.c", ["a.b_c"]) == "a.b_c"
    assert collision("a.b", ["a.b", "ab", "a-b"]) is None
    assert collision("ab", ["a_b"]) is None


def test_only_the_clusters_own_topics_are_internal():
    assert is_internal("__consumer_offsets")
    assert not is_internal("__foo")
