"""Consumer groups (KIP-848) as ottla writes them: Kafka's tool decodes every entry.

A group with a name of each kind, a pattern, a static member, a classic member, and one that left.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests import reference
from tests.clients.clients import create_topic
from tests.clients.test_consumer_groups import QUICK, Member, closing, shared, until
from tests.processes import Broker

pytestmark = pytest.mark.reference

DUMP = "org.apache.kafka.tools.DumpLogSegments"
KEY_AND_VALUE = re.compile(r"key: (\{.*?\}) payload: (\{.*\}|<DELETE>)")
# Group, member, target of the group, target of a member, what a member has, expression.
KINDS = {"3", "5", "6", "7", "8", "16"}


def test_kafkas_tool_decodes_our_consumer_groups(tmp_path: Path) -> None:
    with Broker(tmp_path / "data", "offsets.topic.num.partitions=1", *QUICK) as broker:
        create_topic(broker.bootstrap, "topic-a", 4)
        by_name = Member(broker.bootstrap, "g", ["topic-a"], group_instance_id="i")
        by_pattern = Member(broker.bootstrap, "g", ["^topic-.*"])
        with closing(by_name):
            until(shared(4, by_name, by_pattern), by_name, by_pattern)
            by_pattern.close()
            until(shared(4, by_name), by_name)
    logs = sorted((tmp_path / "data").glob("__consumer_offsets-*/*.log"))
    done = reference.run("tool", DUMP, "--offsets-decoder", "--files", ",".join(map(str, logs)))
    text = done.stdout + done.stderr
    assert "Exception" not in text
    told = [(json.loads(key), value) for key, value in KEY_AND_VALUE.findall(text)]
    assert {key["type"] for key, _ in told} >= KINDS
    assert {key["type"] for key, value in told if value != "<DELETE>"} >= KINDS
    members = [json.loads(value) for key, value in told if key["type"] == "5" and value[0] == "{"]
    # Anything else would make them members of the classic protocol.
    assert {one["data"].get("classicMemberMetadata", "empty") for one in members} == {None}
    current = [json.loads(value) for key, value in told if key["type"] == "8" and value[0] == "{"]
    last = current[-1]["data"]
    assert (last["memberEpoch"], last["state"]) == (-2, 1)  # the static member will be back
    (owned,) = last["assignedPartitions"]
    assert sorted(owned["partitions"]) == [0, 1, 2, 3]
    assert owned["assignmentEpochs"] == [0, 0, 0, 0]
    patterns = [
        json.loads(value)["data"] for key, value in told if key["type"] == "16" and value[0] == "{"
    ]
    assert patterns[0]["topics"] == ["topic-a"]
