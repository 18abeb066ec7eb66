"""Who is measured: how peers and variants are named on the command line."""

import pytest

from ottla.bench import contenders


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kafka=127.0.0.1:29092", ("kafka", ("127.0.0.1", 29092), None)),
        ("kafka=localhost:9092:1234", ("kafka", ("localhost", 9092), 1234)),
        ("red panda=[::1]:9092", ("red panda", ("::1", 9092), None)),
    ],
)
def test_a_peer_has_a_name_an_address_and_maybe_a_process(text, expected):
    peer = contenders.parse_peer(text)
    assert (peer.name, peer.address, peer.pid) == expected


@pytest.mark.parametrize(
    "text",
    ["", "kafka", "kafka=", "=h:1", "k=h", "k=h:x", "k=h:0", "k=h:70000", "k=h:1:x", "k=::1:1"],
)
def test_what_is_no_peer_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="try: --peer kafka="):
        contenders.parse_peer(text)


def test_variants_are_found_in_the_order_in_which_they_were_named():
    assert [v.name for v in contenders.find_variants(["synced", "commit"])] == ["synced", "commit"]


def test_an_unknown_variant_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="commit, idempotent, records"):
        contenders.find_variants(["fast"])
