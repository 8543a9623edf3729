import itertools
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from memoroids.envs.spaces import (
    MOST_JOINT,
    MOST_OUTPUTS,
    Continuous,
    Factored,
    action_parts,
    actions_of,
    blank_actions,
    options_of,
)

SEEN = {
    "Discrete, however many": (spaces.Discrete(5_000), 5_000),
    "a product that is counted through": (spaces.MultiDiscrete([32, 32]), 1_024),
    "a product that is one too large": (spaces.MultiDiscrete([25, 41]), Factored((25, 41))),
    "one part, however large": (spaces.MultiDiscrete([5_000]), 5_000),
    "ten tens": (spaces.MultiDiscrete([10] * 10), Factored((10,) * 10)),
    "several axes": (spaces.MultiDiscrete(np.full((2, 2), 10)), Factored((10,) * 4)),
    "a few bits": (spaces.MultiBinary(10), 1_024),
    "many bits": (spaces.MultiBinary(11), Factored((2,) * 11)),
    "a board of bits": (spaces.MultiBinary((3, 4)), Factored((2,) * 12)),
    "more parts than axes of an array": (spaces.MultiDiscrete([1] * 70 + [3]), 3),
    "a box": (spaces.Box(-1, 2, (2,), np.float32), Continuous(2, (-1.0, -1.0), (2.0, 2.0))),
    "as many outputs as there may be": (spaces.Discrete(MOST_OUTPUTS), MOST_OUTPUTS),
}


@pytest.mark.parametrize("kind", SEEN)
def test_small_products_are_one_set_of_actions_and_large_ones_stay_parts(kind):
    space, actions = SEEN[kind]
    assert actions_of("env", space) == actions and MOST_JOINT == 1_024


TOO_LARGE = {
    "Discrete": (spaces.Discrete(1_000_001), "1,000,001"),
    "MultiDiscrete": (spaces.MultiDiscrete([400_000, 600_001]), "1,000,001"),
    "MultiDiscrete of one": (spaces.MultiDiscrete([2**62, 2**62]), f"{2**63:,}"),
    "MultiDiscrete of nothing": (spaces.MultiDiscrete(np.ones((1_001, 1_000), np.int64)), "1,001,000"),
    "MultiBinary": (spaces.MultiBinary(500_001), "1,000,002"),
    "Box": (spaces.Box(-1, 1, (1_000_001,), np.float32), "1,000,001"),
    "Box of no numbers": (spaces.Box(-1, 1, (0,), np.float32), "needs 0"),
}


@pytest.mark.parametrize("kind", TOO_LARGE)
def test_more_outputs_than_a_network_can_have_are_refused_in_one_line_with_their_number(kind):
    space, number = TOO_LARGE[kind]
    with pytest.raises(ValueError) as error:
        actions_of("env", space)
    message = str(error.value)
    assert message.startswith(f"env: action space {type(space).__name__}(") and number in message
    assert "\n" not in message and len(message) < 500


def test_a_space_too_large_is_refused_before_anything_of_its_size_is_made():
    tracemalloc.start()
    with pytest.raises(ValueError, match="20,000,000,000"):
        actions_of("env", spaces.MultiBinary((100_000, 100_000)))
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


REFUSED = {
    "Graph": spaces.Graph(spaces.Discrete(2), None),
    "Sequence": spaces.Sequence(spaces.Discrete(2)),
    "OneOf": spaces.OneOf((spaces.Discrete(2), spaces.Discrete(3))),
    "Dict": spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(0, 1, (2, 2))}),
    "Tuple": spaces.Tuple((spaces.Discrete(2), spaces.Discrete(3))),
    "Text": spaces.Text(4),
    "Box": spaces.Box(0, 9, (2, 2), np.int64),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_spaces_are_refused_in_one_line(kind):
    with pytest.raises(ValueError) as error:
        actions_of("env", REFUSED[kind])
    message = str(error.value)
    assert message.startswith(f"env: action space {kind}(") and "\n" not in message and "MultiBinary" in message


@pytest.mark.parametrize("sizes", [(3, 2, 4), (7,), (1, 2, 1, 3)])
def test_an_index_stands_for_one_action_of_several_parts_in_numpy_and_in_jax(sizes):
    actions = int(np.prod(sizes))
    want = list(itertools.product(*map(range, sizes)))
    assert [tuple(options_of(actions, sizes, i)) for i in range(actions)] == want
    found = jax.vmap(lambda i: options_of(actions, sizes, i))(jnp.arange(actions, dtype=jnp.int32))
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, want)
    options = np.asarray(want[-1], np.int32)
    assert options_of(Factored(sizes), sizes, options) is options


def test_blank_actions_have_the_shape_and_type_of_actions_on_a_tape():
    for actions, shape, dtype in (
        (4, (3,), np.int32),
        (Factored((5, 6)), (3, 2), np.int32),
        (Continuous(2, (0.0, 0.0), (1.0, 1.0)), (3, 2), np.float32),
    ):
        blank = blank_actions(actions, 3)
        assert blank.shape == shape and blank.dtype == dtype and not blank.any()


def test_the_parts_of_a_board_are_in_the_order_of_its_cells():
    sizes, start = action_parts(spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[1, 0], [7, 2]]))
    assert sizes == (2, 3, 4, 5) and start.tolist() == [1, 0, 7, 2]
    assert action_parts(spaces.MultiBinary((2, 2)))[0] == (2, 2, 2, 2)
