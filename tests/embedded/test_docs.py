"""The examples of docs/embedded.md do what they say."""

import re
from pathlib import Path

import pytest

import ottla

PAGE = Path(__file__).parents[2] / "docs" / "embedded.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_works(number, broker, capsys):
    names: dict = {}
    exec(compile(EXAMPLES[number], f"{PAGE.name}, example {number + 1}", "exec"), names)
    for name, value in names.items():
        if name.startswith("test_"):
            value(broker)
    if "print(" in EXAMPLES[number]:
        assert capsys.readouterr().out == '0 b\'JFK\' b\'{"flight": 1545, "dest": "MIA"}\'\n'


def test_every_method_is_in_the_table():
    text = PAGE.read_text(encoding="utf-8")
    methods = [name for name in vars(ottla.Broker) if not name.startswith("_")]
    assert [name for name in methods if f"`{name}" not in text and f".{name}" not in text] == []
