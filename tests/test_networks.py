import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.memory import REGISTRY
from memoroids.networks import Dueling, QNetwork


def test_dueling_heads_add_a_value_to_centred_advantages():
    head = Dueling(5, 3, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (5,))
    q = head(x)
    np.testing.assert_allclose(q.mean(), head.value(x)[0], rtol=1e-5)
    np.testing.assert_allclose(q - q.mean(), head.advantage(x) - head.advantage(x).mean(), atol=1e-6)


def test_value_and_advantage_heads_start_apart():
    head = Dueling(5, 1, key=jax.random.key(0))
    assert not np.allclose(head.value.weight, head.advantage.weight)


@pytest.mark.parametrize("name", REGISTRY)
def test_every_parameter_takes_part(name):
    network = QNetwork(3, 4, REGISTRY[name], key=jax.random.key(0), width=8)
    x = jax.random.normal(jax.random.key(1), (12, 3))
    begin = jnp.arange(12) % 6 == 0
    # Q-values squared, so that not even a common shift of them has a zero gradient.
    loss = jax.jit(jax.grad(lambda n: jnp.sum(jnp.square(n(x, begin)[0])), allow_int=True))
    for path, leaf in jax.tree_util.tree_leaves_with_path(loss(network)):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            assert jnp.any(leaf != 0), f"{name}: no gradient reaches {jax.tree_util.keystr(path)}"


def test_a_factory_that_gives_no_memory_is_refused():
    with pytest.raises(TypeError, match="gave int, not a memoroids"):
        QNetwork(3, 4, lambda i, o, *, key: 5, key=jax.random.key(0))  # pyright: ignore
