"""Who is measured: how peers and variants are named on the command line."""

import sys

import pytest

from ottla.bench import contenders, pump


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


def script(text):
    """A process like a broker of ours: says that it is ready, and what comes then."""
    process, said, _ = contenders._spawn([sys.executable, "-c", text], "ready")
    return contenders.Running(process, ("127.0.0.1", 1), said)


def test_a_broker_that_ends_before_it_is_ready_is_quoted():
    with pytest.raises(pump.LoadFailed, match=r"ended with exit code 1; it said: .*ZeroDiv"):
        script("1/0")


def test_a_broker_that_ctrl_c_has_ended_too_is_not_told_of():
    running = script("print('ready', flush=True)")

    def interrupted():
        try:
            running.process.wait()
            raise KeyboardInterrupt
        finally:
            contenders.stop(running)

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_a_broker_that_ends_by_itself_is_quoted_where_a_load_failed_and_told_once():
    running = script("print('ready', flush=True); 1/0")
    running.process.wait()
    broker = contenders.Contender("ottla", running.address, running.pid, running=running)
    text = broker.explain(ConnectionRefusedError("refused"))
    assert "ZeroDivisionError" in text
    assert text.endswith("(refused)")
    contenders.stop(running)


def test_a_broker_that_ended_unnoticed_is_told_of_when_it_is_stopped():
    running = script("import os; print('ready', flush=True); os.kill(os.getpid(), 9)")
    running.process.wait()
    with pytest.raises(pump.LoadFailed, match="was ended by signal 9; it said: nothing"):
        contenders.stop(running)


def test_a_load_that_fails_on_a_broker_that_runs_is_told_as_it_is():
    running = script("import time; print('ready', flush=True); time.sleep(60)")
    broker = contenders.Contender("ottla", running.address, running.pid, running=running)
    try:
        assert broker.explain(pump.LoadFailed("the broker answered error 3")).endswith("error 3")
        assert running.last_words() is None
    finally:
        contenders.stop(running, kill=True)
