"""The rule by which parts of an observation are images, symbols, numbers, or left out."""

import numpy as np
import pytest
from gymnasium import spaces

from memoroids.agents.encoders import ConvEncoder
from memoroids.envs.observations import LEAST_SIDE, Mixed, Observations, Symbols, Treatment


def pixels(*shape: int, low: int = 0, high: int = 255) -> spaces.Box:
    return spaces.Box(low, high, shape, np.uint8)


def grid(numbers: int, count: int) -> Mixed:
    return Mixed((), numbers, (Symbols(0, numbers, count),))


RULE: list[tuple[spaces.Space, Treatment, tuple[int, ...] | Mixed]] = [
    (pixels(36, 40), "auto", (36, 40, 1)),
    (pixels(84, 84, 4), "auto", (84, 84, 4)),
    (pixels(3, 40, 40), "auto", (40, 40, 3)),
    (pixels(4, 84, 36), "auto", (84, 36, 4)),
    (pixels(64, 64, 64), "auto", (64, 64, 64)),
    (pixels(35, 40), "auto", (1400,)),
    (pixels(40, 3, 40), "auto", (4800,)),
    (pixels(6, 7), "auto", grid(42, 16)),
    (pixels(7, 7, 3), "auto", grid(147, 16)),
    (pixels(3, 15, 15), "auto", grid(675, 16)),
    (pixels(7, 7, 20), "auto", (980,)),
    (pixels(16, 15), "auto", (240,)),
    (pixels(40, 40, high=2), "auto", grid(1600, 3)),
    (pixels(32, 32, high=15), "auto", grid(1024, 16)),
    (pixels(32, 33, high=15), "auto", (1056,)),
    (pixels(40, 40, high=16), "auto", (1600,)),
    (pixels(5, 5, high=99), "auto", (25,)),
    (pixels(5, 5, high=99), "symbols", grid(25, 100)),
    (pixels(5, 5, high=1), "auto", (25,)),
    (spaces.Box(0, 9, (5, 5), np.int64), "auto", (25,)),
    (pixels(40, 40, 3), "symbols", grid(4800, 16)),
    (pixels(7, 7, 3), "vector", (147,)),
    (pixels(40, 40, low=1), "auto", (1600,)),
    (pixels(2, 36, 36, 3), "auto", (7776,)),
    (pixels(5000), "auto", (5000,)),
    (spaces.Box(0, 255, (40, 40), np.float32), "auto", (1600,)),
    (pixels(40, 40, high=2), "image", (40, 40, 1)),
    (pixels(6, 7, 2), "image", (6, 7, 2)),
    (pixels(3, 40, 40, high=9), "image", (40, 40, 3)),
    (pixels(40, 40, 3), "vector", (4800,)),
]


@pytest.mark.parametrize(("space", "treatment", "layout"), RULE, ids=[f"{s} {t}" for s, t, _ in RULE])
def test_shape_bounds_and_option_decide_what_is_an_image(
    space: spaces.Space, treatment: Treatment, layout: tuple[int, ...] | Mixed
):
    assert Observations("env", space, treatment).layout(0) == layout
    nested = spaces.Dict({"x": spaces.Tuple((space, spaces.Discrete(5)))})
    joined = Observations("env", nested, treatment).layout(2)
    if isinstance(layout, Mixed):
        assert joined == Mixed((), layout.vector + 7, layout.symbols)
    else:
        assert joined == (Mixed((layout,), 7) if len(layout) == 3 else (layout[0] + 7,))


def test_the_smallest_image_is_the_smallest_that_the_encoder_takes():
    from jax import random

    ConvEncoder((LEAST_SIDE, LEAST_SIDE, 1), 4, key=random.key(0))
    with pytest.raises(ValueError, match="too small"):
        ConvEncoder((LEAST_SIDE - 1, LEAST_SIDE, 1), 4, key=random.key(0))


def test_images_come_first_and_parts_keep_the_order_of_the_space():
    space = spaces.Dict({"a": spaces.Discrete(2), "b": pixels(36, 36), "c": pixels(40, 36, 3), "d": pixels(4)})
    found = Observations("env", space)
    assert [part.path for part in found.images] == [("b",), ("c",)]
    assert [part.path for part in found.vectors] == [("a",), ("d",)]
    assert found.layout(1) == Mixed(((36, 36, 1), (40, 36, 3)), 7) and found.layout(1).size == 36 * 36 * 1 + 4320 + 7
    assert found.image is None and found.notices == []


def test_symbols_keep_their_places_behind_images_and_are_left_as_they_are():
    space = spaces.Dict(
        {
            "a": spaces.Discrete(2),
            "b": pixels(36, 36),
            "c": pixels(2, 3),
            "d": spaces.Box(0, 4, (2,)),
            "e": pixels(1, 4, high=3),
        }
    )
    found = Observations("env", space)
    layout = found.layout(1)
    before = 36 * 36
    spans = (Symbols(before + 2, before + 8, 16), Symbols(before + 10, before + 14, 4))
    assert layout == Mixed(((36, 36, 1),), 2 + 6 + 2 + 4 + 1, spans)
    assert isinstance(layout, Mixed) and layout.inputs == 2 + 6 * 16 + 2 + 4 * 4 + 1
    ranges = found.ranges(1, False, 0)
    assert ranges is not None and not ranges.running[:before].any()
    assert list(ranges.running[before:]) == [False] * 2 + [True] * 6 * 16 + [False] * 2 + [True] * 4 * 4 + [False]
    assert list(ranges.half[before:]) == [1] * (2 + 6 * 16) + [2, 2] + [1] * (4 * 4 + 1)
    advice = "(--observation vector: as quantities)"
    assert found.notices == [
        f"env: the numbers of observation['c'] are read as symbols, modulo 16 {advice}",
        f"env: the numbers of observation['e'] are read as symbols, modulo 4 {advice}",
    ]


UNSUPPORTED = {
    "OneOf": spaces.OneOf((spaces.Discrete(2), spaces.Discrete(3))),
    "Graph": spaces.Graph(spaces.Discrete(2), None),
    "Sequence": spaces.Sequence(spaces.Discrete(2)),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_a_part_without_a_fixed_size_is_named_in_one_line(kind: str):
    space = spaces.Dict({"eye": pixels(36, 36), "bag": spaces.Tuple((spaces.Discrete(2), UNSUPPORTED[kind]))})
    with pytest.raises(ValueError) as error:
        Observations("Shop-v0", space)
    message = str(error.value)
    assert message.startswith(f"Shop-v0: observation['bag'][1] is a {kind} space") and "wrap the environment" in message
    assert "\n" not in message and " at 0x" not in message


def test_observations_of_which_nothing_is_seen_are_refused():
    with pytest.raises(ValueError, match=r"^env: observations of Dict[^\n]* nothing that an agent can see$"):
        Observations("env", spaces.Dict({"said": spaces.Text(5)}))
    with pytest.raises(ValueError, match=r"^env: observations of Discrete\(3\) hold no image[^\n]*$"):
        Observations("env", spaces.Discrete(3), "image")
