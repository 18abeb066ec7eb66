"""Taking out what counts, and nothing else."""

import importlib.util
from pathlib import Path

import pytest

from ottla.bench import counters

SOURCE = """
class Thing:
    def __init__(self):
        self.tally = [0]

    def work(self, items):
        tally = self.tally
        tally[0] += 1
        done = []
        for item in items:
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
    assert dropped == 4


@pytest.mark.parametrize(
    "module",
    [
        "ottla.handlers.dispatch",
        "ottla.handlers.fetch",
        "ottla.replication.partition",
        "ottla.server.poller",
        "ottla.server.transfer",
    ],
)
def test_every_module_that_counts_still_compiles_without(module):
    spec = importlib.util.find_spec(module)
    path = Path(spec.origin)
    code, dropped = counters.stripped(path.read_text(), str(path))
    assert dropped > 0
    assert code.co_filename == str(path)
