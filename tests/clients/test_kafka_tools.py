"""Apache Kafka's own tools do their whole job: every main option of each, in one Java process."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ottla.handlers.registry import APIS
from tests import reference
from tests.clients.clients import CODECS
from tests.clients.transactors import Confluent
from tests.leash import leashed
from tests.processes import Broker, RunningBroker, wait_until

pytestmark = pytest.mark.reference

PROGRAM = Path(__file__).with_name("java") / "Tools.java"

CLASSES = {
    "topics": "org.apache.kafka.tools.TopicCommand",
    "configs": "kafka.admin.ConfigCommand",
    "offsets": "org.apache.kafka.tools.GetOffsetShell",
    "log-dirs": "org.apache.kafka.tools.LogDirsCommand",
    "delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
    "produce": "org.apache.kafka.tools.ConsoleProducer",
    "consume": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
    "producer-perf": "org.apache.kafka.tools.ProducerPerformance",
    "elect": "org.apache.kafka.tools.LeaderElectionCommand",
    "reassign": "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
    "transactions": "org.apache.kafka.tools.TransactionsCommand",
    "groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "features": "org.apache.kafka.tools.FeatureCommand",
}


class Tools:
    """The Java process, and the broker that its tools are pointed at."""

    def __init__(self, process: subprocess.Popen[str], bootstrap: str, folder: Path) -> None:
        self._process, self.bootstrap, self._folder = process, bootstrap, folder

    def run(self, tool: str, *arguments: str, stdin: str = "") -> tuple[int, str]:
        """The exit code of a tool and what it printed, on stdout and stderr."""
        words = [CLASSES[tool], stdin.replace("\n", "\\n").replace("\t", "\\t")]
        words += ["--bootstrap-server", self.bootstrap, *arguments]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\t".join(words) + "\n")
        self._process.stdin.flush()
        told = []
        for line in self._process.stdout:
            if end := re.fullmatch(r"= (\d+)\n", line):
                return int(end[1]), "".join(told)
            told.append(line)
        said = (self._folder / "said").read_text()
        pytest.fail(f"Java ended; so far it said:\n{''.join(told)}\n{said}")

    def told(self, tool: str, *arguments: str, stdin: str = "") -> str:
        """What a tool printed, which must have succeeded."""
        status, told = self.run(tool, *arguments, stdin=stdin)
        assert status == 0, told
        return told

    def refused(self, tool: str, *arguments: str) -> str:
        """What a tool printed, which must have failed."""
        status, told = self.run(tool, *arguments)
        assert status == 1, told
        return told

    def file(self, content: object) -> str:
        """The path of a JSON file."""
        path = self._folder / "asked.json"
        path.write_text(json.dumps(content))
        return str(path)


@pytest.fixture(scope="module")
def tools(shared_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tools]:
    if isinstance(shared_broker, RunningBroker):
        pytest.skip("the tools want a broker without topics")
    folder = tmp_path_factory.mktemp("tools")
    command = ["bash", str(reference.REFERENCE / "run.sh"), "java", str(PROGRAM)]
    with open(folder / "said", "w") as said:
        process = subprocess.Popen(
            leashed(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
        try:
            yield Tools(process, shared_broker.bootstrap, folder)
        finally:
            process.kill()
            process.communicate()


def test_topic_command_makes_topics_with_settings_and_places(tools: Tools) -> None:
    made = ("--create", "--topic", "made", "--partitions", "3", "--replication-factor", "1")
    assert "Created topic made." in tools.told("topics", *made, "--config", "retention.ms=77")
    assert "already exists" in tools.refused("topics", "--create", "--topic", "made")
    tools.told("topics", "--create", "--topic", "made", "--if-not-exists")
    tools.told("topics", "--create", "--topic", "placed", "--replica-assignment", "0,0")
    away = ("--create", "--topic", "away", "--replica-assignment", "7,7")
    assert "broker 7, but no such broker is registered" in tools.refused("topics", *away)
    told = tools.told("topics", "--describe", "--topic", "made|placed")
    assert re.search(r"Topic: made\s.*PartitionCount: 3\s.*Configs: retention.ms=77", told)
    assert re.search(r"Topic: placed\s.*PartitionCount: 2\s.*ReplicationFactor: 1", told)
    assert len(re.findall(r"Leader: 0\s+Replicas: 0\s+Isr: 0\s+Elr:", told)) == 5


@pytest.mark.parametrize(
    "wrong",
    [
        ("--topic", "a/b"),
        ("--topic", "few", "--partitions", "0"),
        ("--topic", "many", "--replication-factor", "2"),
        ("--topic", "set", "--config", "retention.ms=soon"),
        ("--topic", "set", "--config", "no.such=1"),
    ],
    ids=" ".join,
)
def test_topic_command_makes_no_topic_that_cannot_be(tools: Tools, wrong: tuple[str, ...]) -> None:
    assert "Error while executing topic command" in tools.refused("topics", "--create", *wrong)
    assert wrong[1] not in tools.told("topics", "--list").split()


def test_topic_command_lists_and_describes_by_what_is_asked(tools: Tools) -> None:
    tools.told("topics", "--create", "--topic", "list.one", "--config", "segment.bytes=2000000")
    tools.told("topics", "--create", "--topic", "list.two")
    asked = ("--exclude-internal", "--topic", "list.*")
    assert tools.told("topics", "--list", *asked).split() == ["list.one", "list.two"]
    told = tools.told("topics", "--describe", "--topics-with-overrides")
    assert "list.one" in told
    assert "list.two" not in told
    for state in ("under-replicated", "unavailable", "under-min-isr"):
        assert tools.told("topics", "--describe", f"--{state}-partitions") == ""
    assert "list.two" in tools.told("topics", "--describe", "--at-min-isr-partitions")
    by_parts = ("--describe", "--topic", "list.*", "--partition-size-limit-per-response", "1")
    told = tools.told("topics", *by_parts)
    assert told.count("Partition: 0") == 2
    [topic_id] = re.findall(r"Topic: list.one\s+TopicId: (\S+)", told)
    assert "list.one" in tools.told("topics", "--describe", "--topic-id", topic_id)
    assert "does not exist" in tools.refused("topics", "--describe", "--topic", "nobodys")
    tools.told("topics", "--describe", "--topic", "nobodys", "--if-exists")


def test_topic_command_grows_and_deletes_topics(tools: Tools) -> None:
    tools.told("topics", "--create", "--topic", "grown", "--partitions", "2")
    tools.told("topics", "--alter", "--topic", "grown", "--partitions", "3")
    places = ("--partitions", "5", "--replica-assignment", "0,0,0,0,0")
    tools.told("topics", "--alter", "--topic", "grown", *places)
    assert "PartitionCount: 5" in tools.told("topics", "--describe", "--topic", "grown")
    fewer = tools.refused("topics", "--alter", "--topic", "grown", "--partitions", "2")
    assert "The topic grown currently has 5 partition(s); 2 would not be an increase" in fewer
    for what in (("--alter", "--partitions", "9"), ("--delete",)):
        tools.refused("topics", "--topic", "nobodys", *what)
        tools.told("topics", "--topic", "nobodys", "--if-exists", *what)
    tools.told("topics", "--delete", "--topic", "grow.*")
    assert "grown" not in tools.told("topics", "--list").split()


def test_config_command_sets_shows_and_takes_back_what_topics_have(tools: Tools) -> None:
    tools.told("topics", "--create", "--topic", "set")
    topic = ("--entity-type", "topics", "--entity-name", "set")
    changes = "segment.bytes=2000000,cleanup.policy=[compact,delete]"
    tools.told("configs", *topic, "--alter", "--add-config", changes)
    told = tools.told("configs", *topic, "--describe")
    assert (
        "segment.bytes=2000000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:segment.bytes=2000000,"
        " DEFAULT_CONFIG:log.segment.bytes=1073741824}" in told
    )
    assert "cleanup.policy=compact,delete" in told
    tools.told("configs", *topic, "--alter", "--delete-config", "segment.bytes")
    assert "segment.bytes" not in tools.told("configs", *topic, "--describe")
    whole = tools.told("configs", "--topic", "set", "--describe", "--all")
    assert "  segment.bytes=1073741824 sensitive=false" in whole
    for wrong in ("no.such=1", "min.insync.replicas=x", "retention.ms=-2"):
        told = tools.refused("configs", *topic, "--alter", "--add-config", wrong)
        assert "InvalidConfigurationException" in told
    nobodys = (*topic[:3], "nobodys", "--alter", "--add-config", "retention.ms=1")
    assert "UnknownTopicOrPartitionException" in tools.refused("configs", *nobodys)


def test_config_command_sets_shows_and_takes_back_what_brokers_have(tools: Tools) -> None:
    everyone, one = ("--entity-type", "brokers", "--entity-default"), ("--broker", "0")
    add, delete = ("--alter", "--add-config"), ("--alter", "--delete-config")
    tools.told("configs", *everyone, *add, "message.max.bytes=3000000")
    tools.told("configs", "--entity-type", "brokers", "--entity-name", "0", *add,
               "message.max.bytes=2000000")  # fmt: skip
    assert "message.max.bytes=3000000" in tools.told("configs", *everyone, "--describe")
    assert (
        "message.max.bytes=2000000 sensitive=false synonyms={DYNAMIC_BROKER_CONFIG:"
        "message.max.bytes=2000000, DYNAMIC_DEFAULT_BROKER_CONFIG:message.max.bytes=3000000,"
        " DEFAULT_CONFIG:message.max.bytes=1048588}" in tools.told("configs", *one, "--describe")
    )
    tools.told("configs", *one, *delete, "message.max.bytes")
    tools.told("configs", *everyone, *delete, "message.max.bytes")
    told = tools.told("configs", *one, "--describe", "--all")
    assert "message.max.bytes=1048588 sensitive=false" in told
    fixed = tools.refused("configs", *one, *add, "num.partitions=4")
    assert "Cannot update these configs dynamically" in fixed


def test_config_command_shows_and_sets_loggers_and_groups(tools: Tools) -> None:
    tools.told("configs", "--broker-logger", "0", "--alter", "--add-config", "ottla.server=WARN")
    assert "ottla.server=WARN" in tools.told("configs", "--broker-logger", "0", "--describe")
    tools.told("configs", "--broker-logger", "0", "--alter", "--delete-config", "ottla.server")
    group = ("--entity-type", "groups", "--entity-name", "g")
    setting = "consumer.session.timeout.ms=50000"
    tools.told("configs", *group, "--alter", "--add-config", setting)
    assert setting in tools.told("configs", *group, "--describe")
    assert "configs for group g" in tools.told("configs", *group[:2], "--describe")


def test_console_tools_bring_records_there_and_back_by_partition(tools: Tools) -> None:
    tools.told("topics", "--create", "--topic", "console")
    to = ("--topic", "console")
    tools.told("produce", *to, stdin="one\ntwo\n")
    keyed = ("--reader-property", "parse.key=true", "--reader-property", "parse.headers=true")
    tools.told("produce", *to, *keyed, stdin="h1:v1,h2:v2\tkey\tthree\n")
    for codec in CODECS:
        tools.told("produce", *to, "--compression-codec", codec, "--sync", stdin=f"{codec}\n")
    for acks in ("0", "1", "all"):
        plain = ("--command-property", f"acks={acks}")
        tools.told("produce", *to, *plain, stdin=f"acks {acks}\n")
    values = ["one", "two", "three", *CODECS, "acks 0", "acks 1", "acks all"]

    def consumed(*arguments: str, count: int) -> list[str]:
        most = ("--max-messages", str(count), "--timeout-ms", "120000")
        told = tools.told("consume", *to, "--partition", "0", *arguments, *most)
        *lines, last = told.splitlines()
        assert last == f"Processed a total of {count} messages"
        return lines

    assert consumed("--from-beginning", count=len(values)) == values
    assert consumed("--offset", "1", count=2) == values[1:3]
    committed = ("--isolation-level", "read_committed", "--offset", "earliest")
    assert consumed(*committed, count=4) == values[:4]
    shown = [f"print.{what}=true" for what in ("key", "headers", "offset", "partition")]
    properties = [part for one in shown for part in ("--formatter-property", one)]
    told = "Partition:0\tOffset:2\th1:v1,h2:v2\tkey\tthree"
    assert consumed("--offset", "2", *properties, count=1) == [told]


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_consumer_group_command_shows_resets_and_deletes_groups(
    tools: Tools, protocol: str
) -> None:
    topic, group = f"grouped-{protocol}", f"group-{protocol}"
    tools.told("topics", "--create", "--topic", topic)
    written = "".join(f"{number}\n" for number in range(10))
    tools.told("produce", "--topic", topic, stdin=written)
    reading = ("--topic", topic, "--group", group, "--max-messages", "10", "--timeout-ms", "120000")
    how = (f"group.protocol={protocol}", "auto.offset.reset=earliest")
    properties = [word for one in how for word in ("--consumer-property", one)]
    told = tools.told("consume", *reading, *properties)
    assert sorted(re.findall(r"^\d$", told, re.MULTILINE)) == [str(n) for n in range(10)]

    assert group in tools.told("groups", "--list").split()

    def is_empty() -> bool:
        return bool(re.search(rf"{group}\s+Empty", tools.told("groups", "--list", "--state")))

    wait_until(is_empty, f"the end of the only member of {group}")  # nobody answers its goodbye
    named = ("--group", group)
    told = tools.told("groups", "--describe", *named, "--state")
    assert re.search(rf"^{group}\s.*\sEmpty\s+0$", told, re.MULTILINE), told
    assert "has no active members" in tools.told("groups", "--describe", *named)
    assert _committed(tools, group) == 10

    all_topics = (*named, "--all-topics", "--reset-offsets")
    tools.told("groups", *all_topics, "--to-earliest", "--dry-run")
    assert _committed(tools, group) == 10
    for words, left in (
        (("--to-earliest",), 0),
        (("--shift-by", "2"), 2),
        (("--to-offset", "1"), 1),
        (("--to-latest",), 10),
        (("--to-datetime", "2000-01-01T00:00:00.000"), 0),
        (("--by-duration", "PT0S"), 10),
        (("--to-current",), 10),
    ):
        tools.told("groups", *all_topics, *words, "--execute")
        assert _committed(tools, group) == left, words

    tools.told("groups", *named, "--delete-offsets", "--topic", f"{topic}:0")
    assert _committed(tools, group) is None
    assert "successful" in tools.told("groups", *named, "--delete")
    assert "not found" in tools.run("groups", "--describe", *named)[1]


def _committed(tools: Tools, group: str) -> int | None:
    """What the group has committed of its one partition."""
    told = tools.told("groups", "--describe", "--group", group, "--offsets")
    found = re.search(rf"^{group}\s+\S+\s+0\s+(\d+)\s", told, re.MULTILINE)
    return None if found is None else int(found[1])


def test_get_offset_shell_finds_offsets_by_every_kind_of_time(tools: Tools) -> None:
    tools.told("topics", "--create", "--topic", "shell", "--partitions", "3")
    tools.told("topics", "--create", "--topic", "shell2")
    tools.told("produce", "--topic", "shell2", stdin="a\nb\n")
    assert tools.told("offsets", "--topic", "shell") == "shell:0:0\nshell:1:0\nshell:2:0\n"
    assert tools.told("offsets", "--topic-partitions", "shell2:0,shell:1-3").splitlines() == [
        "shell:1:0",
        "shell:2:0",
        "shell2:0:2",
    ]
    one = ("--topic", "shell2", "--partitions", "0", "--exclude-internal-topics", "--time")
    ends, starts = ("latest", "-1"), ("earliest", "-2", "earliest-local", "0")
    for time in (*ends, *starts):
        offset = 2 if time in ends else 0
        assert tools.told("offsets", *one, time) == f"shell2:0:{offset}\n", time
    assert tools.told("offsets", *one, "max-timestamp") in ("shell2:0:0\n", "shell2:0:1\n")
    for nothing in ("latest-tiered", "earliest-pending-upload", "99999999999999"):
        assert tools.told("offsets", *one, nothing) == ""
    assert "Could not match any" in tools.refused("offsets", "--topic", "nobodys")


def test_delete_records_command_moves_the_start_of_a_log(tools: Tools) -> None:
    tools.told("topics", "--create", "--topic", "deleted", "--partitions", "1")
    tools.told("produce", "--topic", "deleted", stdin="a\nb\nc\n")

    def deleted(offset: int) -> str:
        part = {"topic": "deleted", "partition": 0, "offset": offset}
        asked = tools.file({"version": 1, "partitions": [part]})
        return tools.told("delete-records", "--offset-json-file", asked)

    assert "partition: deleted-0\tlow_watermark: 1" in deleted(1)
    assert tools.told("offsets", "--topic", "deleted", "--time", "earliest") == "deleted:0:1\n"
    assert "OffsetOutOfRangeException" in deleted(4)
    assert "partition: deleted-0\tlow_watermark: 3" in deleted(-1)


def test_log_dirs_command_shows_the_size_of_each_partition(tools: Tools) -> None:
    tools.told("topics", "--create", "--topic", "sized", "--partitions", "2")
    tools.told("produce", "--topic", "sized", "--command-property", "batch.size=0", stdin="a\n")
    asked = ("--describe", "--broker-list", "0", "--topic-list", "sized")
    told = json.loads(tools.told("log-dirs", *asked).splitlines()[-1])
    [directory] = told["brokers"][0]["logDirs"]
    assert directory["error"] is None
    sizes = {one["partition"]: one["size"] for one in directory["partitions"]}
    assert set(sizes) == {"sized-0", "sized-1"}
    assert sorted(sizes.values())[0] == 0 < sorted(sizes.values())[1]
    assert "sized-0" in tools.told("log-dirs", "--describe")
    absent = tools.refused("log-dirs", "--describe", "--broker-list", "7")
    assert "The given brokers do not exist" in absent


def test_broker_api_versions_command_shows_what_is_served(tools: Tools) -> None:
    told = re.findall(r"\w+\((\d+)\): (\d+)(?: to (\d+))? \[usable", tools.told("api-versions"))
    served = {int(key): (int(low), int(high or low)) for key, low, high in told}
    assert served == {api.key: (api.lowest, api.highest) for api in APIS}


def test_producer_performance_sends_what_it_was_asked_to(tools: Tools) -> None:
    tools.told("topics", "--create", "--topic", "perf")
    to = ("--topic", "perf", "--throughput", "-1", "--num-records")
    assert "2000 records sent" in tools.told("producer-perf", *to, "2000", "--record-size", "100")
    fancy = ("--payload-monotonic", "--print-metrics", "--command-property", "acks=1")
    assert "steady state" in tools.told(
        "producer-perf", *to, "200", "--warmup-records", "9", *fancy
    )
    packed = ("--record-size", "50", "--command-property", "compression.type=zstd")
    tools.told("producer-perf", *to, "100", *packed)
    assert tools.told("offsets", "--topic", "perf") == "perf:0:2300\n"


def test_tools_for_many_nodes_are_told_what_one_has(tools: Tools) -> None:
    tools.told("topics", "--create", "--topic", "alone")
    tools.told("elect", "--election-type", "preferred", "--all-topic-partitions")
    first = ("--topic", "alone", "--partition", "0")
    told = tools.told("elect", "--election-type", "preferred", *first)
    assert "Valid replica already elected for partitions alone-0" in told
    assert "No partition reassignments found." in tools.told("reassign", "--list")
    moves = [{"topic": "alone", "partition": 0, "replicas": [0], "log_dirs": ["any"]}]
    asked = tools.file({"version": 1, "partitions": moves})
    tools.told("reassign", "--reassignment-json-file", asked, "--execute")
    told = tools.told("reassign", "--reassignment-json-file", asked, "--verify")
    assert "Reassignment of partition alone-0 is completed." in told
    tools.told("produce", "--topic", "alone", stdin="a\n")
    described = ("describe-producers", "--topic", "alone", "--partition", "0")
    told = tools.told("transactions", *described)
    assert "LastSequence" in told
    assert len(told.splitlines()) == 2
    tools.told("features", "describe")


def test_transactions_command_shows_what_is_open_and_aborts_it(tools: Tools) -> None:
    tools.told("topics", "--create", "--topic", "open")
    one = Confluent(tools.bootstrap, "opened")
    one.begin()
    one.send("open", 0, b"a")
    one.flush()
    place = ("--topic", "open", "--partition", "0")
    told = tools.told("transactions", "list")
    assert re.search(r"^opened\s+0\s+\d+\s+Ongoing", told, re.MULTILINE), told
    assert "opened" not in tools.told("transactions", "list", "--duration-filter", "600000")
    assert "opened" in tools.told("transactions", "list", "--transactional-id-pattern", "op.*d")
    told = tools.told("transactions", "describe", "--transactional-id", "opened")
    assert re.search(r"^0\s+opened\s+\d+\s+0\s+Ongoing\s+60000\s.*open-0", told, re.MULTILINE), told
    told = tools.told("transactions", "describe-producers", *place)
    assert re.search(r"^\d+\s+0\s+-?\d+\s+0\s+\d+\s+0[ \t]*$", told, re.MULTILINE), told
    hanging = ("find-hanging", "--broker-id", "0", "--max-transaction-timeout")
    assert "open" not in tools.told("transactions", *hanging, "15")
    # Of what is older than 0 minutes its coordinator is asked, which knows of it.
    assert not re.search(r"^open\s", tools.told("transactions", *hanging, "0"), re.MULTILINE)
    tools.told("transactions", "abort", *place, "--start-offset", "0")
    told = tools.told("transactions", "describe-producers", *place)
    assert re.search(r"^\d+\s+0\s+-?\d+\s+-?\d+\s+\d+\s+None[ \t]*$", told, re.MULTILINE), told
    gone = tools.refused("transactions", "abort", *place, "--start-offset", "0")
    assert "Could not find any open transactions starting at offset 0" in gone
    tools.told("transactions", "forceTerminateTransaction", "--transactionalId", "opened")
    told = tools.told("transactions", "list")
    assert re.search(r"^opened\s+0\s+\d+\s+Empty", told, re.MULTILINE), told
    one.close()
