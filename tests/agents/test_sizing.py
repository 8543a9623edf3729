"""Networks of one size, whatever their memory."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from memoroids.agents.networks import ActorCritic, QNetwork
from memoroids.agents.sizing import count_parameters, fitted
from memoroids.memory import REGISTRY, SLSTM
from memoroids.memory.registry import sizes_of


def network(memory: Any, width: int, sizes: dict[str, Any], kind: Any = QNetwork) -> Any:
    return kind(5, 3, memory, key=jax.random.key(0), width=width, sizes=sizes)


def size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


CASES = [*((name, QNetwork, 100_000) for name in REGISTRY), ("lru", ActorCritic, 250_000)]


@pytest.mark.parametrize(("name", "kind", "parameters"), CASES)
@pytest.mark.one_in(3)
def test_networks_of_every_memory_agree_within_one_per_cent(name: str, kind: Any, parameters: int):
    memory = REGISTRY[name]
    build = partial(network, memory, kind=kind)
    width, sizes, counted = fitted(build, memory, parameters, {})
    assert size(eqx.filter_eval_shape(build, width, sizes)) == counted
    assert abs(counted - parameters) <= 0.01 * parameters
    assert set(sizes) <= set(sizes_of(memory)) - {"layers", "window", "heads", "frames"}


def test_sizes_that_are_named_stay_and_the_width_makes_up_for_them():
    memory = REGISTRY["lru"]
    small, large = (
        fitted(partial(network, memory), memory, 50_000, {"state_size": states, "layers": 1}) for states in (16, 64)
    )
    assert (small.sizes, large.sizes) == ({"state_size": 16, "layers": 1}, {"state_size": 64, "layers": 1})
    assert small.width > large.width
    assert size(network(memory, small.width, small.sizes)) == small.parameters


def test_a_number_that_no_width_gives_is_answered_with_the_closest():
    memory = partial(SLSTM, heads=1)
    with pytest.raises(ValueError, match=r"^no width comes within 1% of 700 parameters: the closest is \d+, with "):
        fitted(partial(network, memory), memory, 700, {})


def test_running_statistics_are_no_parameters():
    plain = network(REGISTRY["mlp"], 8, {})
    assert count_parameters(plain) == size(plain)
    counted = eqx.tree_at(lambda n: n.normaliser, plain, jnp.zeros(5), is_leaf=lambda leaf: leaf is None)
    assert count_parameters(counted) == size(plain)
