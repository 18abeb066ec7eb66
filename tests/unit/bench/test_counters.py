"""Taking out what counts, and nothing else."""

import dis
import importlib.util
import struct
from pathlib import Path

import pytest

from ottla.bench import counters
from ottla.core.endpoints import Endpoint
from ottla.core.metrics import SAMPLE_EVERY
from ottla.handlers.context import ConnectionState
from ottla.testing.simnode import SimNode

SOURCE = """
class Thing:
    def __init__(self):
        self.tally = [0]

    def work(self, items):
        tally = self.tally
        tally[0] += 1
        done = []
        for item in items:
            if item > 1:
                self.tally[0] += 1
            if item:
                self.tally[0] += 1
            else:
                done.append(item)
        if not tally[0] & 63:
            done.append("timed")
        return keep(done, self.tally)

def keep(done, tally):
    return done
"""


def test_the_rest_does_what_it_did_and_nothing_is_counted():
    code, dropped = counters.stripped(SOURCE, "source")
    names = {}
    exec(code, names)
    thing = names["Thing"]()
    assert thing.work([0, 1, 2]) == [0]
    assert thing.tally == [0]
    assert dropped == 5


COUNTING = [
    "ottla.handlers.dispatch",
    "ottla.handlers.fetch",
    "ottla.protocol.connection",
    "ottla.replication.partition",
    "ottla.server.driver",
    "ottla.server.poller",
    "ottla.server.transfer",
]


def both(module):
    """A module's code as it is and without what counts."""
    path = Path(importlib.util.find_spec(module).origin)
    code, dropped = counters.stripped(path.read_text(), str(path))
    assert dropped > 0
    return compile(path.read_text(), str(path), "exec"), code


def functions(code, prefix=""):
    """Every function in some code, by name."""
    for one in code.co_consts:
        if isinstance(one, type(code)):
            yield f"{prefix}{one.co_name}", one
            yield from functions(one, f"{prefix}{one.co_name}.")


@pytest.mark.parametrize("module", COUNTING)
def test_no_name_is_used_whose_value_went_with_the_counting(module):
    whole, code = both(module)
    local = {name: set(one.co_varnames) for name, one in functions(whole)}
    lost = {
        name: sorted(local[name] & set(one.co_names) - set(one.co_varnames) - _attributes(one))
        for name, one in functions(code)
    }
    assert {name: names for name, names in lost.items() if names} == {}


def _attributes(code):
    """Of the names in a function those that are never looked up as globals."""
    looked_up = {one.argval for one in dis.get_instructions(code) if one.opname == "LOAD_GLOBAL"}
    return set(code.co_names) - looked_up


@pytest.mark.parametrize("module", COUNTING)
def test_nothing_is_left_that_has_to_do_with_a_counter(module):
    whole, code = both(module)
    assert _with_counters(whole)
    assert _with_counters(code) == set()


# What only passes a counter on, and what is asked by who reads them.
NOT_COUNTING = ("__init__", "Sender.send", ".asked", "_in", "_by_codec")


def _with_counters(code):
    """Functions that load or store a counter, and which."""
    return {
        (name, one.argval)
        for name, function in functions(code)
        if not name.endswith(NOT_COUNTING)
        for one in dis.get_instructions(function)
        if one.opname.startswith(("LOAD", "STORE")) and str(one.argval).endswith("tally")
    }


def test_a_dispatcher_without_counting_answers_as_the_other_does():
    node = SimNode()
    answers = []
    for code in both("ottla.handlers.dispatch"):
        names = {"__name__": "stripped"}
        exec(code, names)
        dispatch = names["Dispatch"](node.context, stopwatch=lambda _cpu: (1.0, 1.0))
        state = ConnectionState("peer", "PLAINTEXT", Endpoint("h", 1))
        frame = struct.pack(">hhih", 18, 0, 7, -1)
        for _ in range(2 * SAMPLE_EVERY):
            answer = dispatch.dispatch(state, memoryview(frame))
        answers.append(answer)
        state.tally.asked = lambda: 2 * SAMPLE_EVERY
        node.context.metrics.settle()
    assert answers[0] == answers[1]
    assert node.context.metrics.apis[18].requests == 2 * SAMPLE_EVERY  # the first one's alone


def test_the_ratio_is_that_of_rounds_side_by_side():
    pair = counters.Pair(counters.SHAPES[0], [10.0, 20.2, 10.1], [10.0, 20.0, 10.0])
    [_, row] = counters.rows([pair])
    assert row[3:] == ["1.010", "1.000–1.010", "yes"]
    pair = counters.Pair(counters.SHAPES[0], [10.5] * 3, [10.0] * 3)
    assert counters.rows([pair])[1][-1] == "no"
