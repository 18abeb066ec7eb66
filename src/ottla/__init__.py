"""ottla: a Kafka-compatible event log in one Python process."""

__version__ = "0.1.0"
