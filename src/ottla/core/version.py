"""The version of ottla. Alone in its file, so that every room may name it."""

__version__ = "0.1.0"
