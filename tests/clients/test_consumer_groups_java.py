"""Groups of the new protocol (KIP-848) with the Java client, and with one of either protocol."""

from pathlib import Path

import pytest

from tests import reference
from tests.clients.conftest import start_broker
from tests.clients.test_consumer_groups import QUICK

PROGRAM = Path(__file__).with_name("java") / "ConsumerGroups.java"

EXPECTED = """\
two share
all came
Consumer Stable uniform 2
one has all
no more came than were sent
both protocols share
the classic one has all
Classic
committed 800
a pattern
a pattern and a new topic
InvalidRegularExpression
a static member
UnreleasedInstanceIdException
it is back
"""


@pytest.mark.reference
def test_the_java_client_in_groups_of_the_new_protocol(tmp_path):
    broker = start_broker(tmp_path, *QUICK)
    try:
        done = reference.run("java", PROGRAM, broker.bootstrap, timeout=500)
    finally:
        broker.stop()
    assert done.stdout == EXPECTED
