"""Our regular expressions against RE2 itself: what is one, and what it describes."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ottla.coordinator.group.regex import Regex, RegexError

re2 = pytest.importorskip("re2")

PARTS = (  # noqa: SIM905  # a list of forty strings says less
    r"a b c - _ . \. [ab] [^a-c] [a-] ( (?: ) | * + ? *? {2} {1,3} {0,} {,2} { } ^ $ \b \B \d \w \W \s"
    r" (?i: (?P<x> (?P<y> \pL \p{Lu} \P{Nd} [[:alpha:]] [[:^digit:]] \Q.a \E \x61 \x{62} \141 \1 \z"
    r" \A A 0 1 é [\d-] [\w.] \_ (?=a) []a] [^]]"
).split()


@given(
    parts=st.lists(st.sampled_from(PARTS), max_size=8),
    names=st.lists(st.text("abcAB-_.01", max_size=6), min_size=1, max_size=6),
)
@example(parts=["(", "a", "*", ")", "*"], names=["aaa"])
def test_the_same_texts_are_expressions_and_describe_the_same_names(parts, names):
    text = "".join(parts)
    options = re2.Options()
    options.log_errors = False
    try:
        theirs = re2.compile(text, options)
    except re2.error:
        with pytest.raises(RegexError):
            Regex(text)
        return
    ours = Regex(text)
    for name in names:
        assert ours.matches(name) == (theirs.fullmatch(name) is not None), (text, name)
