"""Values that users type, and what settings files can hold of them."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoroids._util.literals import as_json, read_literal, read_pairs

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("True", True), ("false", False), ("False", False), ("null", None), ("None", None),
        ("3", 3), ("-3", -3), ("+3", 3), ("1_000", 1000), ("1e-3", 1e-3), ("1E5", 1e5), (".5", 0.5), ("3.0", 3.0),
        ("[1, 2.5, true]", [1, 2.5, True]), ("[]", []), ("['a', None]", ["a", None]), ("(1, 2)", (1, 2)),
        ('{"a": {"b": [null]}}', {"a": {"b": [None]}}), ("{'a': True}", {"a": True}),
        ('"3"', "3"), ("'false'", "false"), ('"[1, 2]"', "[1, 2]"), ('""', ""), ("", ""),
        ("easy", "easy"), ("4x4", "4x4"), ("TRUE", "TRUE"), ("007", "007"), ("1if", "1if"),
        ("a b", "a b"), ("1+2j", "1+2j"), ("b'x'", "b'x'"), ("../maps/a.txt", "../maps/a.txt"), ("-", "-"),
        ("2020-01-01", "2020-01-01"), ("information", "information"),
    ],
)  # fmt: skip
def test_literals_are_values_of_their_types_and_other_words_are_text(text: str, value: Any):
    read = read_literal(text)
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize("text", ["[1, 2", "{1: 2}", "{a", "'x", '"', "(1,", "[a]", "[" * 100_000])
def test_a_list_that_cannot_be_read_is_not_taken_for_text(text: str):
    with pytest.raises(ValueError, match=r"^cannot read ") as error:
        read_literal(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@settings(derandomize=True)
@given(PLAIN)
def test_every_value_of_json_is_read_as_it_was_written(value: Any):
    assert read_literal(json.dumps(value)) == value
    assert json.loads(json.dumps(as_json(value, "x"))) == value


def test_pairs_are_names_with_values_of_their_types():
    words = ["is_slippery", "false", "desc", "null", "size", "4", "map", "4x4"]
    assert read_pairs(words) == {"is_slippery": False, "desc": None, "size": 4, "map": "4x4"}
    assert read_pairs([]) == {}
    with pytest.raises(ValueError, match="pairs of a name and a value, got 1 words"):
        read_pairs(["alone"])
    with pytest.raises(ValueError, match="k is given twice"):
        read_pairs(["k", "1", "k", "2"])


@pytest.mark.parametrize(
    "value", [math.nan, [1.0, -math.inf], {"a": math.inf}, read_literal("nan"), read_literal("-inf")]
)
def test_what_is_not_finite_is_refused(value: Any):
    with pytest.raises(ValueError, match=r"^size must be finite, got"):
        as_json(value, "size")


@pytest.mark.parametrize("value", [np.int64(3), object(), {1: 2}, {"a": {None: 1}}, [b"x"], {1, 2}, np.zeros(2)])
def test_what_a_file_of_settings_would_change_is_refused(value: Any):
    with pytest.raises(ValueError, match=r"^size must be a number, text,") as error:
        as_json(value, "size")
    assert "\n" not in str(error.value)


def test_tuples_are_lists_as_in_a_file():
    assert as_json((1, (2, {"a": (3,)})), "size") == [1, [2, {"a": [3]}]]
