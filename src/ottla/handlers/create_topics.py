"""CreateTopics, key 19, versions 2 to 7.

The controller decides; here requests become its questions and its answers become responses. An
answer comes when this node's metadata has the topic, so that whoever asks next finds it.
v2 validate only · v4 default counts (KIP-464, taken in every version, as in Kafka) · v5 flexible,
counts and configs in the answer (KIP-525) · v6 quota error, for which there are no quotas · v7
topic ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.cluster.topics import NewTopic, TopicResult
from ottla.core.config_entries import created_entries
from ottla.handlers.limits import RESOURCES_MAX, note_caps, too_many
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfigs,
    CreatableTopicResult,
    CreateTopicsRequest,
    CreateTopicsResponse,
)

if TYPE_CHECKING:
    from ottla.core.config import Config
    from ottla.handlers.context import Context, Request

DETAILS_SINCE = 5


def handle(context: Context, request: Request[CreateTopicsRequest]) -> Reply | Parked:
    """One result for each name. REQUEST_TIMED_OUT after timeout_ms; creation then goes on."""
    body = request.body
    if too_many(context, request, len(body.topics), at_most=RESOURCES_MAX):
        return _refused(body.topics)
    created = context.controller.create_topics(
        [_new_topic(topic) for topic in body.topics], validate_only=body.validate_only
    )

    def answer() -> Reply:
        if not created.done:
            names = dict.fromkeys(topic.name for topic in body.topics)
            results = [TopicResult(name, ErrorCode.REQUEST_TIMED_OUT) for name in names]
        else:
            results = created.result()
            note_caps(context, request, results)
        topics = [_result(result) for result in results]
        if request.api_version >= DETAILS_SINCE:
            _add_details(topics, results, context.config)
        return Reply(CreateTopicsResponse(topics=topics))

    if created.done:
        return answer()
    deadline_s = max(body.timeout_ms, 0) / 1000
    return Parked(created, answer, deadline_s=deadline_s, abandon=created.abandon)


def _refused(topics: list[CreatableTopic]) -> Reply:
    """The whole request is INVALID_REQUEST; every topic says so."""
    code = ErrorCode.INVALID_REQUEST
    names = dict.fromkeys(topic.name for topic in topics)
    results = [CreatableTopicResult(name=name, error_code=code) for name in names]
    return Reply(CreateTopicsResponse(topics=results))


def _new_topic(topic: CreatableTopic) -> NewTopic:
    return NewTopic(
        topic.name,
        topic.num_partitions,
        topic.replication_factor,
        [(one.partition_index, one.broker_ids) for one in topic.assignments],
        {config.name: config.value for config in topic.configs},
    )


def _result(result: TopicResult) -> CreatableTopicResult:
    assert result.name is not None, "a topic is created by name"
    answer = CreatableTopicResult(
        name=result.name, error_code=result.error, error_message=result.message
    )
    if result.topic is not None and not result.error:
        answer.topic_id = result.topic.id
    return answer


def _add_details(
    answers: list[CreatableTopicResult], results: list[TopicResult], config: Config
) -> None:
    """Counts and settings (KIP-525). Topics with the same settings of their own share them all."""
    known: dict[frozenset[tuple[str, str]], list[CreatableTopicConfigs]] = {}
    for answer, result in zip(answers, results, strict=True):
        topic = result.topic
        if result.error or topic is None:
            continue
        answer.num_partitions = len(topic.partitions)
        answer.replication_factor = len(topic.partitions[0].replicas)
        own = frozenset(topic.configs.items())
        if own not in known:
            known[own] = [
                CreatableTopicConfigs(name=one.name, value=one.text, config_source=one.source)
                for one in created_entries(config, topic.configs)
            ]
        answer.configs = known[own]
