"""Regular expressions of subscriptions."""

import pytest

from ottla.coordinator.group.regex import KEPT_MAX, SLICE, Regex, RegexError, Resolution


@pytest.mark.parametrize(
    ("text", "names", "others"),
    [
        ("a.*", ["a", "abc"], ["ba", ""]),
        ("a|bc?", ["a", "b", "bc"], ["ab", "c"]),
        ("(a|b)+c{2,3}", ["acc", "abbccc"], ["ac", "cc", "acccc"]),
        (r"[a-c0-9._]+\.x", ["a.x", "b_9.x"], ["d.x", "ax"]),
        ("[^a-z]+", ["A1-"], ["a", "Aa"]),
        ("(?i)Topic-[a-z]", ["topic-A", "TOPIC-b"], ["topic-1"]),
        (r"\btopic\b.*\d", ["topic-1"], ["topics-1", "topic"]),
        (r"^\Qa.b\E$", ["a.b"], ["axb"]),
        (r"[[:alpha:]]{3}\w?", ["abc", "abc_"], ["ab1"]),
        (r"\x61\141\pL\P{Lu}", ["aabc"], ["aabC"]),
        ("", [""], ["a"]),
        ("a*?", ["", "aaa"], ["b"]),
        ("(?:x(?P<n>y))?z", ["z", "xyz"], ["xz"]),
    ],
)
def test_an_expression_describes_all_of_a_name(text, names, others):
    regex = Regex(text)
    assert [name for name in names + others if regex.matches(name)] == names


@pytest.mark.parametrize(
    "text",
    [
        *("(", ")", "a)", "[", "[]", "[b-a]", "*", "a**", "a{2,1}", "a{1001}", r"(a)\1", "(?=a)"),
        *("(?<!a)b", "(?P<n>a)(?P<n>b)", r"\8", "\\", "[[:nope:]]", r"\p{Nope}", "(?z)a", "a++"),
        *("x{1000}{1000}", "(" * 200 + ")" * 200, "((a{100}){100}){100}", "a" * 5000),
    ],
)
def test_h110_what_is_no_expression_of_re2_is_refused(text):
    with pytest.raises(RegexError):
        Regex(text)


def test_h110_no_expression_takes_time_that_grows_with_its_power():
    for text in ("(x+x+)+y", "(a|aa)+$", "(.*)*(.*)*(.*)*b", "([a-z]+)*[0-9]"):
        regex = Regex(text)
        assert not regex.matches("xa" * 124)
        assert regex.steps < 60 * 249


def test_h110_what_is_kept_of_an_expression_is_bounded():
    regex = Regex(".*a.{300}")
    for number in range(200):
        regex.matches(f"{number:0249b}".replace("1", "a"))
    places = sum(len(state[0]) for state in regex._states)
    assert places <= KEPT_MAX


def test_a_resolution_takes_many_topics_in_slices():
    names = [f"topic-{number}" for number in range(20_000)]
    resolution = Resolution(["topic-.*5", "("], names, 7)
    slices = 1
    while not resolution.step():
        slices += 1
    assert slices > sum(map(len, names)) // SLICE // 2
    assert resolution.topics["("] == set()
    assert len(resolution.topics["topic-.*5"]) == 2000
