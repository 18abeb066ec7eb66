"""Kafka Streams' word count with exactly_once_v2: each word is counted once, whoever leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import reference
from tests.clients.conftest import start_broker

PROGRAM = Path(__file__).with_name("java") / "WordCount.java"


@pytest.mark.reference
def test_kafka_streams_counts_words_exactly_once(tmp_path: Path) -> None:
    broker = start_broker(tmp_path)
    try:
        done = reference.run("java", PROGRAM, broker.bootstrap, tmp_path / "state", timeout=500)
    finally:
        broker.stop()
    assert done.stdout == "half\nall, once\n"
