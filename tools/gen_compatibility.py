"""Write the tables of docs/COMPATIBILITY.md: what is served, and what may differ from Kafka.

    python tools/gen_compatibility.py           # writes them
    python tools/gen_compatibility.py --check   # exits 1 if they are out of date

Owns what lies between the page's markers. The APIs come from the registry and the first lines of
the handlers, the differences from the list that the comparison with Apache Kafka uses.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from ottla.handlers.registry import APIS

ROOT = Path(__file__).resolve().parent.parent
HANDLERS = ROOT / "src" / "ottla" / "handlers"
PAGE = ROOT / "docs" / "COMPATIBILITY.md"
LEFT_OUT = ("Not done", "Not as Kafka")


def left_out(module: str) -> str:
    """What a handler's header says it does not do, or does in another way."""
    source = (HANDLERS / f"{module}.py").read_text(encoding="utf-8")
    header = ast.get_docstring(ast.parse(source)) or ""
    starts = "|".join(LEFT_OUT)
    found = re.findall(rf"^((?:{starts}): .*?)(?=^(?:{starts}):|\n\n|\Z)", header, re.S | re.M)
    return " ".join(" ".join(found).split()).replace("|", "\\|")


def api_rows() -> Iterator[str]:
    """The table of what is served."""
    yield "| key | API | versions | not done, or not as Kafka |"
    yield "|--|--|--|--|"
    for api in APIS:
        versions = f"{api.lowest}–{api.highest}"
        if api.accepted > api.lowest:
            versions += f" (below {api.accepted} the connection ends, as in Kafka)"
        yield f"| {api.key} | {api.name} | {versions} | {left_out(api.module)} |"


def difference_rows() -> Iterator[str]:
    """The table of allowed differences."""
    sys.path.insert(0, str(ROOT))
    allowed = import_module("tests.oracle.answers.allowed").ALLOWED
    yield "| difference | where | reason |"
    yield "|--|--|--|"
    for one in allowed:
        where = ", ".join(sorted({pattern.split("-")[0] for pattern in one.cases.split()}))
        where = "all" if where == "*" else where.replace("*", "any")
        yield f"| {one.name.replace('-', ' ')} | {where} | {one.reason} |"


def filled(page: str, name: str, rows: Iterator[str]) -> str:
    """The page with new content between two markers."""
    begin, end = (
        f"<!-- {name}: written by tools/gen_compatibility.py -->\n",
        f"<!-- end of {name} -->",
    )
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    assert found, f"{PAGE.name} has no markers for {name}"
    return before + begin + "\n".join(rows) + "\n" + end + after


def main() -> int:
    """Write the page, or compare it; the exit code."""
    before = PAGE.read_text(encoding="utf-8")
    after = filled(filled(before, "apis", api_rows()), "differences", difference_rows())
    if "--check" in sys.argv[1:]:
        if before != after:
            sys.stderr.write(
                "docs/COMPATIBILITY.md is out of date: run tools/gen_compatibility.py\n"
            )
            return 1
        return 0
    PAGE.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
