"""Groups of the classic protocol with the Java client: eager, cooperative, static."""

from pathlib import Path

import pytest

from tests import reference
from tests.processes import Broker, RunningBroker

PROGRAM = Path(__file__).with_name("java") / "ClassicGroups.java"

SHARED = """\
{}
all came
two share
Stable {} 2
one has all
no more came than were sent: true
"""

EXPECTED = (
    SHARED.format("RangeAssignor", "range")
    + SHARED.format("CooperativeStickyAssignor", "cooperative-sticky")
    + """\
static members share
it is back
FencedInstanceIdException
all came
committed 40
"""
)


@pytest.mark.reference
def test_the_java_client_in_groups_of_the_classic_protocol(shared_broker: Broker) -> None:
    if isinstance(shared_broker, RunningBroker):
        pytest.skip("it wants a broker without its topic")
    done = reference.run("java", PROGRAM, shared_broker.bootstrap, timeout=500)
    assert done.stdout == EXPECTED
