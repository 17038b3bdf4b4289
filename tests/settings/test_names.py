"""The rule for the names of databases: no dangerous name is accepted."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyramid_aalam_sqa import SettingError, database_name


@pytest.mark.parametrize(
    ("provider", "app"),
    [
        ("a_b", "c"),
        ("test", "base"),
        ("mysql", "base"),
        ("", "base"),
        ("aalam", ""),
        ("Aalam", "base"),
        ("1aalam", "base"),
        ("a" * 21, "base"),
        ("aalam", "b__c"),
        ("aalam", "_b"),
        ("aalam", "b_"),
        ("aalam", "1b"),
        ("aalam", "b" * 58),
        ("aalam", "b`; DROP DATABASE mysql; --"),
        ("aalam", 'b"'),
        ("aalam", "b'"),
        ("aalam", "b%"),
        ("aalam", "b\n"),
        ("aalam\n", "b"),
        ("aalam", "b\x00"),
        ("aalam", "bücher"),
        ("aalam", "b²"),
        ("aalam", None),
        (7, "base"),
    ],
)
def test_a_text_that_cannot_be_a_name_is_refused(provider, app):
    """Characters with a meaning for a server or a file system are refused."""
    with pytest.raises(SettingError, match=r"cannot be in a name|characters"):
        database_name(provider, app)


@given(st.text(max_size=70), st.text(max_size=70))
@example("aalam", "base")
@example("a", "b_c")
def test_a_name_is_plain_or_refused(provider, app):
    """Any text makes either a plain name or an error."""
    try:
        name = database_name(provider, app)
    except SettingError:
        return
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)+", name, re.ASCII)
    assert len(name) <= 63


words = st.from_regex(r"[a-z][a-z0-9]{0,3}", fullmatch=True)
codes = st.from_regex(r"[a-z][a-z0-9]{0,2}(_[a-z0-9]{1,2}){0,2}", fullmatch=True)


@given(words, codes, words, codes)
def test_two_applications_never_have_one_name(provider, app, other_provider, other_app):
    """The first underscore separates the provider from the application."""
    try:
        name, other = database_name(provider, app), database_name(other_provider, other_app)
    except SettingError:
        return
    assert (name == other) == ((provider, app) == (other_provider, other_app))
