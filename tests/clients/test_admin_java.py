"""The Java admin client's tour of what one broker can be asked: each answer as Kafka's would be."""

from pathlib import Path

import pytest

from tests import reference
from tests.processes import RunningBroker

PROGRAM = Path(__file__).with_name("java") / "AdminTour.java"

TOLD = """\
create: null
grow: null
grow again: InvalidPartitionsException
partitions: 4
set: null
set wrong: InvalidConfigurationException
set for all: null
topic: 7
type: LONG
inherited: DYNAMIC_DEFAULT_BROKER_CONFIG
documented: true
resources: [BROKER, BROKER_LOGGER, TOPIC]
latest: 0
delete records: null
delete too many: OffsetOutOfRangeException
sizes: 0
elect: ElectionNotNeededException
reassignments: {}
reassign: InvalidReplicaAssignmentException
cancel: NoReassignmentInProgressException
move: LogDirNotFoundException
feature: null
feature unknown: InvalidUpdateVersionException
delete: null
topics: []
"""


@pytest.mark.reference
def test_the_java_admin_client_is_told_what_kafka_would_tell_it(broker):
    if isinstance(broker, RunningBroker):
        pytest.skip("the tour wants a broker without topics")
    assert reference.run("java", PROGRAM, broker.bootstrap).stdout == TOLD
