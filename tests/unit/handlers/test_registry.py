"""The table of what is served agrees with itself and with what there is."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import pytest

from ottla.handlers.registry import API, APIS, Api

KAFKA_4_3_1 = {
    0: (0, 13),
    1: (4, 18),
    2: (1, 11),
    3: (0, 13),
    8: (2, 10),
    9: (1, 10),
    10: (0, 6),
    11: (0, 9),
    12: (0, 4),
    13: (0, 5),
    14: (0, 5),
    15: (0, 6),
    16: (0, 5),
    18: (0, 4),
    19: (2, 7),
    20: (1, 6),
    21: (0, 2),
    22: (0, 5),
    23: (2, 4),
    24: (0, 5),
    25: (0, 4),
    26: (0, 5),
    27: (1, 2),
    28: (0, 5),
    32: (1, 4),
    33: (0, 2),
    34: (1, 2),
    35: (1, 5),
    37: (0, 3),
    42: (0, 2),
    43: (0, 2),
    44: (0, 1),
    45: (0, 1),
    46: (0, 0),
    47: (0, 0),
    57: (0, 2),
    60: (0, 2),
    61: (0, 0),
    65: (0, 0),
    66: (0, 2),
    68: (0, 1),
    69: (0, 1),
    74: (0, 1),
    75: (0, 0),
}


def test_the_ranges_are_kafkas() -> None:
    assert {api.key: (api.lowest, api.highest) for api in APIS} == KAFKA_4_3_1
    assert len(API) == len(APIS)


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.name)
def test_every_api_has_a_handler_whose_header_names_it(api: Api) -> None:
    handler = import_module(f"ottla.handlers.{api.module}")
    assert callable(handler.handle)
    first_line = (handler.__doc__ or "").splitlines()[0]
    assert first_line.startswith(
        f"{api.name}, key {api.key}, versions {api.accepted} to {api.highest}"
    )


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.name)
def test_every_advertised_version_has_messages(api: Api) -> None:
    messages = import_module(f"ottla.protocol.messages.{api.module}")
    for kind in ("Request", "Response"):
        message = getattr(messages, f"{api.name}{kind}")
        assert api.key == message.KEY
        lowest, highest = message.VERSIONS
        assert lowest <= api.accepted
        assert api.highest <= highest


def test_only_produce_takes_less_than_it_advertises() -> None:
    differing = {api.key: api.accepted for api in APIS if api.accepted != api.lowest}
    assert differing == {0: 3}


def test_importing_the_table_imports_no_handler_and_no_message() -> None:
    assert find_spec("ottla.handlers.registry") is not None
    code = (
        "import sys, ottla.handlers.registry;"
        "print([m for m in sys.modules if m.startswith(('ottla.handlers.', 'ottla.protocol')) "
        "and m != 'ottla.handlers.registry'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
