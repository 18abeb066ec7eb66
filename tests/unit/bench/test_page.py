"""The page: what lies between its markers, and what happens when a section can't be measured."""

import json

import pytest

from ottla.bench import page, pump

PAGE = """# Mine
<!-- bench: produce -->
old
<!-- end: produce -->
text
<!-- bench: fetch -->
old
<!-- end: fetch -->
"""


def failing(_plan, _say):
    raise pump.LoadFailed("the broker went away")


def measured(_plan, _say):
    return ["a table"], [{"figure": 1}]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    return path


def test_a_section_that_fails_keeps_what_was_there_and_no_other_from_being_measured(
    file, monkeypatch
):
    monkeypatch.setattr(page, "SECTIONS", {"produce": failing, "fetch": measured})
    told = [str(done) for done in page.write(str(file), [], page.Plan(), print)]
    assert told == ["1 of 2: produce, 0 s; FAILED: the broker went away", "2 of 2: fetch, 0 s"]
    text = file.read_text()
    assert "<!-- bench: produce -->\nold\n<!-- end: produce -->\ntext\n" in text
    assert "\n\na table\n<!-- end: fetch -->" in text
    assert json.loads(file.with_suffix(".json").read_text()) == {"fetch": [{"figure": 1}]}


def test_a_section_that_the_page_has_no_place_for_is_refused_with_those_it_has(file):
    with pytest.raises(ValueError, match="no section 'start'; it has: produce, fetch"):
        list(page.write(str(file), ["start"], page.Plan(), print))


def test_a_marker_that_is_missing_or_doubled_is_refused():
    for text in ("nothing", PAGE + PAGE):
        with pytest.raises(ValueError, match="one pair of lines"):
            page.replace_between(text, "produce", "new")
