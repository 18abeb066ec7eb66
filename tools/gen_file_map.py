"""Write the file map of docs/ARCHITECTURE.md from the first line of every module's docstring.

python tools/gen_file_map.py           # writes it
python tools/gen_file_map.py --check   # exits 1 if it is out of date
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "ottla"
PAGE = ROOT / "docs" / "ARCHITECTURE.md"
HEADING = "## Files\n"
GENERATED = "protocol/messages/"


def purpose(path: Path) -> str:
    """The first sentence of a module's docstring, on one line."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return paragraph.replace("|", "\\|")


def file_map() -> str:
    """The section below the heading: a table for each room."""
    rooms: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if path.name == "__init__.py" or name.startswith(GENERATED):
            continue
        room, _, _ = name.rpartition("/")
        rooms.setdefault(room, []).append(f"| `{name}` | {purpose(path)} |")
    parts = ["Written by `tools/gen_file_map.py` from the modules' own first lines.\n"]
    for room, rows in sorted(rooms.items()):
        table = "\n".join(["| file | owns |", "|---|---|", *rows])
        parts.append(f"### {room or 'ottla'}\n\n{table}\n")
        if room == "protocol":
            parts[-1] += "\n`protocol/messages/` holds one generated module for each API key.\n"
    return "\n".join(parts)


def main() -> int:
    """Write the page, or compare it; the exit code."""
    before = PAGE.read_text(encoding="utf-8")
    after = before[: before.index(HEADING)] + HEADING + "\n" + file_map()
    if "--check" in sys.argv[1:]:
        if before != after:
            sys.stderr.write("docs/ARCHITECTURE.md is out of date: run tools/gen_file_map.py\n")
            return 1
        return 0
    PAGE.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
