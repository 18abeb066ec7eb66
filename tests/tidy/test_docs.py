"""Documents stay in step with the code: file map, dependencies, commands."""

import re
import subprocess
import sys
import tomllib

import pytest

from tests.tidy.source import GENERATED, ROOT, name, package_files, text

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKE_TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_file_map_lists_every_source_file_and_no_other():
    page = text(ROOT / "docs" / "ARCHITECTURE.md")
    listed = set(re.findall(r"[\w/]+\.py\b", page))
    files = {
        path.relative_to(ROOT / "src" / "ottla").as_posix()
        for path in package_files()
        if path.name != "__init__.py"
    }
    missing = sorted(file for file in files if not {file, f"src/ottla/{file}"} & listed)
    assert missing == [], "docs/ARCHITECTURE.md, file map"
    gone = sorted(
        file
        for file in listed
        if "/" in file
        and not any((base / file).exists() for base in (ROOT, ROOT / "src" / "ottla", GENERATED))
    )
    assert gone == [], "docs/ARCHITECTURE.md names files that are not there"


def test_every_dependency_has_its_reason():
    page = text(ROOT / "docs" / "design" / "dependencies.md")
    extras = [one for extra in PROJECT["optional-dependencies"].values() for one in extra]
    names = {re.split(r"[\[<>=~ ]", one)[0] for one in [*PROJECT["dependencies"], *extras]}
    assert [one for one in sorted(names - {"ottla"}) if f"**{one}**" not in page] == []


def test_the_page_about_compatibility_says_what_is_served_and_what_may_differ():
    tool = [sys.executable, str(ROOT / "tools" / "gen_compatibility.py"), "--check"]
    done = subprocess.run(tool, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    assert done.returncode == 0


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_a_page_names_only_make_targets_that_exist(page):
    named = set(re.findall(r"`make ([a-z]+)|^\s*make ([a-z]+)", text(ROOT / page), re.MULTILINE))
    assert {one or other for one, other in named} <= MAKE_TARGETS


def test_every_link_between_pages_leads_somewhere():
    found = [
        (page, target)
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        for target in re.findall(r"\]\(([^)#]+)", text(page))
        if "://" not in target
    ]
    assert found, "pages link to each other"
    assert [f"{name(page)}: {to}" for page, to in found if not (page.parent / to).exists()] == []


def test_every_design_note_that_the_code_names_is_there():
    notes = {path.name[:4] for path in (ROOT / "docs" / "design").glob("0*.md")}
    named = {
        number for path in package_files() for number in re.findall(r"design/(\d{4})", text(path))
    }
    assert named - notes == set()


def _loaded_by(statement: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter has after `statement`."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return {module.partition(".")[0] for module in done.stdout.split()}


def test_importing_ottla_imports_nothing_slow():
    slow = {"asyncio", "typer", "rich", "http", "sqlite3", "ssl", "confluent_kafka", "cramjam"}
    assert _loaded_by("import ottla") & slow == set()


def test_importing_the_registry_imports_no_handler():
    code = "import ottla.handlers.registry\nimport sys\n"
    code += "print(*[m for m in sys.modules if m.startswith('ottla.handlers.')])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    # the table itself and the shapes that handlers share
    shared = {"ottla.handlers.registry", "ottla.handlers.context"}
    assert set(done.stdout.split()) <= shared


def test_nothing_on_the_way_to_serving_imports_the_command_line_or_http():
    slow = {
        "typer",
        "rich",
        "click",
        "http",
        "confluent_kafka",
        "cramjam",
        "multiprocessing",
    }
    assert _loaded_by("import ottla.node") & slow == set()
