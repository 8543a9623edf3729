"""Values as TOML: what is written is what is read."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoroids._util.toml_tables import to_toml

PLAIN = st.one_of(
    st.booleans(),
    st.integers(-(2**62), 2**62),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)
NAMES = st.text("abcdefghij_", min_size=1)
VALUES = st.recursive(PLAIN, lambda inner: st.one_of(st.lists(inner), st.dictionaries(NAMES, inner)), max_leaves=8)


@given(VALUES)
def test_values_are_read_as_they_were_written(value: Any):
    assert tomllib.loads(f"value = {to_toml(value)}") == {"value": value}


def test_tuples_are_lists_and_anything_else_is_refused():
    assert to_toml((1, "a")) == '[1, "a"]'
    with pytest.raises(ValueError, match="cannot be written as TOML"):
        to_toml(None)
